"""A run walked beside its file: each node evaluated in float64 on what the runtime gave for its inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bounds import local_errors
from .compare import distance
from .exact import ExactFile
from .graphs import reads
from .requantized import requantizing
from .rounding import Signs, rounding_spread, spread_of
from .runtime_side import elsewhere, own_arithmetic
from .step import Step
from .survivors import Results, Tapped
from .tolerance import Arithmetic, arithmetic_of
from .verdict import Verdict
from .walks import NodeRow, Walk, judged_share, node_row

__all__ = ["walk_runtime"]

Array = NDArray[Any]


def walk_runtime(file: ExactFile, tapped: Tapped, feed: Mapping[str, Array], memory: int) -> Walk:
    """Evaluate each node on what the runtime gave for its inputs, and blame the first that differs."""
    ways = own_arithmetic(file)
    sizes: dict[str, int] = {}

    def measure(step: Step) -> None:
        pairs = zip(step.node.output, step.outputs, strict=False)
        sizes.update({name: value.nbytes for name, value in pairs if isinstance(value, np.ndarray)})

    file.run(feed, after=measure)
    judge = _NodeJudge(file, ways)
    # The runtime computes with a constant as it is written, whatever was meant by it.
    written = file.as_written()
    file.run(feed, replaced=written, after=judge.after(tapped.run(feed, sizes, memory)))
    for verdict in (Verdict.EQUAL, Verdict.REDUCED_PRECISION):
        if not judge.suspicious:
            break
        compute = _as_it_is if verdict is Verdict.EQUAL else requantizing(file)
        if compute is not None:
            exact: dict[str, list[Array]] = {name: [] for name in judge.suspicious}
            moved: dict[str, list[Array]] = {name: [] for name in judge.suspicious}
            after = _keeping(exact, tapped.run(feed, sizes, memory), compute)
            file.run(feed, replaced=written, after=after)
            # What turns at a step one way turns not the other.
            for direction in (1.0, -1.0):
                after = _keeping(moved, tapped.run(feed, sizes, memory), _as_it_is, Signs(0, direction))
                rounding_spread(file, feed, ways, after, written, (direction,), compute)
            judge.settle({name: values[0] for name, values in exact.items()}, moved, verdict)
    guilty = next((row.node for row in judge.rows if row.verdict is Verdict.RUNTIME_WRONG), None)
    return Walk(guilty, judge.rows, judged_share(file, {row.node for row in judge.rows}))


def _as_it_is(step: Step) -> Step:
    return step


def _keeping(
    kept: Mapping[str, list[Array]],
    results: Results,
    compute: Callable[[Step], Step],
    signs: Signs | None = None,
) -> Callable[[Step], Sequence[Any]]:
    """Return what is to be called after each node of a walk: it notes what a node gives by itself.

    signs: which way what is handed out in 16 bits is off what nodes inside of the runtime go on with: where
    it has no kernels for these it computes in float32, and casts what it hands out.
    """

    def after(step: Step) -> Sequence[Any]:
        step = compute(step)
        for name, value in zip(step.node.output, step.outputs, strict=False):
            if name in kept:
                kept[name].append(value)
        return _handed(step, results, signs)

    return after


class _NodeJudge:
    """Judges each node by its own bound, and keeps those that are beyond it for what is fused with them."""

    def __init__(self, file: ExactFile, ways: Mapping[str, Arithmetic]) -> None:
        self._file, self._ways = file, ways
        self._read = {*file.outputs, *(name for node in file.nodes for name in reads(node))}
        self._inside: dict[str, tuple[str, ...]] = {}
        self.rows: list[NodeRow] = []
        self.suspicious: dict[str, int] = {}
        self.kept: dict[str, Array] = {}

    def after(self, results: Results) -> Callable[[Step], Sequence[Any]]:
        """Return what is to be called after each node of a walk."""

        def judge(step: Step) -> Sequence[Any]:
            node = step.node
            fused = tuple(dict.fromkeys(each for name in node.input for each in self._inside.get(name, ())))
            outputs = _handed(step, results)
            worst = (0.0, 0.0)
            seen, draws = False, self._file.draws(node)
            for place, name in enumerate(node.output):
                if name not in results or not isinstance(outputs[place], np.ndarray):
                    self._inside[name] = (*fused, node.name)
                    continue
                seen = True
                if draws or name not in self._read:
                    continue
                apart, allowed = self._compare(step, place, outputs[place])
                if bool((apart > allowed).any()):
                    apart = self._apart_from_forward(step, place, outputs[place], apart)
                worst = max(worst, (float(apart.max(initial=0.0)), float(np.max(allowed, initial=0.0))))
                if bool((apart > allowed).any()):
                    self.suspicious[name] = len(self.rows)
                    self.kept[name] = outputs[place]
            if seen:
                error, tolerance = worst
                verdict = Verdict.CANNOT_SAY if draws else Verdict.EQUAL
                row = node_row("runtime", node, verdict, fused=fused)
                self.rows.append(replace(row, error=error, tolerance=tolerance))
            return outputs

        return judge

    def _compare(self, step: Step, place: int, got: Array) -> tuple[Array, Array]:
        """Return how far apart a result is from the exact one, and how far it may be."""
        arithmetic = self._ways.get(step.node.output[place], self._ways[""])
        exact = _stored(step.outputs[place], arithmetic)
        apart = _distance(got, exact)
        if exact.dtype != np.float64 or not apart.any():
            return apart, np.zeros(())
        # NaN and infinities are no rounding's doing: they are the same or not.
        once = np.where(np.isfinite(exact), np.abs(exact) * arithmetic.storage, 0.0)
        if not bool((apart > once).any()):  # rounded once: no bound is smaller
            return apart, once
        error = local_errors(step, arithmetic)[place]
        return apart, np.zeros(()) if error is None else 4 * error

    def _apart_from_forward(self, step: Step, place: int, got: Array, apart: Array) -> Array:
        """Return how far apart a result is from the exact one, or from PyTorch's own where that is nearer.

        A forward that rounds or compares inside of it has other results in float64 where its own rounding
        errors decide: nothing of that is the runtime's.
        """
        own = self._file.by_forward(step)
        if own is None or own[place].shape != got.shape or own[place].shape != apart.shape:
            return apart
        nearer: Array = np.minimum(apart, _distance(got, own[place]))
        return nearer

    def settle(
        self, exact: Mapping[str, Array], moved: Mapping[str, Sequence[Array]], verdict: Verdict
    ) -> None:
        """Judge those that are beyond the bound of their last node by all nodes that are fused with it.

        verdict: what is said of those that are as they should be.
        """
        for name, place in list(self.suspicious.items()):
            apart, found = _distance(self.kept[name], exact[name]), verdict
            if exact[name].dtype == np.float64:
                allowed = spread_of(exact[name], moved[name])
                wrong = bool((apart > allowed).any())
            else:
                allowed = np.zeros(())
                wrong = bool((apart > elsewhere(exact[name], moved[name])).any())
                found = Verdict.CANNOT_SAY if verdict is Verdict.EQUAL else verdict
            if not wrong:
                del self.suspicious[name]
            self.rows[place] = replace(
                self.rows[place],
                verdict=Verdict.RUNTIME_WRONG if wrong else found,
                error=float(apart.max(initial=0.0)),
                tolerance=float(np.max(allowed, initial=0.0)),
            )


def _stored(exact: Array, arithmetic: Arithmetic) -> Array:
    """Return numbers with those infinite that are too large for the arithmetic that they are stored in."""
    if exact.dtype != np.float64 or arithmetic.name not in ("float16", "float32"):
        return exact
    with np.errstate(over="ignore"):
        stored = exact.astype(arithmetic.name)
    return np.where(np.isinf(stored), stored, exact)


def _handed(step: Step, results: Results, signs: Signs | None = None) -> list[Any]:
    """Return a node's results as the runtime gave them, in float64, or as they are where it doesn't.

    signs: for those of 16 bits, which way they are off by a rounding.
    """
    outputs = list(step.outputs)
    given = results.of(step.node)
    for place, name in enumerate(step.node.output):
        if name in given and isinstance(outputs[place], np.ndarray):
            got, exact = given[name], outputs[place]
            outputs[place] = got.astype(np.float64) if exact.dtype == np.float64 else got
            if signs is not None and exact.dtype == np.float64 and got.dtype.itemsize == 2:
                outputs[place] *= 1 + arithmetic_of(got.dtype).storage * signs.of(got.shape)
    return outputs


def _distance(got: Array, exact: Array) -> Array:
    """Return how far apart elements are; NaN and infinities are so only from anything else."""
    if got.shape != exact.shape:
        return np.full(exact.shape or (1,), np.inf)
    if exact.dtype.kind != "f":
        different: Array = (got != exact).astype(np.float64)
        return different
    return distance(got, exact)
