"""A model, its libraries and its golden answers in one folder, checked before anything of it is loaded.

``bundle`` writes one, ``open_bundle`` reads it: with NumPy and onnxruntime alone, no torch, no onnx.
"""

from .bundling import bundle
from .manifest import Manifest, Needs
from .opening import Bundle, open_bundle
from .triton import write_triton

__all__ = ["Bundle", "Manifest", "Needs", "bundle", "open_bundle", "write_triton"]
