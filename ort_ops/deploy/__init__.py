"""A model, its libraries and its golden answers in one folder, checked before anything of it is loaded.

``bundle`` writes one, ``open_bundle`` reads it: with NumPy and onnxruntime alone, no torch, no onnx.
``ort_ops.deploy.ray`` serves it on many machines.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .bundling import bundle
from .manifest import Manifest, Needs
from .opening import Bundle, open_bundle
from .triton import write_triton

if TYPE_CHECKING:
    from . import ray

__all__ = ["Bundle", "Manifest", "Needs", "bundle", "open_bundle", "ray", "write_triton"]


def __getattr__(name: str) -> Any:
    if name == "ray":
        return importlib.import_module(f"{__name__}.ray")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
