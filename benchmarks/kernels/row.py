"""One row of the table: something measured beside something else."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.report import Timing, ratio, summarise

COLUMNS = ("what", "case", "threads", "beside", "measured", "difference", "asked")


@dataclasses.dataclass(frozen=True)
class Row:
    """The cells of a row as text, and the same as numbers; ``asked`` is empty where nothing is demanded."""

    what: str
    case: str
    threads: int  # intra-op threads of ONNX Runtime
    beside: str
    measured: str
    difference: str
    asked: str
    raw: dict[str, Any]

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the texts in the order of COLUMNS."""
        texts = (self.beside, self.measured, self.difference, self.asked)
        return (self.what, self.case, str(self.threads), *texts)


def slower_by(
    what: str, case: str, threads: int, *two: tuple[str, Sequence[float]], at_most: float | None = None
) -> Row:
    """Return a row on two (name, seconds), the second beside the first; ``at_most`` is in µs more."""
    (_, base), (_, seconds) = two
    over = (np.median(seconds) - np.median(base)) * 1e6
    return _timed(what, case, threads, two, f"{over:+.2f} µs", _asked(over, at_most, "+{} µs"))


def times_as_long(
    what: str, case: str, threads: int, *two: tuple[str, Sequence[float]], at_most: float | None = None
) -> Row:
    """Return a row on two (name, seconds), the second beside the first; ``at_most`` is their ratio."""
    (_, base), (_, seconds) = two
    times = ratio(seconds, base)
    row = _timed(what, case, threads, two, times.text, _asked(times.ratio, at_most, "{} times"))
    return dataclasses.replace(row, raw=row.raw | dataclasses.asdict(times))


def _timed(
    what: str,
    case: str,
    threads: int,
    two: Sequence[tuple[str, Sequence[float]]],
    difference: str,
    asked: str,
) -> Row:
    timings = {name: summarise(seconds) for name, seconds in two}
    texts = [f"{name}: {_text(timing)}" for name, timing in timings.items()]
    raw: dict[str, Any] = dict(zip(("beside", "measured"), timings, strict=True))
    raw |= {name: dataclasses.asdict(timing) for name, timing in timings.items()}
    return Row(what, case, threads, *texts, difference, asked, raw)


def _text(timing: Timing) -> str:
    values = (timing.median_us, timing.low_us, timing.high_us)
    scale, unit = (1000, "ms") if timing.median_us >= 1000 else (1, "µs")
    median, low, high = (f"{value / scale:.{2 if value / scale < 10 else 1}f}" for value in values)
    return f"{median} ({low} to {high}) {unit}"


def _asked(value: float, at_most: float | None, form: str) -> str:
    if at_most is None:
        return ""
    return f"at most {form.format(at_most)}: {'met' if value <= at_most else 'not met'}"
