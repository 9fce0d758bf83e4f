"""The smallest fault that a comparison finds: by planting one."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compare import distance
from .evaluator import is_narrow
from .exact import ExactFile
from .step import Step

__all__ = ["plant_in"]

Array = NDArray[Any]
_Plant = Callable[[float], Mapping[str, Any]]

_STEP = 1e-3  # by which a number is changed at first, as a share of it
_WEIGHTS, _TRIALS = 4, 24


def plant_in(
    file: ExactFile,
    feed: Mapping[str, Array],
    name: str,
    base: Array,
    least: float,
    finds: Callable[[Array], bool],
    spared: Collection[str] = (),
) -> float | None:
    """Return by how much a fault changes an output that is only just found; None where none was.

    The fault is in the largest element of a weight, or of the output where no weight changes it.

    base: the output as it is. least: no smaller change is tried. finds: whether the output with a fault in it
    is called wrong. spared: weights in which none is planted.
    """
    weights = list(_weights(file, spared))
    start = file.pause(feed, (*weights, name))  # what comes before is the same with any of these faults
    for plant in (*(_in_weight(file, weight) for weight in weights), _in_result(name)):

        def planted(step: float, plant: _Plant = plant) -> tuple[Array, float]:
            output = file.run(feed, start=start, **plant(step))[name]
            if output.shape != base.shape:  # a size that depends on values
                return output, np.inf
            return output, float(distance(output, base).max(initial=0.0))

        first = planted(_STEP)[1]
        if not 0 < first < np.inf:
            continue
        step = _STEP * least / first
        for _ in range(_TRIALS):
            step = max(step, 2.0**-51)
            output, size = planted(step)
            if least < size < np.inf and finds(output):
                return size
            step *= 1.25 if size <= least else 2.0
    return None


def _weights(file: ExactFile, spared: Collection[str]) -> Iterator[str]:
    """Give a few weights to plant a fault in: those that are read last, which show at once."""
    initializers = file.model.graph.initializers
    read = [n for node in reversed(file.nodes) for n in reversed(node.input) if n in initializers]
    written = ((name, file.written(name)) for name in dict.fromkeys(read) if name not in spared)
    return itertools.islice((name for name, each in written if is_narrow(each) and each.any()), _WEIGHTS)


def _in_weight(file: ExactFile, name: str) -> _Plant:
    """Return what changes the largest element of a weight by a share of it."""
    weight = file.weight(name)
    return lambda step: {"replaced": {name: _changed(weight, step)}}


def _in_result(name: str) -> _Plant:
    """Return what changes the largest element of an output by a share of it."""

    def plant(step: float) -> Mapping[str, Any]:
        def after(done: Step) -> Sequence[Any]:
            pairs = zip(done.node.output, done.outputs, strict=False)
            return [_changed(value, step) if each == name else value for each, value in pairs]

        return {"after": after}

    return plant


def _changed(array: Array, step: float) -> Array:
    changed = array.copy()
    if changed.size:
        size = np.where(np.isfinite(array), np.abs(array), -1.0)
        changed[np.unravel_index(int(np.argmax(size)), array.shape)] *= 1 + step
    return changed
