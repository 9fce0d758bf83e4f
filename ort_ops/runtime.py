"""Makes sure that there is an ONNX Runtime, and only one, and a Python that the bridge can run in."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from .errors import MissingRuntimeError, UnsupportedPythonError

__all__ = ["release_of", "require_gil", "require_one_runtime"]

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


def release_of(distribution: str) -> str:
    """Return which release of a distribution is installed, or "unknown": in a source tree there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def require_gil() -> None:
    """Raise UnsupportedPythonError where this Python runs without its global interpreter lock.

    Free-threaded Python turns the lock on by itself when it loads an extension module that doesn't declare
    that it can do without, as the bridge doesn't; so this is asked once the bridge is loaded. Then the lock
    is off only where PYTHON_GIL=0 or -X gil=0 forces it off.
    """
    enabled = getattr(sys, "_is_gil_enabled", None)  # since Python 3.13
    if enabled is not None and not enabled():
        raise UnsupportedPythonError(
            "ort_ops needs the global interpreter lock: its bridge and what it keeps of kernels and their "
            "failures are not made for threads that run at once; leave out PYTHON_GIL=0 and -X gil=0, and "
            "this Python turns the lock on by itself"
        )


def _folder_of(distribution: str) -> Path | None:
    try:
        return Path(str(importlib.metadata.distribution(distribution).locate_file(""))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None
