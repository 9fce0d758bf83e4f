"""Arrays that ``onnxruntime.InferenceSession.run`` refuses, bfloat16 and float8, into OrtValues and back.

And those that it takes for others.
"""

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from .dtypes import DTYPES, find_dtype

__all__ = ["NO_ARRAYS", "REFUSED_BY_RUN", "native", "to_numpy", "to_value"]

REFUSED_BY_RUN = frozenset(f"tensor({dtype.ort})" for dtype in DTYPES if 16 <= dtype.onnx <= 20)
"""ONNX Runtime's names of the types that its ``run`` takes no NumPy arrays of."""

NO_ARRAYS = frozenset(f"tensor({dtype.ort})" for dtype in DTYPES if dtype.onnx >= 16)
"""Those of all types, 4-bit ones too, that it makes no NumPy arrays of."""


def native(feed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a run is fed with, its arrays as ONNX Runtime reads them rightly.

    It reads numbers of another byte order as if they were in this machine's, NumPy's bytes beyond their end,
    and NumPy's strings to the first NUL; all without a word. Raises UnicodeDecodeError for bytes that aren't
    UTF-8.
    """
    for value in feed.values():
        if _is_misread(value):
            return {name: _rightly_read(value) for name, value in feed.items()}
    return feed


def _is_misread(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return not value.dtype.isnative or value.dtype.kind in "SU"
    return isinstance(value, list) and any(map(_is_misread, value))  # a sequence


def _rightly_read(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_rightly_read, value))
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "S":
        return np.char.decode(value, "utf-8").reshape(value.shape).astype(object)
    return value.astype(object if value.dtype.kind == "U" else value.dtype.newbyteorder("="), copy=False)


def to_value(name: str, array: Any, declared: str) -> onnxruntime.OrtValue:
    """Return what input ``name``, of the type that the model declares, is fed with, as an OrtValue.

    Raises ValueError where the model takes a type of ml_dtypes and the array is of another,
    NotImplementedError for strings and sequences.
    """
    if isinstance(array, onnxruntime.OrtValue):
        return array
    if not declared:
        raise ValueError(f"the model has no input {name!r}")
    if not declared.startswith("tensor(") or declared == "tensor(string)":
        raise NotImplementedError(
            f"input {name!r} is a {declared}, which ONNX Runtime's Python takes only in runs without "
            "bfloat16, float8 and 4-bit inputs and outputs; cast those inside of the model"
        )
    if declared not in REFUSED_BY_RUN:
        given = None if isinstance(array, np.ndarray) else _dtype_of_list(declared)
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, given))
    dtype = find_dtype(declared)
    array = np.asarray(array, order="C")
    if array.dtype != dtype.numpy:
        raise ValueError(f"input {name!r} is {array.dtype}; the model expects {dtype.name} (of ml_dtypes)")
    bits = array.view(_bits(dtype.numpy))
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, dtype.onnx)


def _dtype_of_list(declared: str) -> Any:
    """Return the dtype of what is given as a list, by ONNX Runtime's name of an input's type."""
    return next((dtype.numpy for dtype in DTYPES if declared == f"tensor({dtype.ort})"), None)


def to_numpy(value: onnxruntime.OrtValue) -> Any:
    """Return an OrtValue as an array on the CPU; a sequence or a map as onnxruntime returns it."""
    if value.data_type() not in REFUSED_BY_RUN:
        return value.numpy()
    dtype = find_dtype(value.data_type()).numpy
    array = np.empty(value.shape(), dtype)
    if array.size:
        pointer = ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_uint8))
        source = np.ctypeslib.as_array(pointer, shape=(array.nbytes,))
        array.reshape(-1).view(np.uint8)[:] = source
    return array


def _bits(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")
