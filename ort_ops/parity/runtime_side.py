"""Does the runtime compute the file: a run beside the file in float64."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compare import Difference, compare
from .exact import ExactFile
from .report import Row
from .rounding import rounding_spread, spread_of
from .runs import Run
from .sample import Sample
from .tolerance import TF32, Arithmetic, arithmetic_of
from .verdict import Verdict

__all__ = ["RuntimeSide", "own_arithmetic"]

Array = NDArray[Any]

_TIMES = 4.0  # PyTorch's own error
_FLOATS = ("float16", "bfloat16", "float32", "float64")
# What a provider other than the CPU's may compute in without being asked, from what is nearest to float32 on.
_NARROWER = {
    "TF32": TF32,
    "float16": Arithmetic("float16", 2.0**-11, 2.0**-11, 2.0**-24),
    "bfloat16": Arithmetic("bfloat16", 2.0**-8, 2.0**-8, 2.0**-133),
}


class RuntimeSide:
    """Judges the outputs of a run; ``rule`` is (atol, rtol) for those who want the plain rule."""

    def __init__(self, file: ExactFile, run: Run, rule: tuple[float, float] | None = None) -> None:
        self._file, self._run, self._rule = file, run, rule
        self._ran = run.ran()

    def judge(self, sample: Sample, number: int) -> list[Row]:
        """Run the file; returns a row for each output."""
        outputs = self._run.outputs(sample.feed)
        rounding = _Rounding(self._file, sample)
        own = dict(zip(self._file.outputs, sample.torch, strict=False))
        rows = []
        for name, got in outputs.items():
            judge = _Judge(name, got, sample.file[name], own.get(name), rounding)
            declared = self._file.types.get(name)
            judge.declared = None if declared is None else declared.numpy()
            found: tuple[Verdict, str, Difference | None]
            if name in sample.chance:
                reason = f"the output depends on chance in node {sample.chance[name]}"
                found = Verdict.CANNOT_SAY, reason, None
            elif self._rule is not None:
                found = judge.by_rule(*self._rule)
            else:
                found = judge.by_arithmetic(may_be_narrower=not self._run.on_cpu)
            rows.append(self._row(judge, found, number))
        return rows

    def _row(self, judge: "_Judge", found: "tuple[Verdict, str, Difference | None]", number: int) -> Row:
        verdict, reason, difference = found
        got = judge.got
        is_array = isinstance(got, np.ndarray)
        error, torch_error = judge.error, judge.torch_error
        worst = difference if difference is not None else Difference(0, 0, 0.0, 0)
        return Row(
            question="runtime",
            output=judge.name,
            provider=str(self._run.setting),
            ran=self._ran,
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
            smallest_fault=judge.smallest_fault,
            sample=number,
        )


class _Rounding:
    """What rounding errors may do to the outputs for one sample, computed when it is first asked for."""

    def __init__(self, file: ExactFile, sample: Sample) -> None:
        self._file, self._sample = file, sample
        self._found: dict[str, list[dict[str, Array]]] = {}

    def spread(self, name: str, kind: str = "") -> list[Array]:
        """Return an output with rounding errors, several times over; of a narrower arithmetic by its name."""
        if kind not in self._found:
            ways: Mapping[str, Arithmetic] = own_arithmetic(self._file) if not kind else {"": _NARROWER[kind]}
            self._found[kind] = rounding_spread(self._file, self._sample.feed, ways)
        return [outputs[name] for outputs in self._found[kind]]


def own_arithmetic(file: ExactFile) -> dict[str, Arithmetic]:
    """Return the arithmetic of each value of a file; under "" that of values of which it doesn't say."""
    known = {
        name or "": arithmetic_of(dtype.numpy())
        for name, dtype in file.types.items()
        if dtype is not None and dtype.is_floating_point() and dtype.numpy().name in _FLOATS
    }
    usual = max(known.values(), key=lambda each: each.storage, default=arithmetic_of(np.float32))
    return {**known, "": usual}


class _Judge:
    """One output of a run beside what it should be."""

    def __init__(self, name: str, got: Any, exact: Any, own: Any, rounding: _Rounding) -> None:
        self.name, self.got, self._exact, self._own = name, got, exact, own
        self._rounding = rounding
        self.declared: Any = None
        """The dtype that the file says of the output, where it says one."""
        self.error: float | None = None
        self.torch_error: float | None = None
        self.smallest_fault: float | None = None

    def by_rule(self, atol: float, rtol: float) -> tuple[Verdict, str, Difference | None]:
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

    def by_arithmetic(self, *, may_be_narrower: bool) -> tuple[Verdict, str, Difference | None]:
        """Judge by PyTorch's own error, then by the bound of the arithmetic."""
        mismatch = self._mismatch(self._exact, "the file")
        if mismatch:
            return Verdict.RUNTIME_WRONG, mismatch, None
        if self.got.dtype.name not in _FLOATS:
            return self._discrete()
        dtype = self.got.dtype
        with np.errstate(over="ignore"):
            expected = self._exact.astype(dtype)
        self.error = _error(self.got, self._exact)
        if dtype == np.float64:  # nothing here is more exact than what is judged
            bound = self._bound("")
            difference = compare(self.got, expected, bound)
            self._plant(expected, bound)
            reason = "the bound of float64's arithmetic"
            return (Verdict.EQUAL if difference.within else Verdict.RUNTIME_WRONG), reason, difference
        comparable = self._own is not None and self._own.shape == self._exact.shape
        self.torch_error = _error(self._own, self._exact) if comparable else 0.0
        allowed = np.full(expected.shape, _TIMES * self.torch_error)
        difference = compare(self.got, expected, allowed)
        if difference.within:
            self._plant(expected, allowed)
            return Verdict.EQUAL, f"{_TIMES:g} times PyTorch's own error", difference
        bound = np.maximum(allowed, self._bound(""))
        difference = compare(self.got, expected, bound)
        if difference.within:
            self._plant(expected, bound)
            return Verdict.LESS_PRECISE, "the bound of the arithmetic; PyTorch is more precise", difference
        if may_be_narrower and dtype == np.float32:
            for kind in _NARROWER:
                wide = np.maximum(bound, self._bound(kind))
                narrow = compare(self.got, expected, wide)
                if narrow.within:
                    self._plant(expected, wide)
                    return Verdict.REDUCED_PRECISION, f"as far off as {kind} explains", narrow
        return Verdict.RUNTIME_WRONG, "beyond the bound of the arithmetic", difference

    def _bound(self, kind: str) -> Array:
        return spread_of(self._exact, self._rounding.spread(self.name, kind))

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

    def _discrete(self) -> tuple[Verdict, str, Difference | None]:
        """Judge integers, booleans and strings: each is the same or not."""
        different = self.got != self._exact
        count = int(np.sum(different))
        index = tuple(int(i) for i in np.argwhere(different)[0]) if count else None
        numbers = self.got.dtype.kind in "iub"
        apart = _integer_distance(self.got, self._exact) if numbers else float(count > 0)
        difference = Difference(
            elements=self.got.size,
            exceeding=count,
            max_abs=apart,
            max_ulp=0,
            index=index,
            got=self.got[index].item() if index is not None and numbers else None,
            expected=self._exact[index].item() if index is not None and numbers else None,
        )
        self.smallest_fault = 1.0 if numbers and self.got.size else None
        if not count:
            return Verdict.EQUAL, "every element is the same", difference
        if (
            self._own is not None
            and self._own.shape == self.got.shape
            and bool(np.all(self.got == self._own))
        ):
            return Verdict.EQUAL, "every element is PyTorch's own; float64 decides some otherwise", difference
        undecided = np.zeros(self.got.shape, bool)
        for other in self._rounding.spread(self.name):
            undecided |= other != self._exact if other.shape == undecided.shape else True
        if bool(np.all(undecided[different])):
            return Verdict.CANNOT_SAY, f"{count} elements turn on a rounding error", difference
        return Verdict.RUNTIME_WRONG, f"{count} elements differ", difference

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
            fault = max(1.25 * fault, float(np.spacing(np.abs(self.got[place])).astype(np.float64)))
            planted = self.got.copy()
            planted[place] = np.asarray(wide[place] + fault).astype(self.got.dtype)
            if not compare(planted, expected, allowed).within:
                self.smallest_fault = abs(float(planted[place]) - float(wide[place]))
                return


def _error(got: Array, exact: Array) -> float:
    """Return how far off an array is at most, where both are numbers."""
    wide = got.astype(np.float64)
    finite = np.isfinite(wide) & np.isfinite(exact)
    return float(np.abs(wide[finite] - exact[finite]).max(initial=0.0))


def _integer_distance(a: Array, b: Array) -> float:
    """Return the largest difference of two arrays of integers, exactly, as a float."""
    if not a.size:
        return 0.0
    high, low = np.maximum(a, b), np.minimum(a, b)
    return float(max(int(h) - int(i) for h, i in zip(high.reshape(-1), low.reshape(-1), strict=True)))
