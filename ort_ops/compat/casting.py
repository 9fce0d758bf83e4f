"""Casts in which every value survives: the only ones that are made for anybody."""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ort_ops.dtypes import ANY, from_numpy, from_onnx
from ort_ops.errors import SchemaError

__all__ = ["STRING", "cast_exactly"]

STRING = 8
"""The element type of strings; their arrays hold Python's str."""


def cast_exactly(value: Any, element_type: int) -> NDArray[Any]:
    """Return ``value`` as an array of an ONNX element type, each value what it was.

    Takes arrays, scalars and nested lists of them, and what has ``shape`` and ``flatten().tolist()``
    (torch's tensors). NaN stays NaN, and -0.0 may become the integer 0. Raises ValueError, with the first
    value that doesn't survive, and TypeError for what are no numbers (no strings where strings are due).
    """
    if element_type == STRING:
        return _strings(np.asarray(value, object))
    array = _as_array(value)
    if element_type == ANY or array.dtype == (dtype := from_onnx(element_type).numpy):
        return array
    try:
        from_numpy(array.dtype)
    except SchemaError:
        raise TypeError(f"{_described(value, array)}; expected {dtype}") from None
    if array.dtype == object:
        raise TypeError(f"{_described(value, array)}; expected {dtype}")
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        lost = ~_survives(array, cast)
    if lost.any():
        raise ValueError(_lost_text(array, cast, lost))
    return cast


def _as_array(value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value
    try:
        array = np.asarray(value)
    except (TypeError, RuntimeError):  # torch: on a GPU, with a gradient, or bfloat16
        array = np.asarray(None)
    if array.dtype == object and hasattr(value, "flatten"):
        return _from_list(value.flatten().tolist()).reshape(value.shape)
    return _from_list(value) if isinstance(value, list | tuple) else array


def _from_list(items: Sequence[Any]) -> NDArray[Any]:
    """Return the array that NumPy makes of a list; ValueError where a number is rounded on the way."""
    array = np.asarray(items)
    if array.dtype.kind == "f":  # also of what has integers of more than 53 bits in it
        exact = np.asarray(items, object)
        rounded = (exact != array.astype(object)) & ~np.isnan(array)
        if rounded.any():
            raise ValueError(f"{exact[rounded][0]} would be rounded to {array[rounded][0]!s}")
    return array


def _strings(array: NDArray[Any]) -> NDArray[Any]:
    strings = array.copy()
    for index, item in np.ndenumerate(strings):
        if isinstance(item, bytes):
            strings[index] = item.decode(errors="surrogateescape")  # as the bridge reads strings
        elif not isinstance(item, str):
            raise TypeError(f"{item!r} at {index} is of type {type(item).__name__}; expected str")
    return strings


def _survives(array: NDArray[Any], cast: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell of each value whether its cast is the same number."""
    if _is_float(array) and _is_float(cast):
        before, after = array.astype(np.float64), cast.astype(np.float64)  # widening is exact
        return np.asarray((before == after) | (np.isnan(before) & np.isnan(after)))
    if _is_float(array):
        kept = cast.astype(np.float64) == array.astype(np.float64)
        return np.asarray(_fits(array, cast.dtype) & kept)
    if _is_float(cast):
        kept = cast.astype(np.float64).astype(array.dtype) == array
        return np.asarray(_fits(cast, array.dtype) & kept)
    return np.asarray((cast.astype(array.dtype) == array) & ((cast < 0) == (array < 0)))


def _is_float(array: NDArray[Any]) -> bool:
    return "float" in array.dtype.name


def _fits(floats: NDArray[Any], integer: np.dtype[Any]) -> NDArray[np.bool_]:
    """Tell which floats lie in an integer type's range: a cast of others is undefined in C."""
    wide = floats.astype(np.float64)
    if integer == np.bool_:
        return np.asarray((wide >= 0) & (wide <= 1))
    info: Any = ml_dtypes.iinfo(integer)  # type: ignore[no-untyped-call] # it covers the 4-bit types
    # max + 1 is a power of two, so a float64 has it exactly; max itself of 64 bits it hasn't.
    return np.asarray((wide >= float(info.min)) & (wide < float(int(info.max) + 1)))


def _described(value: Any, array: NDArray[Any]) -> str:
    if value is None:
        return "it is None (did the function forget its return?)"
    return f"it is of {f'type {type(value).__name__}' if array.dtype == object else f'dtype {array.dtype}'}"


def _lost_text(array: NDArray[Any], cast: NDArray[Any], lost: NDArray[np.bool_]) -> str:
    index = tuple(int(i) for i in np.argwhere(lost)[0]) if lost.shape else ()
    return (
        f"{array.dtype} {array[index]!s} at {index} would become {cast.dtype} {cast[index]!s} "
        f"({int(lost.sum())} of {lost.size} values don't survive); "
        f"cast it yourself, .astype({cast.dtype.name!r}), if that is what you mean"
    )
