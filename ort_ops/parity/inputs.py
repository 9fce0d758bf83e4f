"""Inputs for a model, made from what its file says of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ort_ops.dtypes import from_onnx
from ort_ops.errors import ParityError

__all__ = ["make_inputs"]

# Sizes of symbolic dimensions: in three samples each gets one of each row, since code may decide by whether a
# size is one, or even, or what it divides.
_SIZES = ((4, 6, 8, 12), (1, 2, 11, 13), (7, 3, 5, 9))


def make_inputs(
    model: ir.Model,
    *,
    seed: int = 0,
    sample: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return an array for each input of a file: floats from N(0, 1), token ids within their table, bools.

    sample: the number of the sample, by which values and the sizes of symbolic dimensions differ.
    ranges: for some inputs the least and the largest value, both included.
    dims: sizes for some symbolic dimensions.

    Raises ParityError for an input that is no tensor, or of strings, and for names that the file hasn't.
    """
    _check_names(model, ranges or {}, dims or {})
    for name, (low, high) in (ranges or {}).items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ParityError(
                f"the range of {name!r} is {low:g} to {high:g}; expected numbers, the least first"
            )
    generator = np.random.default_rng((seed, sample))
    sizes: dict[str, int] = dict(dims or {})
    made = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        name = value.name or ""
        if value.dtype is None or value.shape is None or value.dtype == ir.DataType.STRING:
            raise ParityError(f"no values can be made up for input {name!r}, a {value.type}; pass inputs")
        shape = [_size(dim, sizes, sample) for dim in value.shape]
        dtype = from_onnx(int(value.dtype)).numpy
        given = (ranges or {}).get(name)
        made[name] = _values(generator, shape, dtype, given, model, value)
    return made


def _check_names(model: ir.Model, ranges: Mapping[str, Any], dims: Mapping[str, Any]) -> None:
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    symbols = [dim for value in inputs for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)]
    terms = {term for dim in symbols for term in _terms(dim)}
    names = {value.name or "" for value in inputs}
    sizes = {dim.value for dim in symbols if dim.value is not None} | terms
    for kind, given, there in (("input", ranges, names), ("symbolic dimension", dims, sizes)):
        if unknown := sorted(given.keys() - there):
            has = ", ".join(sorted(there)) or "none"
            raise ParityError(f"there is no {kind} {', '.join(unknown)}; the file has {has}")


def _size(dim: int | ir.SymbolicDim, sizes: dict[str, int], sample: int) -> int:
    if isinstance(dim, int):
        return dim
    name = dim.value or f"unnamed {len(sizes)}"
    if name in sizes:
        return sizes[name]
    terms = _terms(dim) - {name}
    if terms:  # as ``2*batch``
        value = dim.evaluate({term: _size(ir.SymbolicDim(term), sizes, sample) for term in sorted(terms)})
        sizes[name] = value if isinstance(value, int) else 1
    else:
        # Dimensions of different names get different sizes: a file that confuses them is seen.
        place = len(sizes)
        row = _SIZES[(sample + place) % len(_SIZES)]
        sizes[name] = row[(sample // len(_SIZES) + place // len(_SIZES)) % len(row)]
    return sizes[name]


def _terms(dim: ir.SymbolicDim) -> set[str]:
    """Return the names in an expression; none where it is no expression, as ``batch size``."""
    try:
        return set(dim.free_symbols()) if dim.value is not None else set()
    except ValueError:
        return set()


def _values(
    generator: np.random.Generator,
    shape: Sequence[int],
    dtype: Any,
    given: tuple[float, float] | None,
    model: ir.Model,
    value: ir.Value,
) -> NDArray[Any]:
    if dtype == np.bool_:
        return generator.random(shape) < 0.5
    if np.dtype(dtype).kind in "iu":
        low, high = given if given is not None else (0, _table_size(model, value) - 1)
        return generator.integers(int(low), int(high), shape, endpoint=True).astype(dtype)
    if given is not None:
        return generator.uniform(given[0], given[1], shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _table_size(model: ir.Model, value: ir.Value) -> int:
    """Return how many rows the table has that an input indexes, or 2 where it indexes none."""
    return min(_tables(value, set()), default=2)


def _tables(value: ir.Value, seen: set[ir.Value]) -> Iterator[int]:
    if value in seen:
        return
    seen.add(value)
    for node, place in value.uses():
        if node.op_type == "Gather" and place == 1:
            table, axis = node.inputs[0], node.attributes.get("axis")
            if table is not None and table.shape is not None:
                rows = table.shape[axis.as_int() if axis is not None else 0]
                if isinstance(rows, int):
                    yield rows
        elif node.op_type in ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Clip", "Where"):
            for output in node.outputs:
                yield from _tables(output, seen)
