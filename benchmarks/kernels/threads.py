"""What several Python threads get out of one session whose kernel releases the GIL."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np

from benchmarks.kernels.row import Row
from benchmarks.kernels.sessions import DOMAIN, Step, session, tanh
from benchmarks.report import Seconds, in_processes, ratio

COUNTS = (1, 2, 4)
ROUNDS = 5
CALLS = 24  # in a round, however many threads share them
SIZE = 1 << 20


def rows() -> list[Row]:
    found = in_processes(measure)
    return [_row(name, n, seconds) for name, seconds in found.items() for n in COUNTS[1:]]


def measure() -> dict[str, Seconds]:
    """Return seconds a call by round, for NumPy and for a session, by the number of Python threads."""
    x = np.linspace(-3, 3, SIZE, dtype=np.float32)
    made = session(Step("Tanh", DOMAIN))
    calls = {"NumPy alone": lambda: tanh(x), "a session": lambda: made.run(None, {"x": x})}
    found: dict[str, Seconds] = {name: {str(n): [] for n in COUNTS} for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for n in COUNTS:
                found[name][str(n)].append(_seconds(call, n))
    return found


def _seconds(call: Callable[[], object], workers: int) -> float:
    def one(_: int) -> None:
        call()  # its result is dropped at once, and the memory used again

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, range(workers)))  # starts the threads
        start = time.perf_counter()
        list(pool.map(one, range(CALLS)))
        return (time.perf_counter() - start) / CALLS


def _row(name: str, n: int, seconds: Seconds) -> Row:
    gain = ratio(seconds["1"], seconds[str(n)])
    one, several = (1 / float(np.median(seconds[k])) for k in ("1", str(n)))
    texts = (f"1 Python thread: {one:.0f} a second", f"{n} Python threads: {several:.0f} a second")
    raw = {"calls": name, "python_threads": n, "per_second": [one, several], **asdict(gain)}
    return Row("throughput", f"np.tanh of 4 MiB, {name}", 1, *texts, f"{gain.text} as fast", "", raw)
