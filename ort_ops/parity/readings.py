"""What explains a difference of file and model in float64 that its rounding doesn't at first sight."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .evaluator import widened
from .exact import ExactFile, Step
from .rounding import constant_spread, nudged, rounding_spread, spread_of
from .tolerance import arithmetic_of

__all__ = ["Reading", "Readings"]

Array = NDArray[Any]
Outputs = Mapping[str, Any]

_CHAOS = 1e-9  # of an output: more is no rounding of float64
_WRITTEN = "float64's own rounding, with constants as they are written"
_MAGNIFIED = "float64's rounding, which the file's own steps magnify"
_CONSTANTS = "constants in the file that are no weights of the model, rounded to its dtype"
_TINY = 1e-300
_PLACES = frozenset({"ArgMax", "ArgMin", "TopK"})  # say where an element is: among equal ones, anywhere


@dataclass(frozen=True)
class Reading:
    """One explanation: what the file's outputs are instead, and what they may move to.

    limit: how far they may, as a share of the largest element.
    """

    reason: str
    outputs: Callable[[], Outputs] | None = None
    moved: Callable[[], Sequence[Outputs]] | None = None
    limit: float = np.inf


class Readings:
    """Explanations, from what hides least to what hides most; each is computed when it is asked for.

    outputs: the file's, in float64.
    constants: whether the rounding of those may explain something that are no weights of the model.
    """

    def __init__(self, file: ExactFile, feed: Outputs, outputs: Outputs, *, constants: bool) -> None:
        self._outputs = outputs
        read, unread = file.constants()

        def as_written() -> Outputs:
            return file.run(feed, replaced={name: widened(file.written(name)) for name in read})

        self.rounding = functools.cache(lambda: _rounding(file, feed))
        """Return the file's outputs with float64's rounding errors, several times over."""
        self._readings = [Reading(_MAGNIFIED, moved=self.rounding, limit=_CHAOS)]
        if read:
            self._readings.insert(0, Reading(_WRITTEN, functools.cache(as_written)))
        if unread and constants:
            moved = functools.cache(lambda: constant_spread(file, feed, unread))
            self._readings.append(Reading(_CONSTANTS, moved=moved))

    def __iter__(self) -> Iterator[Reading]:
        return iter(self._readings)

    def read_otherwise(self, reading: Reading, name: str, got: Array) -> Array:
        """Return what an output is by a reading; ``got`` is the file's own, or with a fault in it."""
        if reading.outputs is None:
            return got
        own, other = self._outputs[name], reading.outputs()[name]
        if not own.shape == other.shape == got.shape:
            return got
        with np.errstate(invalid="ignore"):
            shifted: Array = np.where(got == own, other, other + (got - own))
        return shifted

    def spread(self, reading: Reading, name: str, scale: float) -> Array | float:
        """Return how far each element of an output may move by a reading; ``scale`` is the largest."""
        if reading.moved is None:
            return 0.0
        others = [outputs[name] for outputs in reading.moved()]
        return np.minimum(spread_of(self._outputs[name], others), reading.limit * scale)


def _rounding(file: ExactFile, feed: Outputs) -> Sequence[Outputs]:
    generator = np.random.default_rng(0)
    before: dict[str, Array] = {}

    def told_apart(step: Step) -> Sequence[Any]:
        if step.node.op_type not in _PLACES or step.inputs[0].dtype != np.float64:
            return step.outputs
        array, name = step.inputs[0], step.node.output[0]
        noise = generator.standard_normal(array.shape)
        if name in before and before[name].shape == array.shape:
            noise = -before.pop(name)  # which turns the order of any two that are equal
        else:
            before[name] = noise
        with np.errstate(invalid="ignore"):
            apart = array + noise * np.maximum(np.spacing(np.abs(array)), _TINY)
        return step.again([np.where(np.isfinite(array), apart, array), *step.inputs[1:]])

    # An algorithm is as good as another that is right for inputs this near.
    near = {name: nudged(array, generator) for name, array in feed.items()}
    return rounding_spread(file, near, {"": arithmetic_of(np.float64)}, then=told_apart, samples=2)
