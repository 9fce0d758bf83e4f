"""Does the runtime compute the file: a run beside the file in float64."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ort_ops.errors import ParityError

from .exact import ExactFile
from .judge import READINGS, Golden, Otherwise, judge_output
from .report import Row
from .requantized import requantizing
from .rounding import rounding_spread, spread_of
from .runs import Run, Setting
from .sample import Sample
from .step import Step
from .tolerance import TF32, Arithmetic, arithmetic_of
from .verdict import Verdict

__all__ = [
    "Expectations",
    "RoundingBounds",
    "RuntimeSide",
    "elsewhere",
    "golden_outputs",
    "own_arithmetic",
    "readings",
]

Array = NDArray[Any]
_Readings = Callable[[str], Mapping[str, Otherwise]]

# Factors and results rounded, products summed in float32.
_NARROWER = {
    "TF32": TF32,
    **{
        name: replace(arithmetic_of(dtype), operand=arithmetic_of(dtype).storage)
        for name, dtype in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16))
    },
}


class RuntimeSide:
    """Judges the outputs of a run; ``rule`` is (atol, rtol) for those who want the plain rule."""

    def __init__(
        self, expectations: "Expectations", run: Run, rule: tuple[float, float] | None = None
    ) -> None:
        self._expectations, self._run, self._rule = expectations, run, rule
        self._ran = run.ran()

    def judge(self, sample: Sample, number: int) -> list[Row]:
        """Run the file; returns a row for each output."""
        outputs = self._run.outputs(sample.feed)
        bounds, others = self._expectations.of(sample, number)
        rows = []
        for golden in golden_outputs(self._expectations.file, sample):
            row = judge_output(
                outputs[golden.name],
                golden,
                bounds,
                rule=self._rule,
                on_cpu=self._run.on_cpu,
                otherwise=functools.partial(_others, others, golden.name),
            )
            if golden.name in sample.chance:
                reason = f"the output depends on chance in node {sample.chance[golden.name]}"
                row = replace(row, verdict=Verdict.CANNOT_SAY, reason=reason, elements=0)
            rows.append(replace(row, provider=str(self._run.setting), ran=self._ran, sample=number))
        return rows


class Expectations:
    """What runs of a file should give for samples: made once for each, whoever runs it."""

    def __init__(self, file: ExactFile) -> None:
        self.file = file
        self._made: dict[int, tuple[RoundingBounds, _Readings]] = {}

    def of(self, sample: Sample, number: int) -> tuple["RoundingBounds", "_Readings"]:
        """Return the bounds of the outputs of a sample of a number, and what gives its other readings."""
        if number not in self._made:
            others = functools.cache(functools.partial(readings, self.file, sample))
            self._made[number] = RoundingBounds(self.file, sample), others
        return self._made[number]


def refused(file: ExactFile, setting: Setting, error: ParityError) -> list[Row]:
    """Return a row for each output of a file for which no session can be made, or whose run fails."""
    return [
        Row("runtime", name, str(setting), "nothing", "", (), 0, Verdict.CANNOT_SAY, str(error))
        for name in file.outputs
    ]


def golden_outputs(file: ExactFile, sample: Sample) -> list[Golden]:
    """Return what each output of a file should be."""
    own = dict(zip(file.outputs, sample.torch, strict=False))
    models = dict(zip(file.outputs, sample.model, strict=False))
    found = []
    for name in file.outputs:
        declared = file.types.get(name)
        dtype = None if declared is None else declared.numpy()
        found.append(Golden(name, sample.file[name], own.get(name), dtype, models.get(name)))
    return found


class RoundingBounds:
    """What rounding errors may do to the outputs for one sample, computed when it is first asked for.

    replaced, changed: constants, and what computes a node, otherwise than the file has them; the sample's
        outputs are of these.
    """

    def __init__(
        self,
        file: ExactFile,
        sample: Sample,
        replaced: Mapping[str, Array] | None = None,
        changed: Callable[[Step], Step] | None = None,
    ) -> None:
        self._file, self._sample, self._replaced, self._changed = file, sample, replaced, changed
        self._found: dict[tuple[str, float], list[dict[str, Array]]] = {}

    def bound(self, name: str, kind: str = "", *, opposite: bool = False) -> Array:
        """Return how far each element may be off; see ``Bounds``."""
        others = self._spread(name, kind, -1.0) if opposite else []
        return spread_of(self._sample.file[name], [*self._spread(name, kind), *others])

    def undecided(self, name: str) -> Array:
        """Return which elements are otherwise in one of the samples, or with errors opposite to one's.

        Of fractions: which are numbers in one and none in another.
        """
        exact, others = self._sample.file[name], [*self._spread(name), *self._spread(name, direction=-1.0)]
        if exact.dtype == np.float64:
            return elsewhere(np.isfinite(exact), [np.isfinite(other) for other in others])
        return elsewhere(exact, others)

    def _spread(self, name: str, kind: str = "", direction: float = 1.0) -> list[Array]:
        """Return an output with rounding errors, several times over."""
        if (kind, direction) not in self._found:
            ways: Mapping[str, Arithmetic] = own_arithmetic(self._file) if not kind else {"": _NARROWER[kind]}
            self._found[kind, direction] = rounding_spread(
                self._file,
                self._sample.feed,
                ways,
                replaced=self._replaced,
                directions=[direction],
                changed=self._changed,
            )
        return [outputs[name] for outputs in self._found[kind, direction]]


def _others(others: Callable[[str], Mapping[str, Otherwise]], name: str) -> Iterator[Otherwise]:
    """Give the other readings of an output, each made when it is asked for."""
    return (found[name] for key in READINGS if name in (found := others(key)))


def readings(file: ExactFile, sample: Sample, key: str) -> dict[str, Otherwise]:
    """Return what a file's outputs are by another reading, one of ``READINGS``; nothing where it has none."""
    written = file.as_written() if key == "written" else {}
    changed = requantizing(file) if key == "requantized" else None
    if not written and changed is None:
        return {}
    after = None if changed is None else lambda step: changed(step).outputs
    other = replace(sample, file=file.run(sample.feed, replaced=written, after=after))
    bounds = RoundingBounds(file, other, written, changed)
    return {golden.name: Otherwise(golden, bounds, *READINGS[key]) for golden in golden_outputs(file, other)}


def elsewhere(exact: Array, others: Iterable[Array]) -> Array:
    """Return which elements are otherwise in one of these, all where one is of another shape."""
    found = np.zeros(exact.shape, bool)
    for other in others:
        found |= other != exact if other.shape == exact.shape else True
    return found


def own_arithmetic(file: ExactFile) -> dict[str, Arithmetic]:
    """Return the arithmetic of each value of a file; under "" that of values of which it doesn't say."""
    known = {name: arithmetic_of(dtype.numpy()) for name, dtype in file.precisions.items()}
    usual = max(known.values(), key=lambda each: each.storage, default=arithmetic_of(np.float32))
    return {**known, "": usual}
