"""How far sums of many numbers may be off, as a fourth of the bound: see ``bounds``.

Of many terms K·u is as much as a fault, and √K·u holds for random roundings only: those of equal numbers,
added up one by one, all go one way. So that is done, in float32, and counts if it is off by more. ONNX
Runtime's and PyTorch's sums stay below a half of the bound, of up to 10⁶ random, positive, equal or sorted
numbers.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .step import Step

__all__ = ["SUMS", "sum_errors"]

Array = NDArray[Any]

SUMS = frozenset(
    "AveragePool CumSum GlobalAveragePool ReduceL1 ReduceMean ReduceSum ReduceSumSquare".split()  # noqa: SIM905
)
"""Operators that add up elements of their first input."""
_MANY = 1024  # terms up to which the certain bound is small: 6e-5 of the sum of absolute values
_BLOCK = 256  # terms after which it is looked how far off a running sum is
_SINGLE = float(np.finfo(np.float32).eps) / 2


def sum_errors(kind: str, step: Step, magnitude: Array, unit: float) -> Array:
    """Return how far sums may be off; ``magnitude`` are those of absolute values."""
    x, y = step.inputs[0], step.outputs[0]
    axis = int(np.asarray(step.inputs[1]).reshape(())) if kind == "CumSum" else 0
    terms = x.shape[axis] if kind == "CumSum" and x.ndim else max(x.size / max(y.size, 1), 1.0)
    if terms <= _MANY or unit < _SINGLE or kind == "AveragePool":
        certain: Array = max(terms / 4, 1) * unit * magnitude
        return certain
    if kind == "CumSum":
        return _running(step, axis, magnitude)
    relative = [max(_one_by_one(row)[-1], (math.sqrt(terms) + 1) * unit) for row in _rows(kind, step)]
    several: Array = np.reshape(relative, y.shape) * magnitude
    return several


def _running(step: Step, axis: int, magnitude: Array) -> Array:
    x = np.moveaxis(step.inputs[0], axis, -1)
    backward = bool(step.attribute("reverse", 0))
    x = x[..., ::-1] if backward else x
    roundings = (np.sqrt(np.arange(1, x.shape[-1] + 1)) + 1) * _SINGLE
    relative = np.empty(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        several = np.repeat(_one_by_one(x[place]), _BLOCK)[: x.shape[-1]]
        relative[place] = np.maximum(several, roundings)
    relative = relative[..., ::-1] if backward else relative
    error: Array = np.moveaxis(relative, -1, axis) * magnitude
    return error


def _one_by_one(row: Array) -> Array:
    """Return how far off a running sum in float32 has been up to the end of each block, in parts of |x|'s."""
    starts = np.arange(0, row.size, _BLOCK)
    ends = np.minimum(starts + _BLOCK, row.size) - 1
    exact, sizes = (np.cumsum(np.add.reduceat(values, starts)) for values in (row, np.abs(row)))
    apart = np.abs(np.cumsum(row, dtype=np.float32)[ends] - exact)
    parts = apart / np.maximum(sizes, np.finfo(np.float64).tiny)
    most: Array = np.maximum.accumulate(np.where(np.isfinite(parts), parts, 0.0))
    return most


def _rows(kind: str, step: Step) -> Array:
    """Return the numbers that are added up for each sum, as the rows of a matrix."""
    x: Array = step.inputs[0]
    given = step.attribute("axes", None)
    if given is None and len(step.inputs) > 1:
        given = step.inputs[1]
    over = range(2, x.ndim) if kind == "GlobalAveragePool" else given
    axes = [int(axis) % x.ndim for axis in over] if over is not None and len(over) else [*range(x.ndim)]
    rows: Array = np.moveaxis(x, axes, range(-len(axes), 0)).reshape(step.outputs[0].size, -1)
    rows = np.square(rows) if kind == "ReduceSumSquare" else rows
    return np.abs(rows) if kind == "ReduceL1" else rows
