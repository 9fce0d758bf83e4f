"""What a node costs on a tiny tensor, and what a large one takes."""

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.kernels.row import Row, slower_by, times_as_long
from benchmarks.kernels.sessions import CONTRIB, DOMAIN, Step, session
from benchmarks.report import Seconds, alternate, in_processes

EXTRA = ("a", "b")
ONE_INPUT = {
    "built-in Neg": Step("Neg"),
    "ort_ops": Step("Identity", DOMAIN),
    "extensions": Step("Identity", CONTRIB),
}
THREE_INPUTS = {
    "built-in Sum": Step("Sum", "", EXTRA),
    "ort_ops": Step("First", DOMAIN, EXTRA),
    "extensions": Step("First", CONTRIB, EXTRA),
}
LINKS = 100  # nodes of the long chain beyond the one of the short
BIG = 1 << 24  # float32 elements, 64 MiB
_ONE, _THREE, _BIG = "one input, 4 float32", "three inputs, 4 float32", "64 MiB float32"


def runner(*steps: Step, size: int) -> Callable[[], object]:
    """Return a call that runs a session of the steps on ``size`` float32."""
    made = session(*steps)
    feed = {i.name: np.ones(size, np.float32) for i in made.get_inputs()}
    return lambda: made.run(None, feed)


def rows() -> list[Row]:
    found = in_processes(measure)
    ours, theirs = ({"at_most": 1.0}, {})
    return [
        *_beside_first("a node", _ONE, found[_ONE], slower_by, ours, theirs),
        *_beside_first("a node", _THREE, found[_THREE], slower_by, theirs, theirs),
        *_beside_first("a run", _BIG, found[_BIG], times_as_long, {"at_most": 1.1}, theirs),
    ]


def measure() -> dict[str, Seconds]:
    """Time what a node adds to a chain, and a run on 64 MiB; that of extensions, a second and more, once."""
    runs = {name: runner(step, size=BIG) for name, step in ONE_INPUT.items()}
    slow = {"extensions": runs.pop("extensions")}
    big = alternate(runs, threads=1, rounds=9) | alternate(slow, threads=1, rounds=1, round_seconds=0)
    return {_ONE: node_costs(ONE_INPUT), _THREE: node_costs(THREE_INPUTS), _BIG: big}


def node_costs(steps: Mapping[str, Step]) -> Seconds:
    """Return what a node adds to a chain: that of a long one less that of a short one."""
    calls = {
        f"{name} {length}": runner(*[step] * length, size=4)
        for name, step in steps.items()
        for length in (1, 1 + LINKS)
    }
    seconds = alternate(calls, threads=1, rounds=9)
    costs = {}
    for name in steps:
        short, long = (np.array(seconds[f"{name} {length}"]) for length in (1, 1 + LINKS))
        costs[name] = list((long - short) / LINKS)
    return costs


def _beside_first(
    what: str,
    case: str,
    times: Seconds,
    make: Callable[..., Row],
    *asked: Mapping[str, float],
) -> list[Row]:
    first, *others = times.items()
    return [make(what, case, 1, first, other, **limits) for other, limits in zip(others, asked, strict=True)]
