"""What every benchmark here shares: medians over alternating rounds, who measured, one table in two forms."""

import dataclasses
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from torch.utils.benchmark import Timer

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Timing:
    """Microseconds of one call: the median of the rounds, and the quartiles around it."""

    median_us: float
    low_us: float  # first quartile
    high_us: float  # third quartile

    @property
    def text(self) -> str:
        """Return ``median (first quartile to third quartile)``, one decimal below 100."""
        median, low, high = (
            f"{us:.1f}" if us < 100 else f"{us:,.0f}" for us in (self.median_us, self.low_us, self.high_us)
        )
        return f"{median} ({low} to {high})"


def time_alternating(
    calls: Mapping[str, Callable[[], object]], *, threads: int, rounds: int = 25, round_seconds: float = 0.04
) -> dict[str, Timing]:
    """Time calls in turn: medians and quartiles of what ``alternate`` returns."""
    seconds = alternate(calls, threads=threads, rounds=rounds, round_seconds=round_seconds)
    return {name: summarise(values) for name, values in seconds.items()}


def alternate(
    calls: Mapping[str, Callable[[], object]],
    *,
    threads: int,
    rounds: int = 25,
    round_seconds: float = 0.04,
    pause_seconds: float = 0.0,
) -> dict[str, list[float]]:
    """Return seconds a call by round: in turn, so that a slow moment of the machine falls on all of them.

    threads: of torch, while timing. A round times one call for about ``round_seconds``, and ``pause_seconds``
    after the one before: for calls whose threads spin on when they are done.
    """
    timers = {
        name: Timer("call()", globals={"call": call}, num_threads=threads) for name, call in calls.items()
    }
    numbers = {}
    for name, timer in timers.items():
        timer.timeit(3)  # warm up: the first calls allocate and choose kernels
        numbers[name] = max(1, round(round_seconds / timer.blocked_autorange(min_run_time=0.05).median))
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for turn in range(rounds):
        order = list(timers) if turn % 2 == 0 else list(reversed(timers))  # so that none always comes first
        for name in order:
            time.sleep(pause_seconds)
            seconds[name].append(timers[name].timeit(numbers[name]).median)
    return seconds


def summarise(seconds: Sequence[float]) -> Timing:
    """Return the median and the quartiles of rounds, in microseconds."""
    return Timing(*(float(value) * 1e6 for value in np.percentile(seconds, [50, 25, 75])))


def ratio(seconds: Mapping[str, Sequence[float]], name: str, base: str) -> tuple[str, float]:
    """Return the ratio of medians with the quartiles of the rounds' own ratios, and the ratio alone."""
    each = np.array(seconds[name]) / np.array(seconds[base])
    low, high = np.percentile(each, [25, 75])
    value = float(np.median(seconds[name]) / np.median(seconds[base]))
    return f"{value:.2f} ({low:.2f} to {high:.2f})", value


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
