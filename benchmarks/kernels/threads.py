"""What several Python threads get out of one session whose kernel releases the GIL."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.kernels.row import Row, spread
from benchmarks.kernels.sessions import DOMAIN, Step, session, tanh

COUNTS = (1, 2, 4)
ROUNDS = 15
CALLS = 24  # in a round, however many threads share them
SIZE = 1 << 20


def rows() -> list[Row]:
    x = np.linspace(-3, 3, SIZE, dtype=np.float32)
    made = session(Step("Tanh", DOMAIN))
    calls = {"NumPy alone": lambda: tanh(x), "a session": lambda: made.run(None, {"x": x})}
    found = _rates(calls)
    return [_row(name, n, found[name]) for name in calls for n in COUNTS[1:]]


def _rates(calls: Mapping[str, Callable[[], object]]) -> dict[str, dict[int, np.ndarray]]:
    """Return calls a second by round, for each call and number of Python threads."""
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in COUNTS} for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for n in COUNTS:
                found[name][n].append(_rate(call, n))
    return {name: {n: np.array(rates) for n, rates in by_n.items()} for name, by_n in found.items()}


def _rate(call: Callable[[], object], workers: int) -> float:
    def one(_: int) -> None:
        call()  # its result is dropped at once, and the memory used again

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, range(workers)))  # starts the threads
        start = time.perf_counter()
        list(pool.map(one, range(CALLS)))
        return CALLS / (time.perf_counter() - start)


def _row(name: str, n: int, rates: Mapping[int, np.ndarray]) -> Row:
    ratios = rates[n] / rates[1]
    medians = {k: float(np.median(values)) for k, values in rates.items()}
    texts = (f"1 Python thread: {medians[1]:.0f} a second", f"{n} Python threads: {medians[n]:.0f} a second")
    raw = {"calls": name, "python_threads": n, "per_second": medians, "ratio": float(np.median(ratios))}
    return Row("throughput", f"np.tanh of 4 MiB, {name}", 1, *texts, spread(ratios), "", raw)
