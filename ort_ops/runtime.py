"""Makes sure that there is an ONNX Runtime, and only one."""

import importlib.metadata
import importlib.util
from pathlib import Path

from .errors import MissingRuntimeError

__all__ = ["require_one_runtime"]

DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
)


def require_one_runtime() -> None:
    """Raise MissingRuntimeError where ONNX Runtime is missing or two distributions of it overlap.

    Each of them installs the same package ``onnxruntime``; the one installed last has overwritten files of
    the other, and what is imported is neither. One in another folder, not the one imported from, is no harm.
    """
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise MissingRuntimeError(
            "ort_ops needs ONNX Runtime; install one of the two: pip install 'ort-ops[cpu]' or "
            "pip install 'ort-ops[gpu]'"
        )
    folder = Path(spec.origin).resolve().parent.parent
    here = [name for name in DISTRIBUTIONS if _folder_of(name) == folder]
    if len(here) > 1:
        raise MissingRuntimeError(
            f"{' and '.join(here)} are installed into one folder and have overwritten each other; "
            f"pip uninstall {' '.join(here)}, then install the one that you want"
        )


def _folder_of(distribution: str) -> Path | None:
    try:
        return Path(str(importlib.metadata.distribution(distribution).locate_file(""))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None
