"""One table of element types: ONNX's number, ONNX Runtime's name, NumPy's dtype and torch's name.

A NumPy dtype comes from ml_dtypes where NumPy has none of its own; strings are Python str in an array of
objects, and the 4-bit types have an element a byte. The torch column is a name, so that
reading the table loads no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from .errors import SchemaError

__all__ = ["ANY", "COMMON_TYPES", "DTYPES", "DType", "find_dtype", "from_numpy", "from_onnx", "type_name"]

ANY = 0
"""The element type by which an operator declares that it takes any (TensorProto.UNDEFINED)."""


@dataclass(frozen=True)
class DType:
    """One element type under all of its names.

    ``onnx`` is the value of ``TensorProto.DataType``; ``name`` what NumPy and torch call it;
    ``ort`` what ONNX Runtime prints in ``tensor(...)``; ``torch`` the attribute of the torch module,
    or None where torch has no such type.
    """

    onnx: int
    name: str
    ort: str
    numpy: np.dtype[np.generic]
    torch: str | None


def _row(onnx: int, name: str, ort: str, numpy: DTypeLike, torch: str | None) -> DType:
    return DType(onnx, name, ort, np.dtype(numpy), torch)


DTYPES: tuple[DType, ...] = (
    _row(1, "float32", "float", np.float32, "float32"),
    _row(2, "uint8", "uint8", np.uint8, "uint8"),
    _row(3, "int8", "int8", np.int8, "int8"),
    _row(4, "uint16", "uint16", np.uint16, "uint16"),
    _row(5, "int16", "int16", np.int16, "int16"),
    _row(6, "int32", "int32", np.int32, "int32"),
    _row(7, "int64", "int64", np.int64, "int64"),
    _row(8, "string", "string", np.object_, None),
    _row(9, "bool", "bool", np.bool_, "bool"),
    _row(10, "float16", "float16", np.float16, "float16"),
    _row(11, "float64", "double", np.float64, "float64"),
    _row(12, "uint32", "uint32", np.uint32, "uint32"),
    _row(13, "uint64", "uint64", np.uint64, "uint64"),
    _row(16, "bfloat16", "bfloat16", ml_dtypes.bfloat16, "bfloat16"),
    _row(17, "float8_e4m3fn", "float8e4m3fn", ml_dtypes.float8_e4m3fn, "float8_e4m3fn"),
    _row(18, "float8_e4m3fnuz", "float8e4m3fnuz", ml_dtypes.float8_e4m3fnuz, "float8_e4m3fnuz"),
    _row(19, "float8_e5m2", "float8e5m2", ml_dtypes.float8_e5m2, "float8_e5m2"),
    _row(20, "float8_e5m2fnuz", "float8e5m2fnuz", ml_dtypes.float8_e5m2fnuz, "float8_e5m2fnuz"),
    _row(21, "uint4", "uint4", ml_dtypes.uint4, None),
    _row(22, "int4", "int4", ml_dtypes.int4, None),
    _row(23, "float4_e2m1fn", "float4e2m1", ml_dtypes.float4_e2m1fn, None),
)

COMMON_TYPES = tuple(dtype.onnx for dtype in DTYPES if dtype.onnx <= 16)
"""What "of any type" stands for where types have to be listed.

float8 and 4-bit types, which not every release of ONNX Runtime has, are to be declared.
"""

_BY_ONNX: Mapping[int, DType] = {dtype.onnx: dtype for dtype in DTYPES}
_BY_NUMPY: Mapping[np.dtype[np.generic], DType] = {dtype.numpy: dtype for dtype in DTYPES}
_BY_NAME: Mapping[str, DType] = {
    name: dtype for dtype in DTYPES for name in (dtype.name, dtype.ort, f"tensor({dtype.ort})")
}


def from_onnx(element_type: int) -> DType:
    """Return the row of an ONNX element type; raises SchemaError where kernels can't have it."""
    try:
        return _BY_ONNX[element_type]
    except KeyError:
        raise SchemaError(f"ONNX element type {element_type} can't be given to a kernel") from None


def from_numpy(dtype: DTypeLike) -> DType:
    """Return the row of a NumPy dtype, whatever its byte order; raises SchemaError for another."""
    native = np.dtype(np.object_ if dtype is str else dtype).newbyteorder("=")
    try:
        return _BY_NUMPY[native]
    except KeyError:
        raise SchemaError(f"NumPy's {native} is no element type of ONNX Runtime") from None


def find_dtype(name: str) -> DType:
    """Return the row called ``name``: ``"float64"``, ``"double"`` or ``"tensor(double)"`` alike."""
    try:
        return _BY_NAME[name]
    except KeyError:
        known = ", ".join(dtype.name for dtype in DTYPES)
        raise SchemaError(f"{name!r} is no element type; expected one of {known}") from None


# The complex types are ONNX's, but no operator of ONNX Runtime's takes them.
_TYPE_NAMES = {dtype.onnx: dtype.name for dtype in DTYPES} | {14: "complex64", 15: "complex128"}


def type_name(element_type: int | None) -> str:
    """Return the name of an ONNX element type, ``"?"`` where it isn't known."""
    return _TYPE_NAMES.get(element_type, f"type {element_type}") if element_type else "?"
