"""What a kernel is given to fill and what it returns, of any kind of array, and what is wrong with it."""

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._bridge import Call
from .dtypes import from_onnx
from .errors import ResultError

__all__ = [
    "buffers_of",
    "hides",
    "not_an_array",
    "out_of",
    "refuse_mask",
    "refuse_result",
    "reject",
    "results_of",
]


def buffers_of(wrap: Callable[[Any], Any], call: Call) -> Sequence[Any]:
    """Return the buffers of the outputs as arrays, None for one that nobody wants."""
    there = call.output_count()  # a node may leave trailing ones out
    buffers = [call.output(i, shape) if i < there else None for i, shape in enumerate(call.output_shapes())]
    return [None if buffer is None else wrap(buffer) for buffer in buffers]


def out_of(arrays: Sequence[Any]) -> dict[str, Any]:
    """Return the keyword argument that holds what a kernel is to fill: one array, or a tuple of them."""
    return {"out": arrays[0] if len(arrays) == 1 else tuple(arrays)}


def refuse_result(result: object, out: Mapping[str, object]) -> None:
    """Raise ResultError for a result of a kernel that was to fill ``out``."""
    if result is not None and result is not out["out"]:
        raise ResultError("returned a result though it is given out=; expected it to fill out, and None")


def results_of(outputs: int, result: object) -> tuple[object, ...]:
    """Return what a kernel returned as one item for each of its outputs."""
    if outputs == 1:
        return (result,)
    if outputs == 0 and result is None:
        return ()
    if not isinstance(result, tuple) or len(result) != outputs:
        raise ResultError(not_an_array(result, "array", outputs))
    return result


def not_an_array(result: object, wanted: str, count: int) -> str:
    """Say what a kernel returned instead of ``count`` arrays of a kind, and what the reason may be."""
    several = f"a tuple of {count}, each {wanted}: return {', '.join(string.ascii_lowercase[:count])}"
    expected = wanted if count == 1 else "None" if count == 0 else several
    got = "None" if result is None else f"a {type(result).__name__}"
    if isinstance(result, tuple):
        got = f"a tuple of {len(result)} ({', '.join(type(r).__name__ for r in result)})"
    hint = "; did the function forget its return?" if result is None else ""
    if isinstance(result, tuple) and count == 1:
        hint = "; several outputs are declared as -> tuple[A, B]"
    return f"returned {got}; expected {expected}{hint}"


def hides(array: Any) -> bool:
    """Tell whether some elements of an array stand for nothing (numpy.ma), which a tensor can't say."""
    return type(array) is not np.ndarray and bool(np.ma.is_masked(array))


def refuse_mask(item: object, index: int) -> None:
    """Raise ResultError for a result some elements of which stand for nothing."""
    if np.ma.isMaskedArray(item) and hides(item):
        raise ResultError(
            f"returned masked elements in output {index}, and a tensor has no mask; say what they are: "
            "return result.filled(value)"
        )


def _is_stored_as(dtype: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    """Tell whether the bridge takes an array for one of a dtype: in another order of bytes, or of texts."""
    return dtype.newbyteorder("=") == expected or (dtype.kind == "U" and expected.kind == "O")


def reject(result: object, types: list[int]) -> None:
    """Raise what is wrong with a result that the bridge could not store."""
    items = result if isinstance(result, tuple) and len(types) != 1 else (result,)
    for index, (item, element_type) in enumerate(zip(items, types, strict=False)):
        refuse_mask(item, index)
        if isinstance(item, np.ndarray | np.generic) and element_type:
            expected = from_onnx(element_type).numpy
            if not _is_stored_as(item.dtype, expected):
                cast = "str).astype(object" if expected.kind == "O" else repr(expected.name)  # strings
                raise ResultError(
                    f"returned dtype {item.dtype} for output {index}; expected {expected}: nothing is cast "
                    f"for you, so return result.astype({cast}) if that is what you mean"
                )
    raise ResultError(not_an_array(result, "a NumPy array", len(types)))
