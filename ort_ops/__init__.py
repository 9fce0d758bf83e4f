"""Write an operator once in PyTorch; it trains there, runs in ONNX Runtime, and is checked against PyTorch.

``ort_ops.onnx_op`` makes a Python function a kernel of ONNX Runtime, ``ort_ops.InferenceSession`` runs
models with it. Importing this package loads NumPy and onnxruntime, never torch or onnx; its submodules
are loaded when they are first asked for.
"""

import functools
import importlib
import pkgutil
from typing import Any

from .runtime import require_gil, require_one_runtime

require_one_runtime()

from .explaining import NodeRun  # noqa: E402
from .libraries import get_cmake_dir, get_include  # noqa: E402  # only once there is a runtime to load
from .registry import onnx_op  # noqa: E402  # only once there is a runtime to load
from .schema import TensorType  # noqa: E402
from .session import InferenceSession, get_library_path, register  # noqa: E402

require_gil()  # now that the bridge is loaded

__all__ = [
    "InferenceSession",
    "NodeRun",
    "TensorType",
    "get_cmake_dir",
    "get_include",
    "get_library_path",
    "onnx_op",
    "register",
]


@functools.cache
def _submodules() -> frozenset[str]:
    return frozenset(module.name for module in pkgutil.iter_modules(__path__))


def __getattr__(name: str) -> Any:
    """Load a submodule when it is first asked for (PEP 562)."""
    if name in _submodules():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_submodules()})
