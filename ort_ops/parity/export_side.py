"""Is the file right: the file in float64 beside the model in float64."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compare import distance, largest
from .evaluator import is_narrow, widened
from .exact import ExactFile, Step
from .profile import Profile, profile
from .report import Row
from .rounding import constant_spread, rounding_spread, spread_of
from .sample import Sample
from .tolerance import arithmetic_of
from .verdict import Verdict

__all__ = ["ExportSide"]

Array = NDArray[Any]
Outputs = Mapping[str, Any]

_DOUBLE = 2.0**-53
# PyTorch's own error in its own arithmetic, scaled down to float64's, times this is what float64's rounding
# may do on both sides together.
_NOISE = 64.0
_CHAOS = 1e-9  # of an output: more is no rounding of float64
_SINGLE = 1e-5  # of an output: what a node in float32 may do to it
_STEP = 1e-3  # by which a weight is changed to plant a fault


class ExportSide:
    """Judges the outputs of a file.

    ``changed`` says which weights in it are not the model's, ``notes`` which operations of the model are not
    in float64; ``plant``, whether faults are planted to see how small they may be.
    """

    def __init__(
        self,
        file: ExactFile,
        changed: Sequence[object],
        notes: Mapping[str, str] | None = None,
        *,
        plant: bool = True,
    ) -> None:
        self._notes = notes or {}
        self._file = file
        self._changed = [str(each) for each in changed]
        self._plants = plant

    def judge(self, sample: Sample, number: int) -> list[Row]:
        """Return a row for each output."""
        names = self._file.outputs
        if len(names) != len(sample.model):
            reason = f"the file has {len(names)} outputs and the model {len(sample.model)}"
            return [
                self._row(name, None, sample, number, Verdict.EXPORT_WRONG, reason) for name in names
            ] or [self._row("", None, sample, number, Verdict.EXPORT_WRONG, reason)]
        rows = []
        # With a weight that is nearly the model's, it isn't its constants that make a difference.
        readings = _Readings(self._file, sample, all_constants=not self._changed)
        for place, name in enumerate(names):
            mismatch = self._mismatch(name, place, sample)
            if mismatch:
                rows.append(self._row(name, place, sample, number, Verdict.EXPORT_WRONG, mismatch))
                continue
            if name in sample.chance:
                wrong = Verdict.CANNOT_SAY if sample.draws else Verdict.EXPORT_WRONG
                also = ", and the model's does, too" if sample.draws else "; the model's doesn't"
                reason = f"the output depends on chance in node {sample.chance[name]}{also}"
                rows.append(self._row(name, place, sample, number, wrong, reason))
                continue
            rows.append(self._compare_all(name, place, sample, number, readings))
        return [self._with_fault(row, sample) for row in rows] if self._plants else rows

    def _mismatch(self, name: str, place: int, sample: Sample) -> str:
        """Say in what an output is of another kind than the model's, before any value is looked at."""
        got, expected, own = sample.file[name], sample.model[place], sample.torch[place]
        if not isinstance(got, np.ndarray):
            return f"the file gives a {type(got).__name__}, the model a tensor"
        declared = self._file.types.get(name)
        if declared is not None and declared.numpy() != own.dtype:
            return f"the file gives {declared.numpy().name}, the model {own.dtype.name}"
        if got.shape != expected.shape:
            return f"the file gives the shape {got.shape}, the model {expected.shape}"
        if got.dtype != expected.dtype:
            return f"the file gives {got.dtype.name} in float64, the model {expected.dtype.name}"
        return ""

    def _compare_all(self, name: str, place: int, sample: Sample, number: int, readings: "_Readings") -> Row:
        """Compare, and look for what explains a difference, from what hides least to what hides most."""
        row = self._compare(name, place, sample, number)
        if row.dtype != "float64":
            return self._undecided(row, sample.model[place], sample.file[name], readings)
        for reason, file, spread in readings.all():
            if row.verdict is not Verdict.EXPORT_WRONG:
                return row
            other = replace(sample, file=file()) if file is not None else sample
            moved = [outputs[name] for outputs in spread()] if spread is not None else ()
            # Rounding of float64 that shows in float32 is chaos, which would excuse anything.
            scale = largest(sample.model[place]) if "magnify" in reason else np.inf
            row = self._compare(name, place, other, number, moved, reason, _CHAOS * scale)
        if row.verdict is Verdict.EXPORT_WRONG:
            first = self._compare(name, place, sample, number)
            row = replace(first, tolerance=row.tolerance, reason=row.reason)
            notes = [f"node {note.node}" for note in self._file.notes.values()] + list(self._notes)
            if notes and row.max_abs <= _SINGLE * largest(sample.model[place]):
                reason = f"{notes[0]} was not evaluated in float64, which explains as much"
                return replace(row, verdict=Verdict.CANNOT_SAY, reason=reason)
        return row

    def _undecided(self, row: Row, expected: Array, got: Array, readings: "_Readings") -> Row:
        """Say of integers and booleans that differ whether it is float64's own rounding that decides them."""
        if row.verdict is not Verdict.EXPORT_WRONG or got.shape != expected.shape:
            return row
        turned = np.zeros(got.shape, bool)
        for other in readings.rounding():
            turned |= other[row.output] != got if other[row.output].shape == got.shape else True
        if not bool(np.all(turned[got != expected])):
            return row
        reason = f"{int((got != expected).sum())} elements turn on a rounding error of float64"
        return replace(row, verdict=Verdict.CANNOT_SAY, reason=reason)

    def _compare(
        self,
        name: str,
        place: int,
        sample: Sample,
        number: int,
        spread: Sequence[Array] = (),
        reason: str = "float64's own rounding",
        limit: float = np.inf,
    ) -> Row:
        got, expected, own = sample.file[name], sample.model[place], sample.torch[place]
        if got.dtype != np.float64:
            same = got == expected
            verdict = Verdict.EQUAL if bool(np.all(same)) else Verdict.EXPORT_WRONG
            reason = (
                "every element is the same" if verdict is Verdict.EQUAL else f"{int((~same).sum())} differ"
            )
            return self._row(name, place, sample, number, verdict, reason, same=same)
        allowed = _noise(own, expected) + np.minimum(spread_of(got, spread), limit)
        apart = distance(got, expected)
        verdict = Verdict.EQUAL if bool((apart <= allowed).all()) else Verdict.EXPORT_WRONG
        if verdict is Verdict.EXPORT_WRONG:
            reason = "; ".join([f"beyond {reason}", *self._changed])
        return self._row(name, place, sample, number, verdict, reason, apart=apart, allowed=allowed)

    def _row(
        self,
        name: str,
        place: int | None,
        sample: Sample,
        number: int,
        verdict: Verdict,
        reason: str,
        *,
        apart: Array | None = None,
        same: Array | None = None,
        allowed: Array | None = None,
    ) -> Row:
        got = sample.file.get(name)
        expected = sample.model[place] if place is not None else None
        if apart is None and same is not None:
            apart = (~same).astype(np.float64)
        index = None
        if apart is not None and apart.size:
            with np.errstate(divide="ignore", invalid="ignore"):
                severity = apart if allowed is None else np.where(apart == 0, 0.0, apart / allowed)
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(severity)), apart.shape))
        size = got.size if apart is not None and isinstance(got, np.ndarray) else 0
        return Row(
            question="export",
            output=name,
            provider="",
            ran="float64",
            dtype=got.dtype.name if isinstance(got, np.ndarray) else "",
            shape=got.shape if isinstance(got, np.ndarray) else (),
            elements=size,
            verdict=verdict,
            reason=reason,
            max_abs=float(apart.max(initial=0.0)) if apart is not None else 0.0,
            index=index,
            got=got[index].item() if index is not None and isinstance(got, np.ndarray) else None,
            expected=expected[index].item() if index is not None and expected is not None else None,
            tolerance=float(allowed[index]) if allowed is not None and index is not None else 0.0,
            sample=number,
            profile=_profile(apart, expected) if same is None else None,
        )

    def _with_fault(self, row: Row, sample: Sample) -> Row:
        """Plant a fault in a weight of the file that is only just found, and say how much it changes."""
        if row.verdict is not Verdict.EQUAL or row.dtype != "float64" or not row.elements:
            return row
        return replace(row, smallest_fault=self._plant(row, sample))

    def _plant(self, row: Row, sample: Sample) -> float | None:
        base = sample.file[row.output]
        for plant in [*map(self._in_weight, self._plantable()), self._in_result(row.output)]:

            def change(step: float, plant: Callable[[float], dict[str, Any]] = plant) -> float:
                outputs = self._file.run(sample.feed, **plant(step))
                return float(distance(outputs[row.output], base).max(initial=0.0))

            first = change(_STEP)
            if not 0 < first < np.inf:
                continue
            # The change must be found whatever the difference is that is there already.
            step = _STEP * (row.tolerance + row.max_abs) / first
            for _ in range(12):
                step = max(step, 2.0**-51)
                found = change(step)
                if found > row.tolerance + row.max_abs:
                    return found
                step *= 1.25
        return None

    def _in_weight(self, name: str) -> Callable[[float], dict[str, Any]]:
        """Return what changes the largest element of a weight by a share of it."""
        weight = self._file.weight(name)

        def plant(step: float) -> dict[str, Any]:
            return {"replaced": {name: _planted(weight, step)}}

        return plant

    def _in_result(self, name: str) -> Callable[[float], dict[str, Any]]:
        """Return what changes the largest element of an output by a share of it."""

        def plant(step: float) -> dict[str, Any]:
            def after(done: Step) -> Sequence[Any]:
                pairs = zip(done.node.output, done.outputs, strict=False)
                return [_planted(value, step) if each == name else value for each, value in pairs]

            return {"after": after}

        return plant

    def _plantable(self) -> list[str]:
        """Return a few weights to plant a fault in: those that are read last, which show at once."""
        initializers = self._file.model.graph.initializers
        read = [n for node in reversed(self._file.nodes) for n in reversed(node.input) if n in initializers]
        written = ((name, self._file.written(name)) for name in dict.fromkeys(read))
        return list(itertools.islice((name for name, each in written if is_narrow(each) and each.any()), 4))


class _Readings:
    """What explains a difference that float64's rounding doesn't at first sight, once it is asked for."""

    def __init__(self, file: ExactFile, sample: Sample, *, all_constants: bool) -> None:
        self._file, self._feed, self._all = file, sample.feed, all_constants
        self._rounding: Sequence[Outputs] | None = None

    def all(
        self,
    ) -> Iterator[tuple[str, Callable[[], Outputs] | None, Callable[[], Sequence[Outputs]] | None]]:
        """Give each explanation: why, what the file gives instead, and how its outputs may move."""
        self._read, self._unread = self._file.constants()
        if self._read:
            yield "float64's own rounding, with constants as they are written", self._as_written, None
        yield "float64's rounding, which the file's own steps magnify", None, self.rounding
        if self._unread:
            reason = "constants in the file that are no weights of the model, rounded to its dtype"
            yield reason, None, lambda: self._moved(self._unread)
        if self._read and self._all:
            reason = "constants in the file that are no weights of the model, rounded to its dtype"
            yield reason, None, lambda: self._moved([*self._read, *self._unread])

    def rounding(self) -> Sequence[Outputs]:
        """Return the file's outputs with float64's rounding errors, several times over."""
        if self._rounding is None:
            ways = {"": arithmetic_of(np.float64)}
            self._rounding = rounding_spread(self._file, self._feed, ways)
        return self._rounding

    def _as_written(self) -> Outputs:
        written = {name: widened(self._file.written(name)) for name in self._read}
        return self._file.run(self._feed, replaced=written)

    def _moved(self, names: Sequence[str]) -> Sequence[Outputs]:
        return constant_spread(self._file, self._feed, names)


def _planted(array: Array, step: float) -> Array:
    planted = array.copy()
    if planted.size:
        size = np.where(np.isfinite(array), np.abs(array), -1.0)
        planted[np.unravel_index(int(np.argmax(size)), array.shape)] *= 1 + step
    return planted


def _profile(apart: Array | None, expected: Array | None) -> Profile | None:
    return None if apart is None or expected is None else profile(apart, expected)


def _noise(own: Array, exact: Array) -> Array:
    """Return what float64's rounding may do to each element, from what the model's own arithmetic does."""
    if own.dtype.kind not in "fV" and own.dtype.name != "bfloat16":
        return np.zeros(exact.shape)
    unit = arithmetic_of(own.dtype).storage
    size = np.where(np.isfinite(exact), np.abs(exact), 0.0)
    error = distance(own.astype(np.float64), exact)
    usual = float(error[np.isfinite(error)].max(initial=0.0))
    # Where most numbers are of one size their differences are as exact as they are.
    typical = np.minimum(np.maximum(size, np.median(size) if size.size else 0.0), size.max(initial=0.0))
    noise: Array = _NOISE * _DOUBLE / unit * np.maximum(usual, unit * typical)
    return noise
