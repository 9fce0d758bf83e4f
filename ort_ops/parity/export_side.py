"""Is the file right: the file in float64 beside the model in float64."""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compare import distance, integer_distance, largest, typical_size
from .evaluated import Evaluated
from .nudged import nudged_runs
from .planting import plant_in
from .profile import Profile, profile
from .readings import CHAOS, Readings
from .report import Row
from .sample import Sample
from .subject import Subject
from .tolerance import arithmetic_of
from .verdict import Verdict

__all__ = ["ExportSide"]

Array = NDArray[Any]
_DOUBLE = 2.0**-53
# PyTorch's own error in its own arithmetic, scaled down to float64's, times this is what float64's rounding
# may do on both sides together.
_NOISE = 64.0
_BEYOND = "beyond what rounding explains, float64's and that of constants in the file"
_SHAPE = "the file gives the shape"
_SINGLE = 1e-5  # of an output: what a node in float32 may do to it


class ExportSide:
    """Judges the outputs of a file.

    plant: whether faults are planted, in the first sample that has something of an output, to see how small
        they may be.
    """

    def __init__(self, subject: Subject, evaluated: Evaluated, *, plant: bool = True) -> None:
        self._notes, self._narrowed = evaluated.notes, evaluated.narrowed
        self._file, self._computed = subject.exact_file, evaluated.computed
        self._exact_model = subject.exact_model
        self._changed = [str(each) for each in evaluated.changed]
        named = (each for each in evaluated.changed if each.stands_for(subject.weights))
        self._unseen = next((f"{each}, and no output shows it" for each in named), "")
        self._to_plant = set(self._file.outputs) if plant else set()

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
        expected = dict(zip(names, sample.model, strict=True))
        read, unread = self._file.constants()
        rounded = () if self._changed else [name for name in unread if name not in self._computed]
        nudged = functools.partial(self._nudged, sample)
        readings = Readings(self._file, sample.feed, sample.file, expected, nudged, read, rounded)
        for place, name in enumerate(names):
            mismatch = self._mismatch(name, place, sample)
            if mismatch:
                wrong = Verdict.EXPORT_WRONG
                if mismatch.startswith(_SHAPE) and readings.resized(name):
                    wrong, mismatch = Verdict.CANNOT_SAY, f"{mismatch}; it turns on a rounding error"
                rows.append(self._row(name, place, sample, number, wrong, mismatch))
                continue
            if name in sample.chance:
                wrong = Verdict.CANNOT_SAY if sample.draws else Verdict.EXPORT_WRONG
                also = ", and the model's does, too" if sample.draws else "; the model's doesn't"
                reason = f"the output depends on chance in node {sample.chance[name]}{also}"
                rows.append(self._row(name, place, sample, number, wrong, reason))
                continue
            row = self._compare_all(name, place, sample, number, readings)
            if name in self._to_plant and row.elements:
                row = self._with_fault(row, place, sample, readings)
                self._to_plant.discard(name)
            if name in self._narrowed and row.verdict is not Verdict.EXPORT_WRONG:
                row = replace(row, verdict=Verdict.EXPORT_WRONG, reason=self._narrowed[name].reason)
            if self._unseen and row.verdict is Verdict.EQUAL:
                row = replace(row, verdict=Verdict.CANNOT_SAY, reason=self._unseen)
            rows.append(row)
        return rows

    def _nudged(self, sample: Sample, pairs: range) -> list[dict[str, Array]] | None:
        """Return the model's outputs with rounding errors, of a copy that is held no longer.

        None where it fails then, as one that looks at its numbers may.
        """
        try:
            runs = nudged_runs(self._exact_model(), sample.given.arguments, pairs)
        except Exception:
            return None
        if any(len(outputs) != len(self._file.outputs) for outputs in runs):
            return None
        return [dict(zip(self._file.outputs, outputs, strict=True)) for outputs in runs]

    def _mismatch(self, name: str, place: int, sample: Sample) -> str:
        """Say in what an output is of another kind than the model's, before any value is looked at."""
        got, expected, own = sample.file[name], sample.model[place], sample.torch[place]
        if not isinstance(got, np.ndarray):
            return f"the file gives a {type(got).__name__}, the model a tensor"
        declared = self._file.types.get(name)
        if declared is not None and declared.numpy() != own.dtype:
            return f"the file gives {declared.numpy().name}, the model {own.dtype.name}"
        if got.shape != expected.shape:
            return f"{_SHAPE} {got.shape}, the model {expected.shape}"
        if got.dtype != expected.dtype:
            return f"the file gives {got.dtype.name} in float64, the model {expected.dtype.name}"
        return ""

    def _compare_all(self, name: str, place: int, sample: Sample, number: int, readings: Readings) -> Row:
        """Compare, and look for what explains a difference, from what hides least to what hides most."""
        row = self._compare(name, place, sample, number)
        if row.dtype != "float64":
            expected, own, got = sample.model[place], sample.torch[place], sample.file[name]
            return self._undecided(_by_own(row, expected, own, got), expected, got, readings)
        scale = largest(sample.model[place])
        for reading in readings:
            if row.verdict is not Verdict.EXPORT_WRONG:
                return row
            got = readings.read_otherwise(reading, name, sample.file[name])
            other = replace(sample, file={**sample.file, name: got})
            row = self._compare(
                name, place, other, number, readings.spread(reading, name, scale), reading.reason
            )
        if row.verdict is Verdict.EXPORT_WRONG:
            first = self._compare(name, place, sample, number)
            row = replace(first, tolerance=row.tolerance, reason=row.reason)
            notes = [f"node {note.node}" for note in self._file.notes_before(name)] + list(self._notes)
            if notes and row.max_abs <= _SINGLE * largest(sample.model[place]):
                reason = f"{notes[0]} was not evaluated in float64, which explains as much"
                return replace(row, verdict=Verdict.CANNOT_SAY, reason=reason)
            noise = _noise(sample.torch[place], sample.model[place])
            return self._undecided(row, sample.model[place], sample.file[name], readings, noise)
        return row

    def _undecided(
        self, row: Row, expected: Array, got: Array, readings: Readings, noise: Array | float = 0.0
    ) -> Row:
        """Say of elements that differ, as those of steps do, whether float64's own rounding decides them."""
        if row.verdict is not Verdict.EXPORT_WRONG or got.shape != expected.shape:
            return row
        apart = distance(got, expected) if got.dtype.kind == "f" else (got != expected).astype(np.float64)
        differing = apart > noise
        for turned in readings.turned(row.output):
            explained = apart <= noise + turned if got.dtype.kind == "f" else turned > 0
            if bool(explained[differing].all()):
                reason = f"{int(differing.sum())} elements turn on a rounding error of float64"
                return replace(row, verdict=Verdict.CANNOT_SAY, reason=reason)
        return row

    def _compare(
        self,
        name: str,
        place: int,
        sample: Sample,
        number: int,
        spread: Array | float = 0.0,
        reason: str = "float64's own rounding",
    ) -> Row:
        got, expected, own = sample.file[name], sample.model[place], sample.torch[place]
        if got.dtype != np.float64:
            same = got == expected
            verdict = Verdict.EQUAL if bool(np.all(same)) else Verdict.EXPORT_WRONG
            reason = (
                "every element is the same" if verdict is Verdict.EQUAL else f"{int((~same).sum())} differ"
            )
            return self._row(name, place, sample, number, verdict, reason, same=same)
        allowed = _noise(own, expected) + spread
        apart = distance(got, expected)
        verdict = Verdict.EQUAL if bool((apart <= allowed).all()) else Verdict.EXPORT_WRONG
        if verdict is Verdict.EXPORT_WRONG:
            reason = "; ".join([_BEYOND, *self._changed])
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
        if same is not None and got is not None and expected is not None:
            integers = got.dtype.kind in "iub"
            apart = (integer_distance(got, expected) if integers else ~same).astype(np.float64)
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

    def _with_fault(self, row: Row, place: int, sample: Sample, readings: Readings) -> Row:
        """Plant a fault in the file that is only just found, and say how much it changes."""
        if row.verdict is not Verdict.EQUAL or row.dtype != "float64" or not row.elements:
            return row
        name = row.output

        def finds(output: Array) -> bool:
            planted = replace(sample, file={**sample.file, name: output})
            found = self._compare_all(name, place, planted, row.sample, readings)
            return found.verdict is Verdict.EXPORT_WRONG

        # The change must be found whatever the difference is that is there already.
        least = row.tolerance + row.max_abs
        file, output, computed = self._file, sample.file[name], self._computed
        fault = plant_in(file, sample.feed, name, output, least, finds, spared=computed)
        return replace(row, smallest_fault=fault)


def _by_own(row: Row, expected: Array, own: Array, got: Array) -> Row:
    """Return a row that is equal where elements that float64 decides otherwise are PyTorch's own."""
    if row.verdict is not Verdict.EXPORT_WRONG or not got.shape == expected.shape == own.shape:
        return row
    if not bool((own == got)[got != expected].all()):
        return row
    reason = "elements that float64 decides otherwise are PyTorch's own"
    return replace(row, verdict=Verdict.EQUAL, reason=reason)


def _profile(apart: Array | None, expected: Array | None) -> Profile | None:
    return None if apart is None or expected is None else profile(apart, expected)


def _noise(own: Array, exact: Array) -> Array:
    """Return what float64's rounding may do to each element, from what the model's own arithmetic does."""
    if not own.dtype.name.startswith(("float", "bfloat")):
        return np.zeros(exact.shape)
    arithmetic = arithmetic_of(own.dtype)
    typical = typical_size(exact)
    same = own.shape == exact.shape  # a size that depends on values may be another
    error = distance(own.astype(np.float64), exact) if same else np.zeros(exact.shape)
    error = np.where(np.isfinite(error), error, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = float(np.nan_to_num(error / typical, posinf=0.0).max(initial=0.0))
    # A result in float64 of what was computed in float32 is as far off as that is.
    far = arithmetic.name == "float64" and bool((error > CHAOS * largest(exact)).any())
    unit = arithmetic_of(np.float32).storage if far else arithmetic.storage
    # Absolutely or relatively, for what hides numbers beside a mask's -1e30 is either.
    usual = np.minimum(np.maximum(error.max(initial=0.0), unit * typical), typical * max(relative, unit))
    nothing = typical == 0  # the model's own may have cancelled to something else
    usual = np.where(nothing, np.max(error, where=nothing, initial=0.0), usual)
    noise: Array = _NOISE * _DOUBLE / unit * usual
    return noise
