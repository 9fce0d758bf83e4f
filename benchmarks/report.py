"""What every benchmark here shares: alternating rounds, medians and spreads, who measured, a table twice."""

import dataclasses
import json
import multiprocessing
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from torch.utils.benchmark import Timer

RESULTS = Path(__file__).parent / "results"
_PROCESSES = 3
SPREAD = (
    f"Medians of rounds in which the calls take turns, in {_PROCESSES} processes, and in brackets between "
    "what nine of ten rounds lie; ratios are the rounds' own."
)
_MIDDLE = (50, 5, 95)  # percentiles: the median, and nine of ten

Seconds = dict[str, list[float]]  # of each round, by what is timed


@dataclasses.dataclass(frozen=True)
class Timing:
    """Microseconds of one call: the median of the rounds, and between what nine of ten of them lie."""

    median_us: float
    low_us: float  # 5th percentile
    high_us: float  # 95th percentile

    @property
    def text(self) -> str:
        """Return ``median (low to high)``, one decimal below 100."""
        median, low, high = (
            f"{us:.1f}" if us < 100 else f"{us:,.0f}" for us in (self.median_us, self.low_us, self.high_us)
        )
        return f"{median} ({low} to {high})"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as long one call takes as another: the rounds' median, and between what nine of ten lie.

    In JSON these three fields, by which `benchmarks.agree` knows a ratio.
    """

    ratio: float
    low: float  # 5th percentile
    high: float  # 95th percentile

    @property
    def text(self) -> str:
        """Return ``ratio (low to high)``."""
        return f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"


def in_processes(measure: Callable[..., dict[str, Seconds]], *arguments: object) -> dict[str, Seconds]:
    """Call a module's function in three processes, one after the other; returns the rounds of all of them.

    Where a process's memory lies makes a call faster or slower by some hundredths for as long as it lives.
    """
    pooled: dict[str, Seconds] = {}
    for _ in range(_PROCESSES):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            for case, found in pool.apply(measure, arguments).items():
                for name, seconds in found.items():
                    pooled.setdefault(case, {}).setdefault(name, []).extend(seconds)
    return pooled


def alternate(
    calls: Mapping[str, Callable[[], object]],
    *,
    threads: int,
    rounds: int = 25,
    round_seconds: float = 0.04,
    rest_after: Mapping[str, float] | None = None,
) -> Seconds:
    """Return seconds a call by round: in turn, so that a slow moment of the machine falls on all of them.

    threads: of torch, while timing. A round times one call for about ``round_seconds``. ``rest_after`` has
    seconds of rest after a call, by its name: for one whose threads spin on when it is done.
    """
    timers = {
        name: Timer("call()", globals={"call": call}, num_threads=threads) for name, call in calls.items()
    }
    numbers = {}
    for name, timer in timers.items():
        timer.timeit(3)  # warm up: the first calls allocate and choose kernels
        numbers[name] = max(1, round(round_seconds / timer.blocked_autorange(min_run_time=0.02).median))
    seconds: Seconds = {name: [] for name in timers}
    for turn in range(rounds):
        order = list(timers) if turn % 2 == 0 else list(reversed(timers))  # so that none always comes first
        for name in order:
            seconds[name].append(timers[name].timeit(numbers[name]).median)
            time.sleep((rest_after or {}).get(name, 0.0))
    return seconds


def summarise(seconds: Sequence[float]) -> Timing:
    """Return the median of rounds, and between what nine of ten lie, in microseconds."""
    return Timing(*(float(value) * 1e6 for value in np.percentile(seconds, _MIDDLE)))


def ratio(seconds: Sequence[float], base: Sequence[float], *, in_turn: bool = True) -> Ratio:
    """Return the median of the rounds' own ratios, so that a machine that slows down changes nothing.

    Where the two were not timed in turn, in rounds as many, each round is set against each of the base's.
    """
    paired = in_turn and len(seconds) == len(base)
    each = np.array(seconds) / base if paired else np.divide.outer(seconds, base)
    return Ratio(*(float(value) for value in np.percentile(each, _MIDDLE)))


def environment(packages: Sequence[str]) -> dict[str, str]:
    """Return versions and the processor: all that a reader needs, nothing that names the machine."""
    found = {"python": platform.python_version()}
    found |= {package: metadata.version(package) for package in packages}
    return found | {"os": f"{platform.system()} {platform.machine()}", "cpu": _cpu()}


def write(
    name: str,
    question: str,
    note: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    raw: object,
    measured_with: Mapping[str, str],
) -> str:
    """Write results/NAME.md and results/NAME.json; return the Markdown.

    note: what the numbers are. columns and rows: the table, as text. raw: the same as numbers, for JSON.
    """
    lines = ["| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *rows)]
    with_what = ", ".join(f"{key} {value}" for key, value in measured_with.items())
    text = f"# {question}\n\n" + "\n".join(lines) + f"\n\n{note}\nMeasured with {with_what}.\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    content = {"question": question, "note": note, "measured_with": dict(measured_with), "results": raw}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return text


def _cpu() -> str:
    """Return the processor's model and how many cores may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()} ({len(models)} cores)"
