"""How far rounding errors may carry a whole file's outputs: by evaluating it with them.

Each node's result is moved, at random up or down, by all that its arithmetic may be off (``bounds``), and the
rest of the file evaluated in float64 on that. What this does to the outputs, a few times over, is what the
arithmetic explains; no bound that has to hold for the worst case is carried from node to node.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .bounds import local_errors
from .compare import typical_size
from .evaluator import is_narrow, widened
from .exact import ExactFile
from .step import Step
from .tolerance import Arithmetic
from .turning import turned

__all__ = ["MARGIN", "Signs", "constant_spread", "nudged", "rounded_runs", "rounding_spread", "spread_of"]

Array = NDArray[Any]
_SAMPLES = 4
_FEW = 4.0
_LAST_PLACES = 16.0
_BEYOND = 1e-2  # of the largest number: what is further beyond it is so with other roundings, too
_WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
MARGIN = 4.0
"""Errors of such sizes with other signs stay below it times what the samples show."""


def rounding_spread(
    file: ExactFile,
    feed: Mapping[str, Array],
    arithmetic: Mapping[str, Arithmetic],
    then: Callable[[Step], Sequence[Any]] | None = None,
    replaced: Mapping[str, Array] | None = None,
    directions: Sequence[float] = (1.0,),
    changed: Callable[[Step], Step] | None = None,
) -> list[dict[str, Array]]:
    """Return the file's outputs with rounding errors, several times.

    arithmetic: for each output of a node by name, and under ``""`` for all others.
    then: is given each node with its moved results, in one sample after the other, and may return others.
    replaced: constants to be used instead of the file's own.
    directions: with -1.0, too, for what turns at a step: the opposite of errors that don't turn it does.
    changed: computes a node otherwise than the file says.
    """
    signs = [Signs(sample, direction) for direction in directions for sample in range(_SAMPLES)]
    return rounded_runs(file, [feed] * len(signs), arithmetic, signs, then, replaced, changed)


class Signs:
    """Up or down, at random; with ``direction`` -1 the other way round."""

    def __init__(self, seed: int, direction: float = 1.0) -> None:
        self._generator, self._direction = np.random.default_rng(seed), direction

    def of(self, shape: tuple[int, ...]) -> Array:
        """Return 1 or -1 for each element."""
        return self._direction * self._generator.choice([-1.0, 1.0], size=shape)


def rounded_runs(
    file: ExactFile,
    feeds: Sequence[Mapping[str, Array]],
    arithmetic: Mapping[str, Arithmetic],
    signs: Sequence[Signs],
    then: Callable[[Step], Sequence[Any]] | None = None,
    replaced: Mapping[str, Array] | None = None,
    changed: Callable[[Step], Step] | None = None,
) -> list[dict[str, Array]]:
    """Return the file's outputs with rounding errors, for each of the feeds with the signs given for it."""

    def moved(signs: Signs, step: Step) -> Sequence[Any]:
        outputs: list[Any] = []
        ways = arithmetic.get(step.node.output[0], arithmetic[""])
        if changed is not None:
            step = changed(step)
        step = replace(step, outputs=turned(step, ways, signs.of))
        for output, error in zip(step.outputs, local_errors(step, ways), strict=True):
            if isinstance(output, list) and step.node.op_type in _WITH_BODIES:
                outputs.append([_moved_by(each, ways, signs) for each in output])
            elif error is None:
                outputs.append(output)
            else:
                outputs.append(_stored(output + error * signs.of(output.shape), ways))
        return outputs if then is None else then(replace(step, outputs=outputs))

    return file.run_beside(feeds, [functools.partial(moved, each) for each in signs], replaced=replaced)


def _stored(array: Array, ways: Arithmetic) -> Array:
    """Return results with those infinite that are beyond the arithmetic, by more than roundings alone are."""
    if ways.name == "float64":
        return array
    info: Any = ml_dtypes.finfo("float32" if ways.name == "TF32" else ways.name)  # type: ignore[no-untyped-call]
    limit = float(info.max)
    size = np.abs(array)
    if not bool((size > limit).any()):
        return array
    return np.where(size > (1 + _BEYOND) * limit, np.copysign(np.inf, array), np.clip(array, -limit, limit))


def _moved_by(element: Any, ways: Arithmetic, signs: Signs) -> Any:
    """Move an element of a sequence that a graph inside of a node computed."""
    if not isinstance(element, np.ndarray) or element.dtype != np.float64:
        return element
    return element + _LAST_PLACES * ways.storage * np.abs(element) * signs.of(element.shape)


def constant_spread(
    file: ExactFile, feed: Mapping[str, Array], names: Sequence[str], seed: int = 0
) -> list[dict[str, Array]]:
    """Return the file's outputs with constants moved by half of their last place, several times over."""
    generator = np.random.default_rng(seed)
    return [
        file.run(feed, replaced={name: _rounded_otherwise(file.written(name), generator) for name in names})
        for _ in range(_SAMPLES)
    ]


def nudged(array: Array, signs: Signs) -> Array:
    """Return an array of fractions in float64, each moved by a few last places; others as they are."""
    wide = widened(np.asarray(array))
    if wide.dtype != np.float64:
        return array
    with np.errstate(invalid="ignore"):
        moved = wide + np.spacing(wide) * _FEW * signs.of(wide.shape)
    return np.where(np.isfinite(wide), moved, wide)


def _rounded_otherwise(array: Array, generator: np.random.Generator) -> Array:
    wide = widened(array)
    if not is_narrow(array):
        return wide
    half = np.spacing(np.abs(array)).astype(np.float64) / 2
    if max(array.shape, default=1) == array.size:  # a vector may be a sum, of terms that are larger
        half = np.full_like(half, half.max(initial=0.0))
    moved: Array = wide + half * generator.choice([-1.0, 1.0], size=array.shape)
    return moved


def spread_of(exact: Array, others: Iterator[Array] | Sequence[Array]) -> Array:
    """Return how far each element of an output may be off, as the samples show it.

    An element that no sample moved by chance is given half of what most were moved by, of its row or of all.
    """
    moved = np.zeros_like(exact)
    with np.errstate(invalid="ignore"):
        for other in others:
            if other.shape != exact.shape:  # a size that depends on values: nothing to be compared
                continue
            apart = np.abs(other - exact)
            moved = np.maximum(moved, np.where(np.isfinite(apart), apart, 0.0))
    if moved.ndim and moved.size:
        size = typical_size(exact)
        usual = np.maximum(_usual(moved, size, -1), _usual(moved, size, None))
        moved = np.maximum(moved, 0.5 * usual)
    return MARGIN * moved


def _usual(moved: Array, size: Array, axis: int | None) -> Array:
    """Return what most elements were moved by, absolutely or as a share of their size, as is less.

    What few were moved by, that turn at a step or are far larger, is no measure.
    """
    shares = np.divide(moved, size, out=np.zeros_like(moved), where=size > 0)
    share, most = (np.median(each, axis=axis, keepdims=True) for each in (shares, moved))
    usual: Array = np.where(size > 0, np.minimum(most, share * size), most)
    return usual
