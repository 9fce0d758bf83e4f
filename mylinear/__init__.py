"""MYLINEAR, Y = X·Wᵀ + B: an operator that trains in PyTorch and runs in ONNX Runtime.

``LinearF`` and ``MyLinear`` load PyTorch when they are first used; ``mylinear.kernels`` never does on
the CPU, so that a deployment needs neither torch nor onnx.
"""

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .function import LinearF
    from .library import get_library_path
    from .module import MyLinear, replace_linear

__all__ = ["LinearF", "MyLinear", "get_library_path", "replace_linear"]

_HOME = {
    "LinearF": "function",
    "MyLinear": "module",
    "get_library_path": "library",
    "replace_linear": "module",
}


@functools.cache
def _submodules() -> frozenset[str]:
    return frozenset(module.name for module in pkgutil.iter_modules(__path__))


def __getattr__(name: str) -> Any:
    """Load a submodule, or the one that holds a public name, when it is first asked for (PEP 562)."""
    if name in _submodules():
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_submodules()})
