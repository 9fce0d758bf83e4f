"""Operators that compute a code or a place and round it: a rounding error before that turns them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .step import Step
from .tolerance import Arithmetic

__all__ = ["turned"]

Array = NDArray[Any]
Drawn = Callable[[tuple[int, ...]], Array]

_ROUNDINGS = 4.0  # of what is rounded, at most
_BITS = 16  # of a number by chance
_SIZED = frozenset({"Resize", "Upsample"})


def turned(step: Step, arithmetic: Arithmetic, signs: Drawn) -> Sequence[Any]:
    """Return a node's outputs with what it rounds a few roundings off; those of most nodes as they are.

    signs: returns 1 or -1 for each element of a shape: which way it is off.
    """
    if step.node.domain not in ("", "ai.onnx", "com.microsoft"):
        return step.outputs
    kind, relative = step.node.op_type, _ROUNDINGS * arithmetic.storage
    if kind == "QuantizeLinear" or kind.startswith("QLinear"):
        # One of both for each element, not each moved: what moved it before may be as much the other way.
        larger, smaller = (step.again(_scaled(step.inputs, 1 + way)) for way in (relative, -relative))
        return [
            np.where(signs(one.shape) > 0, one, other) for one, other in zip(larger, smaller, strict=True)
        ]
    if kind == "TopK" and not step.attribute("sorted", 1):
        return _in_any_order(step, signs)
    if kind == "DynamicQuantizeLinear":
        return step.again([_moved(step.inputs[0], relative, signs)])
    if kind == "GridSample" and _mode(step) == "nearest":
        x, grid, *others = step.inputs
        return step.again([x, _moved(grid, relative, signs), *others])
    if kind in _SIZED and _mode(step) == "nearest" and len(step.inputs) > 1:
        return [_resized(step, relative, signs)]
    return step.outputs


def _moved(array: Array, relative: float, signs: Drawn) -> Array:
    moved: Array = array * (1 + relative * signs(array.shape))
    return moved


def _scaled(inputs: Sequence[Any], factor: float) -> list[Any]:
    """Return what codes are made of times a factor: fractions, but for the last, the scale of the codes."""
    places = [i for i, each in enumerate(inputs) if getattr(each, "dtype", None) == np.float64]
    moved = set(places[:-1] or places)
    return [each * factor if i in moved else each for i, each in enumerate(inputs)]


def _in_any_order(step: Step, signs: Drawn) -> Sequence[Any]:
    """Return the largest elements, and their places, in an order by chance."""
    values, axis = step.outputs[0], step.attribute("axis", -1)
    order = np.argsort(sum(signs(values.shape) / 2**place for place in range(_BITS)), axis)
    return [np.take_along_axis(each, order, axis) for each in step.outputs]


def _mode(step: Step) -> str:
    mode: str = step.attribute("mode", "nearest" if step.node.op_type in _SIZED else "linear")
    return mode


def _resized(step: Step, relative: float, signs: Drawn) -> Array:
    """Return the result of other scales, of the same shape; whole numbers and powers of 2 divide exactly."""
    (x, *given), own = step.inputs, step.outputs[0]
    axes = step.attribute("axes", range(x.ndim))
    place = 1 if len(given) > 1 else 0  # behind the region that is resized, since opset 11
    scales = given[place]
    if scales is None or not scales.size:
        scales = np.array([own.shape[axis] / max(x.shape[axis], 1) for axis in axes])
    exact = (scales == np.round(scales)) | (np.frexp(scales)[0] == 0.5)
    scales = np.where(exact, scales, _moved(scales, relative, signs))
    result: Array = step.again([x, *given[:place], scales])[0]
    both = tuple(slice(min(sizes)) for sizes in zip(result.shape, own.shape, strict=True))
    other: Array = own.copy()
    other[both] = result[both]
    return other
