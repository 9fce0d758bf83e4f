"""Judging one output of a run, with what is known of it: NumPy is all that it takes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .compare import Difference, compare, compare_exactly, distance, identical
from .own_error import largest_error, own_error, rounding_of
from .profile import Profile, profile
from .report import Row
from .verdict import GOOD, Verdict

__all__ = ["NARROWER", "READINGS", "Bounds", "Golden", "Otherwise", "judge_output"]

Array = NDArray[Any]
Found = tuple[Verdict, str, Difference | None]

_TIMES = 4.0  # PyTorch's own error
_FLOATS = ("float16", "bfloat16", "float32", "float64")
NARROWER = ("TF32", "float16", "bfloat16")
"""What a provider other than the CPU's may compute in without being asked, the nearest to float32 first."""
READINGS: dict[str, tuple[str, Verdict | None]] = {
    "written": ("constants as they are written", None),
    "requantized": (
        "ONNX Runtime quantises weights or biases that are none in the file "
        "(not with disabled_optimizers=['WeightBiasQuantization'])",
        Verdict.REDUCED_PRECISION,
    ),
}
"""Other readings of a file by which a runtime may compute: words for each, and the verdict on such a run."""


class Bounds(Protocol):
    """How far rounding errors may carry an output."""

    def bound(self, name: str, kind: str = "", *, opposite: bool = False) -> Array:
        """Return it element by element, in the file's own arithmetic or in a narrower one of this name.

        opposite: the opposites of the errors are looked at, too, by which something else turns at a step.
        """

    def undecided(self, name: str) -> Array:
        """Return which elements rounding errors decide; of fractions, which are numbers or none by these."""


@dataclass(frozen=True)
class Golden:
    """What an output should be: in float64, as PyTorch has it, and the dtype that the file says.

    model: what the model gives in float64, where that is known: PyTorch's own error is measured against it.
    """

    name: str
    exact: Any
    torch: Any
    dtype: Any
    model: Any = None


@dataclass(frozen=True)
class Otherwise:
    """What a runtime may compute for an output instead, and its bounds.

    reading: by what reading of the file. verdict: on a run that is as this has it, None for what is found.
    """

    golden: Golden
    bounds: Bounds
    reading: str
    verdict: Verdict | None = None


def judge_output(
    got: Any,
    golden: Golden,
    bounds: Bounds,
    *,
    rule: tuple[float, float] | None,
    on_cpu: bool,
    otherwise: Callable[[], Iterable[Otherwise]] = tuple,
) -> Row:
    """Return a row for one output of a run; who ran it is left open.

    otherwise: is asked where the file as it was read doesn't explain the output.
    """
    judge = _Judge(got, golden, bounds)
    if rule is not None:
        return judge.row(*judge.by_rule(*rule))
    row = judge.row(*judge.by_arithmetic(may_be_narrower=not on_cpu))
    for other in otherwise() if row.verdict is Verdict.RUNTIME_WRONG else ():
        judge = _Judge(got, other.golden, other.bounds)
        verdict, reason, difference = judge.by_arithmetic(may_be_narrower=not on_cpu)
        if verdict in GOOD:
            return judge.row(other.verdict or verdict, f"{reason}; {other.reading}", difference)
    return row


class _Judge:
    """One output of a run beside what it should be."""

    def __init__(self, got: Any, golden: Golden, bounds: Bounds) -> None:
        self.name, self.got, self._exact, self._own = golden.name, got, golden.exact, golden.torch
        self._bounds = bounds
        self.declared = golden.dtype
        self._reference = golden.exact if golden.model is None else golden.model
        self.error: float | None = None
        self.torch_error: float | None = None
        self.smallest_fault: float | None = None
        self.profile: Profile | None = None

    def row(self, verdict: Verdict, reason: str, difference: Difference | None) -> Row:
        """Return what was found as a row."""
        got = self.got
        is_array = isinstance(got, np.ndarray)
        error, torch_error = self.error, self.torch_error
        worst = difference if difference is not None else Difference(0, 0, 0.0, 0)
        return Row(
            question="runtime",
            output=self.name,
            provider="",
            ran="",
            dtype=got.dtype.name if is_array else type(got).__name__,
            shape=got.shape if is_array else (),
            elements=got.size if is_array and difference is not None else 0,
            verdict=verdict,
            reason=reason,
            max_abs=worst.max_abs,
            max_ulp=worst.max_ulp,
            error=error,
            torch_error=torch_error,
            ratio=error / torch_error if error is not None and torch_error else None,
            index=worst.index,
            got=worst.got,
            expected=worst.expected,
            tolerance=worst.allowed,
            smallest_fault=self.smallest_fault,
            profile=self.profile,
        )

    def by_rule(self, atol: float, rtol: float) -> Found:
        """Judge by |got - PyTorch's| <= atol + rtol·|PyTorch's|."""
        mismatch = self._mismatch(self._own, "PyTorch")
        if mismatch:
            return Verdict.RUNTIME_WRONG, mismatch, None
        if self.got.dtype.name not in _FLOATS:
            return self._discrete()
        allowed = atol + rtol * np.abs(np.nan_to_num(self._own.astype(np.float64), posinf=0, neginf=0))
        difference = compare(self.got, self._own, allowed)
        verdict = Verdict.EQUAL if difference.within else Verdict.RUNTIME_WRONG
        return verdict, f"the rule atol={atol:g}, rtol={rtol:g} against PyTorch", difference

    def by_arithmetic(self, *, may_be_narrower: bool) -> Found:
        """Judge by PyTorch's own error, then by the bound of the arithmetic."""
        mismatch = self._mismatch(self._exact, "the file")
        if mismatch:
            return self._of_another_shape(mismatch)
        if self.got.dtype.name not in _FLOATS:
            return self._discrete()
        expected = self._expected()
        self.error = largest_error(self.got, self._exact)
        with np.errstate(invalid="ignore"):
            self.profile = profile(self.got.astype(np.float64) - self._exact, self._exact)
        if self.got.dtype == np.float64:  # nothing here is more exact than what is judged
            found = self._by_bound(expected)
        else:
            found = self._by_own_error(expected, may_be_narrower=may_be_narrower)
        return self._excused(expected, found) if found[0] is Verdict.RUNTIME_WRONG else found

    def _of_another_shape(self, mismatch: str) -> Found:
        """Judge an output of another kind than the file's: a size may depend on values, and on rounding."""
        got, exact, own = self.got, self._exact, self._own
        if isinstance(got, np.ndarray) and isinstance(exact, np.ndarray) and got.shape != exact.shape:
            if own is not None and own.dtype == got.dtype and identical(own, got):
                difference = Difference(elements=got.size, exceeding=0, max_abs=0.0, max_ulp=0)
                return Verdict.EQUAL, "every element is PyTorch's own", difference
            undecided = self._bounds.undecided(self.name)
            if undecided.size and bool(undecided.all()):
                return Verdict.CANNOT_SAY, f"{mismatch}; it turns on a rounding error", None
        return Verdict.RUNTIME_WRONG, mismatch, None

    def _expected(self) -> Array:
        """Return what is expected, in the run's dtype: what PyTorch has beyond it may be so there."""
        with np.errstate(over="ignore"):
            expected: Array = self._exact.astype(self.got.dtype)
        if self._own is None or not self._own.shape == self._reference.shape == expected.shape:
            return expected
        finite = np.isfinite(self._exact) & np.isfinite(self._reference)
        beyond = (
            finite & ~np.isfinite(self._own.astype(np.float64)) & ~np.isfinite(self.got.astype(np.float64))
        )
        either: Array = np.where(beyond, self._own.astype(expected.dtype), expected)
        return either

    def _by_bound(self, expected: Array) -> Found:
        for opposite in (False, True):
            bound = self._bounds.bound(self.name, opposite=opposite)
            difference = compare(self.got, expected, bound)
            if difference.within:
                break
        self._plant(expected, bound)
        verdict = Verdict.EQUAL if difference.within else Verdict.RUNTIME_WRONG
        return verdict, "the bound of float64's arithmetic", difference

    def _by_own_error(self, expected: Array, *, may_be_narrower: bool) -> Found:
        allowed = self._allowed(expected)
        difference = compare(self.got, expected, allowed)
        if difference.within:
            self._plant(expected, allowed)
            return Verdict.EQUAL, f"{_TIMES:g} times PyTorch's own error", difference
        bound = np.maximum(allowed, self._bounds.bound(self.name))
        # Of few elements PyTorch's may all be nearly exact by chance: less than one rounding isn't asked for.
        rounding = np.maximum(allowed, np.minimum(bound, _TIMES * rounding_of(expected)))
        difference = compare(self.got, expected, rounding)
        if difference.within:
            self._plant(expected, rounding)
            return Verdict.EQUAL, f"{_TIMES:g} times the rounding of most elements", difference
        for opposite in (False, True):
            bound = np.maximum(bound, self._bounds.bound(self.name, opposite=opposite))
            difference = compare(self.got, expected, bound)
            if difference.within:
                self._plant(expected, bound)
                return (
                    Verdict.LESS_PRECISE,
                    "the bound of the arithmetic; PyTorch is more precise",
                    difference,
                )
        if may_be_narrower and self.got.dtype == np.float32:
            for kind in NARROWER:
                wide = np.maximum(bound, self._bounds.bound(self.name, kind))
                narrow = compare(self.got, expected, wide)
                if narrow.within:
                    self._plant(expected, wide)
                    return Verdict.REDUCED_PRECISION, f"as far off as {kind} explains", narrow
        return Verdict.RUNTIME_WRONG, "beyond the bound of the arithmetic", difference

    def _allowed(self, expected: Array) -> Array:
        """Return how far off each element may be by PyTorch's own error."""
        if self._own is None or self._own.shape != self._reference.shape:
            return np.zeros(expected.shape)
        self.torch_error = largest_error(self._own, self._reference)
        if self._own.shape != expected.shape:
            return np.full(expected.shape, _TIMES * self.torch_error)
        return _TIMES * own_error(self._own, self._reference, self.got.dtype)

    def _excused(self, expected: Array, found: Found) -> Found:
        """Return another verdict for what is PyTorch's own, or where there is nothing to be said."""
        got, own = self.got, self._own
        if own is not None and own.dtype == got.dtype and identical(own, got):
            return Verdict.EQUAL, "every element is PyTorch's own", compare(got, own, np.zeros(got.shape))
        wrong = distance(got.astype(np.float64), expected.astype(np.float64)) > self._bounds.bound(self.name)
        if bool(self._bounds.undecided(self.name)[wrong].all()):
            reason = (
                f"whether {int(wrong.sum())} elements are numbers turns on a rounding error or an overflow"
            )
            return Verdict.CANNOT_SAY, reason, found[2]
        return found

    def _mismatch(self, expected: Any, whose: str) -> str:
        """Say in what the output is of another kind, before any value is looked at."""
        if not isinstance(self.got, np.ndarray) or not isinstance(expected, np.ndarray):
            both = type(self.got).__name__, type(expected).__name__
            return "" if both == ("ndarray", "ndarray") else f"it is a {both[0]}, {whose} gives a {both[1]}"
        if self.got.shape != expected.shape:
            return f"the shape is {self.got.shape}, {whose} gives {expected.shape}"
        if self.declared is not None and self.got.dtype != self.declared and self.got.dtype.kind not in "OUS":
            return f"it is {self.got.dtype.name}, the file says {self.declared.name}"
        wide = self.got.dtype.name in _FLOATS and expected.dtype == np.float64
        if self.got.dtype != expected.dtype and not wide and self.got.dtype.kind not in "OUS":
            return f"it is {self.got.dtype.name}, {whose} gives {expected.dtype.name}"
        return ""

    def _discrete(self) -> Found:
        """Judge integers, booleans and strings: each is the same or not."""
        difference = compare_exactly(self.got, self._exact)
        count = difference.exceeding
        self.smallest_fault = 1.0 if self.got.dtype.kind in "iub" and self.got.size else None
        if not count:
            return Verdict.EQUAL, "every element is the same", difference
        if (
            self._own is not None
            and self._own.shape == self.got.shape
            and bool(np.all(self.got == self._own))
        ):
            return Verdict.EQUAL, "every element is PyTorch's own; float64 decides some otherwise", difference
        if bool(np.all(self._bounds.undecided(self.name)[self.got != self._exact])):
            return Verdict.CANNOT_SAY, f"{count} elements turn on a rounding error", difference
        return Verdict.RUNTIME_WRONG, f"{count} elements differ", difference

    @np.errstate(over="ignore", invalid="ignore")
    def _plant(self, expected: Array, allowed: Array) -> None:
        """Plant the smallest fault that is found wherever it is in this output, and see it found."""
        if not self.got.size:
            return
        wide = self.got.astype(np.float64)
        usable = np.isfinite(wide) & np.isfinite(self._exact)
        if not usable.any():
            return
        place = np.unravel_index(int(np.argmax(np.where(usable, allowed, -1.0))), allowed.shape)
        fault = float(allowed[place]) + float(np.abs(wide[place] - self._exact[place]))
        for _ in range(8):
            if not np.isfinite(fault):
                return
            fault = max(1.25 * fault, float(np.spacing(np.abs(self.got[place])).astype(np.float64)))
            planted = self.got.copy()
            planted[place] = np.asarray(wide[place] + fault).astype(self.got.dtype)
            if not compare(planted, expected, allowed).within:
                self.smallest_fault = abs(float(planted[place]) - float(wide[place]))
                return
