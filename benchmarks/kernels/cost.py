"""What a node costs on a tiny tensor, and what a large one takes."""

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.kernels.row import Row, slower_by, times_as_long
from benchmarks.kernels.sessions import CONTRIB, DOMAIN, Step, session
from benchmarks.report import Timing, alternate, summarise

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


def runner(*steps: Step, size: int) -> Callable[[], object]:
    """Return a call that runs a session of the steps on ``size`` float32."""
    made = session(*steps)
    feed = {i.name: np.ones(size, np.float32) for i in made.get_inputs()}
    return lambda: made.run(None, feed)


def rows() -> list[Row]:
    one, three = node_costs(ONE_INPUT), node_costs(THREE_INPUTS)
    ours, theirs = ({"at_most": 1.0}, {})
    return [
        *_beside_first("a node", "one input, 4 float32", one, slower_by, ours, theirs),
        *_beside_first("a node", "three inputs, 4 float32", three, slower_by, theirs, theirs),
        *_beside_first("a run", "64 MiB float32", big(), times_as_long, {"at_most": 1.1}, theirs),
    ]


def node_costs(steps: Mapping[str, Step]) -> dict[str, Timing]:
    """Return what a node adds to a chain: that of a long one less that of a short one."""
    calls = {
        f"{name} {length}": runner(*[step] * length, size=4)
        for name, step in steps.items()
        for length in (1, 1 + LINKS)
    }
    seconds = alternate(calls, threads=1)
    costs = {}
    for name in steps:
        short, long = (np.array(seconds[f"{name} {length}"]) for length in (1, 1 + LINKS))
        costs[name] = summarise((long - short) / LINKS)
    return costs


def big() -> dict[str, Timing]:
    """Return what a run on 64 MiB takes; that of extensions, a second and more, is timed thrice."""
    calls = {name: runner(step, size=BIG) for name, step in ONE_INPUT.items()}
    slow = {"extensions": calls.pop("extensions")}
    seconds = alternate(calls, threads=1) | alternate(slow, threads=1, rounds=3, round_seconds=0)
    return {name: summarise(values) for name, values in seconds.items()}


def _beside_first(
    what: str,
    case: str,
    times: Mapping[str, Timing],
    make: Callable[..., Row],
    *asked: Mapping[str, float],
) -> list[Row]:
    first, *others = times.items()
    return [make(what, case, 1, first, other, **limits) for other, limits in zip(others, asked, strict=True)]
