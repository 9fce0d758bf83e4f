"""What a check found: a row for each question, output and provider, and all of them as text and JSON."""

import json
import math
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from .html import to_html
from .profile import Profile
from .verdict import BY_GRAVITY, GOOD, ExitCode, Verdict, exit_code, good_for

if TYPE_CHECKING:
    from .locating import Located

__all__ = ["Envelope", "Report", "Row", "finite", "unless_empty", "worst_rows"]


@dataclass(frozen=True)
class Row:
    """One output under one question, at the sample of inputs at which it is worst.

    question: ``"export"``, the file in float64 beside the model in float64, or ``"runtime"``, a run of the
        file beside the file in float64.
    output: its name in the file. provider: as it was asked for; empty under ``"export"``.
    ran: who evaluated the nodes: for a run how many were on which provider, and who ran the custom ones.
    dtype, shape: of what was compared; elements: how many, over all samples.
    max_abs: the largest difference. max_ulp: in units in the last place of dtype; 0 where it has none.
    error: of the run against float64; torch_error: PyTorch's own; ratio: of the two, None where one is 0.
    index, got, expected: the element that comes nearest to what is tolerated, or goes furthest beyond it.
    tolerance: how far that element may be off, and reason, why.
    smallest_fault: the smallest change to the output that would have been found; None where none would.
    sample: the number of the inputs that the row is about.
    profile: how the errors are spread, where there are fractions.
    """

    question: Literal["export", "runtime"]
    output: str
    provider: str
    ran: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    verdict: Verdict
    reason: str
    max_abs: float = 0.0
    max_ulp: int = 0
    error: float | None = None
    torch_error: float | None = None
    ratio: float | None = None
    index: tuple[int, ...] | None = None
    got: Any = None
    expected: Any = None
    tolerance: float = 0.0
    smallest_fault: float | None = None
    sample: int = 0
    profile: Profile | None = field(default=None, repr=False)

    @property
    def worst(self) -> str:
        """Say which element ``index`` is, what it is and what it should be; nothing where there is none."""
        if self.index is None:
            return ""
        place = f"element [{', '.join(map(str, self.index))}]" if self.index else "the one element"
        return f"sample {self.sample}, {place} is {self.got!r}, expected {self.expected!r}"


@dataclass(frozen=True)
class Envelope:
    """An output over several runs: the least and the largest difference, and the settings that break it."""

    output: str
    runs: int
    least: float
    most: float
    broken: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Every comparison of a check, and what is to be known about them.

    notes: what could not be looked at as closely as the rest, and what it hides; versions: of what ran.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Return the gravest verdict of all rows; without any element compared it is "cannot say"."""
        found = self._verdicts()
        return next(verdict for verdict in BY_GRAVITY if verdict in found)

    @property
    def exit_code(self) -> ExitCode:
        """Return what a command exits with."""
        return exit_code(self._verdicts())

    def exit_code_for(self, *, allow_reduced_precision: bool) -> ExitCode:
        """Return what a command exits with that may be told that a narrower arithmetic will do."""
        return exit_code(self._verdicts(), good_for(allow_reduced_precision=allow_reduced_precision))

    def _verdicts(self) -> set[Verdict]:
        compared = any(row.elements for row in self.rows)
        return {row.verdict for row in self.rows} | (set() if compared else {Verdict.CANNOT_SAY})

    def envelopes(self) -> list[Envelope]:
        """Return for each output the spread of its errors over all runs, and the runs that break it."""
        found = []
        runs = [row for row in self.rows if row.question == "runtime"]
        for output in dict.fromkeys(row.output for row in runs):
            rows = [row for row in runs if row.output == output]
            errors = [row.max_abs for row in rows]
            broken = tuple(row.provider for row in rows if row.verdict not in GOOD)
            found.append(Envelope(output, len(rows), min(errors), max(errors), broken))
        return found

    def to_json(self, *, allow_reduced_precision: bool = False) -> str:
        """Return everything, and what a command exits with, as JSON; numbers unknown there are strings."""
        code = self.exit_code_for(allow_reduced_precision=allow_reduced_precision)
        whole = {"verdict": self.verdict, "exit_code": int(code), **asdict(self)}
        return json.dumps(finite(whole), indent=2, allow_nan=False)

    def to_html(self, title: str = "Parity", located: "Located | None" = None) -> str:
        """Return everything, and what ``locate`` found, as one HTML page that needs nothing else."""
        return to_html(self, title=title, located=located)

    def __str__(self) -> str:
        lines = []
        for row in self.rows:
            name = " ".join(filter(None, (row.question, row.output, row.provider)))
            lines.append(f"{name}: {row.verdict}, {row.reason}")
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *notes, f"verdict: {self.verdict}"])


_NOTHING = "it has no elements in any sample, and nothing of it was compared"


def unless_empty(rows: Sequence[Row], empty: Container[str]) -> tuple[Row, ...]:
    """Return rows that say nothing of an output without any elements, unless it is one that is ``empty``."""
    compared = {row.output for row in rows if row.elements}
    return tuple(
        replace(row, verdict=Verdict.CANNOT_SAY, reason=_NOTHING)
        if row.verdict in GOOD and row.output not in compared and row.output not in empty
        else row
        for row in rows
    )


def worst_rows(judged: Sequence[Sequence[Row]]) -> list[Row]:
    """Return for each output the row of the sample at which it is worst, with the elements of all."""
    kept = []
    for rows in zip(*judged, strict=True):
        gravest = min((row.verdict for row in rows), key=BY_GRAVITY.index)
        worst = max((row for row in rows if row.verdict is gravest), key=_severity)
        faults = [row.smallest_fault for row in rows if row.smallest_fault is not None]
        elements = sum(row.elements for row in rows)
        kept.append(replace(worst, elements=elements, smallest_fault=max(faults, default=None)))
    return kept


def _severity(row: Row) -> tuple[float, int]:
    return (row.max_abs / row.tolerance if row.tolerance else row.max_abs), row.elements


def finite(value: Any) -> Any:
    """Return a value with each NaN and infinity in it spelled out."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
