"""What explains a difference of file and model in float64 that its rounding doesn't at first sight."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compare import distance, largest
from .exact import ExactFile
from .graphs import standard
from .rounding import MARGIN, Signs, constant_spread, nudged, rounded_runs, spread_of
from .step import Step
from .tolerance import arithmetic_of

__all__ = ["CHAOS", "Reading", "Readings"]

Array = NDArray[Any]
Outputs = Mapping[str, Any]

CHAOS = 1e-9  # of an output: more is no rounding of float64
_AT_STEPS = 1e-4  # of an output: more is a step that is taken or not, or nothing that float32 could compute
_WRITTEN = "float64's own rounding, with constants as they are written"
_EITHER = "float64's own rounding, with constants that are a weight here and a number in the code there"
_MAGNIFIED = "float64's rounding, which the file's own steps magnify"
_CONSTANTS = "constants in the file that are no weights of the model, rounded to its dtype"
_TINY = 1e-300
# Pairs of evaluations with rounding errors that are each other's opposite; and those that are made, too,
# where the first don't turn all that differs: an error may be cancelled by another on its way to a step.
_PAIRS, _MORE_PAIRS = range(2), range(2, 8)
_BY_CHANCE = 0.05  # of the elements that turn in a file
_MOST = 0.8  # of the evaluations
_NEARLY = 1e-5  # of an output: what is left of roundings of constants in the model
_FEW = 4  # numbers that an element is, of one step or two
_CHOICES = 10  # constants of two readings, of which each combination is looked at
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

    outputs: the file's, in float64; expected: the model's; nudged: the model's with rounding errors.
    read: constants that are read otherwise than they are written; rounded: others, whose rounding may explain
        something.
    """

    def __init__(
        self,
        file: ExactFile,
        feed: Outputs,
        outputs: Outputs,
        expected: Outputs,
        nudged: Callable[[range], Sequence[Outputs] | None],
        read: Sequence[str],
        rounded: Sequence[str],
    ) -> None:
        self._outputs, self._expected = outputs, expected
        self._nudged = functools.cache(nudged)

        def as_written() -> Outputs:
            return file.run(feed, replaced=file.as_written())

        self._rounding = rounding = functools.cache(lambda: _rounding(file, feed, _PAIRS, nudge=True))
        # What is given is what it is: a bound that it lies on is met or not, without any rounding.
        self._steps = functools.cache(lambda pairs: _rounding(file, feed, pairs, nudge=False))
        either = functools.cache(lambda: _either(file, feed, outputs, expected))
        self._readings = [Reading(_EITHER, either), Reading(_MAGNIFIED, moved=rounding, limit=CHAOS)]
        if read:
            self._readings.insert(0, Reading(_WRITTEN, functools.cache(as_written)))
        if rounded:
            moved = functools.cache(lambda: constant_spread(file, feed, rounded))
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

    def turned(self, name: str) -> Iterator[Array]:
        """Yield how far rounding errors of float64 may carry each element, however far; then by more.

        It is nothing where no errors carry an element beyond ``CHAOS``, those of what is given included: no
        step is near enough to turn. Beyond ``_AT_STEPS`` it is what they do to the model, too: a file that
        turns where the model doesn't is another.
        """
        own: Array = self._outputs[name]
        smooth = 0.0
        if own.dtype == np.float64:
            smooth = _AT_STEPS * largest(own)
            carried = _carried(own, [outputs[name] for outputs in self._rounding()])
            if bool((carried <= CHAOS * largest(own)).all()):
                yield np.zeros(own.shape)
                return
        expected = self._expected[name]
        files: list[Any] = []
        models: list[Any] | None = []
        for pairs in (_PAIRS, _MORE_PAIRS):
            files += [outputs[name] for outputs in self._steps(pairs)]
            ours = _carried(own, files)
            explained = ours
            if bool((ours > smooth).any()):
                made = self._nudged(pairs)
                models = None if made is None or models is None else [*models, *(each[name] for each in made)]
                if models is not None:  # of one that fails over a rounding error nothing is known
                    explained = _shared(ours, smooth, [own, *files], [expected, *models])
            yield MARGIN * explained

    def resized(self, name: str) -> bool:
        """Tell whether rounding errors of float64 give an output another shape, in the file and the model."""
        both = ((self._outputs, self._steps(_PAIRS)), (self._expected, self._nudged(_PAIRS)))
        return all(
            others is None or any(outputs[name].shape != usual[name].shape for outputs in others)
            for usual, others in both
        )

    def spread(self, reading: Reading, name: str, scale: float) -> Array | float:
        """Return how far each element of an output may move by a reading; ``scale`` is the largest."""
        if reading.moved is None:
            return 0.0
        others = [outputs[name] for outputs in reading.moved()]
        return np.minimum(spread_of(self._outputs[name], others), reading.limit * scale)


def _shared(ours: Array, smooth: float, files: Sequence[Any], models: Sequence[Any]) -> Array:
    """Return how far rounding errors carry each element of a file where they do it in the model, too.

    ours: how far in the file; up to ``smooth`` it is no step. files, models: an output in evaluations of
    either, first without errors.
    """
    theirs = _carried(models[0], models[1:])
    turned = ours > smooth
    still = turned & (theirs <= smooth)
    # A few elements a model may leave by chance as they are, or ties that any error leaves.
    few = still.sum() <= _BY_CHANCE * turned.sum()
    spared = still if few else still & _is_left(files[1:], models[0])
    shared: Array = np.where(turned & ~spared, np.minimum(ours, theirs), ours)
    shared[_is_apart(files, models)] = 0.0
    return shared


def _is_left(others: Sequence[Any], expected: Array) -> Array:
    """Return the elements at which a file meets a point that nearly any error leaves for what is expected.

    Half of all errors is as much as a step does that a file takes at a tie and its model doesn't.
    """
    if any(each.shape != expected.shape for each in others):
        return np.zeros(expected.shape, bool)
    left: Array = sum(_apart_from(each, expected) == 0 for each in others) > _MOST * len(others)
    return left


def _is_apart(files: Sequence[Any], models: Sequence[Any]) -> Array:
    """Return the fractions that few steps turn, in a file and its model, and to no number that both have.

    Where they are one but for rounding, both turn between the same. Of many steps a few evaluations show too
    little for that; and what is a whole number of steps away, as between codes, may be one more of them.
    """
    own, expected = files[0], models[0]
    if own.dtype.kind != "f" or any(each.shape != own.shape for each in (*files, *models)):
        return np.zeros(own.shape, bool)
    near = _NEARLY * largest(own)
    few = (_count(files, near) <= _FEW) & (_count(models, near) <= _FEW)
    apart = [distance(each, own) for each in files]
    furthest = np.maximum.reduce(apart)
    other = np.select([each == furthest for each in apart], [*files], own)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.nan_to_num((expected - own) / (other - own))
        few &= (furthest > near) & (np.abs(steps - np.round(steps)) * np.abs(other - own) > near)
    for one, another in itertools.product(files, models) if few.any() else ():
        few &= distance(one, another) > near
    return few


def _count(values: Sequence[Array], near: float) -> Array:
    """Return how many numbers each element is in some evaluations, as far as they are apart."""
    count = np.zeros(values[0].shape, np.int64)
    for place, each in enumerate(values):
        count += np.logical_and.reduce([distance(each, other) > near for other in values[:place]], axis=0)
    return count


def _apart_from(one: Array, other: Array) -> Array:
    return distance(one, other) if one.dtype.kind == "f" else (one != other).astype(np.float64)


def _carried(usual: Array, others: Sequence[Any]) -> Array:
    """Return how far each element of an output is from what it usually is, in any of some evaluations."""
    carried = np.zeros(usual.shape)
    for other in others:
        if other.shape != usual.shape:
            return np.full(usual.shape, np.inf)
        carried = np.maximum(carried, _apart_from(other, usual))
    return carried


def _either(file: ExactFile, feed: Outputs, outputs: Outputs, expected: Outputs) -> Outputs:
    """Return the outputs with constants of two readings read as comes nearest to what is expected.

    What each of them changes is so little that the changes add up.
    """
    others = file.alternatives()
    if not 0 < len(others) <= _CHOICES:
        return outputs
    effects = [_apart(file.run(feed, replaced={name: each}), outputs) for name, each in others.items()]
    wanted = _apart(expected, outputs)
    choices = np.array(list(itertools.product((0.0, 1.0), repeat=len(others))))
    products = np.array([[a @ b for b in effects] for a in effects])
    misses = ((choices @ products) * choices).sum(1) - 2 * choices @ np.array([e @ wanted for e in effects])
    chosen = choices[int(np.argmin(misses))]
    return file.run(
        feed, replaced={name: others[name] for name, each in zip(others, chosen, strict=True) if each}
    )


def _apart(others: Outputs, outputs: Outputs) -> Array:
    """Return by how much fractions differ, as shares of the largest of their output."""
    parts = [np.zeros(0)]
    for name, own in outputs.items():
        other = others.get(name)
        if isinstance(own, np.ndarray) and own.dtype == np.float64:
            same = isinstance(other, np.ndarray) and other.shape == own.shape and other.dtype == own.dtype
            with np.errstate(invalid="ignore"):
                apart = (other if same else own) - own
            parts.append(np.where(np.isfinite(apart), apart, 0.0).reshape(-1) / (largest(own) or 1.0))
    return np.concatenate(parts)


def _rounding(file: ExactFile, feed: Outputs, pairs: range, *, nudge: bool) -> Sequence[Outputs]:
    generator = np.random.default_rng(pairs.start)
    before: dict[str, Array] = {}

    def told_apart(step: Step) -> Sequence[Any]:
        if standard(step.node) not in _PLACES or step.inputs[0].dtype != np.float64:
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

    # An algorithm is as good as another that is right for inputs this near. What turns at a step one way
    # turns not the other: so each errors' opposites are looked at, too.
    signs = [Signs(pair, direction) for pair, direction in itertools.product(pairs, (1.0, -1.0))]
    feeds = [{name: nudged(array, each) for name, array in feed.items()} if nudge else feed for each in signs]
    return rounded_runs(file, feeds, {"": arithmetic_of(np.float64)}, signs, told_apart)
