"""A model, its libraries and its golden answers in one folder, checked before anything of it is loaded.

``bundle`` writes one, ``open_bundle`` reads it: with NumPy, safetensors and onnxruntime, no torch, no onnx.
Where a key is given, and for ``sign``, the extra ``sign`` is loaded. ``ort_ops.deploy.ray`` serves a bundle
on many machines.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .bundling import bundle
from .manifest import Manifest
from .needs import Needs
from .opening import Bundle, Graph, open_bundle
from .optimizing import Optimized
from .processor import Processor
from .signing import sign
from .triton import write_triton

if TYPE_CHECKING:
    from . import ray

__all__ = [
    "Bundle",
    "Graph",
    "Manifest",
    "Needs",
    "Optimized",
    "Processor",
    "bundle",
    "open_bundle",
    "ray",
    "sign",
    "write_triton",
]


def __getattr__(name: str) -> Any:
    if name == "ray":
        return importlib.import_module(f"{__name__}.ray")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
