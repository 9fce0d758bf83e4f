"""A file walked node by node: beside its model, and beside a run of it."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from .bounds import local_errors
from .counterparts import Counterparts
from .exact import ExactFile, Step
from .export_side import ExportSide
from .report import Row
from .rounding import rounding_spread, spread_of
from .runtime_side import own_arithmetic
from .sample import Sample
from .subject import Subject
from .survivors import Results, Tapped
from .tolerance import Arithmetic
from .verdict import Verdict

__all__ = ["NodeRow", "Walk", "walk_export", "walk_runtime"]

Array = NDArray[Any]
_REGION = 16  # nodes that are named besides the guilty one, at most


@dataclass(frozen=True)
class NodeRow:
    """A node, and what was found of its results.

    question: as in a check. node, op: of the file. counterpart: the operation of the model that gave the same
    (under ``"export"``). fused: nodes before it whose results the runtime doesn't hand out. error: how far a
    result is off what it should be on the node's own inputs; tolerance: how far it may be.
    """

    question: Literal["export", "runtime"]
    node: str
    op: str
    verdict: Verdict
    counterpart: str = ""
    fused: tuple[str, ...] = ()
    error: float = 0.0
    tolerance: float = 0.0


@dataclass(frozen=True)
class Walk:
    """The first guilty node of one question; see ``Located``."""

    node: str | None
    rows: Sequence[NodeRow]
    matched: float
    region: tuple[str, ...] = ()
    outputs: Sequence[Row] = field(default=())


def walk_export(subject: Subject, sample: Sample, memory: int) -> Walk:
    """Match the file's tensors with the model's, and blame the first node that leads to none that matches."""
    file = subject.exact_file
    outputs = ExportSide(file, [str(each) for each in subject.changed], plant=False).judge(sample, 0)
    wrong = {row.output for row in outputs if row.verdict is Verdict.EXPORT_WRONG}
    counterparts = Counterparts(memory)
    subject.exact_model.run(sample.given.arguments, seen=counterparts.see)
    found, fractions = _matched(file, sample, counterparts, _share(outputs))
    matched = {name for name, counterpart in found.items() if counterpart and name not in wrong}
    rows = []
    for node in file.nodes:
        names = [name for name in node.output if name in matched]
        verdict = Verdict.EQUAL if names else Verdict.CANNOT_SAY
        rows.append(_row("export", node, verdict, counterpart=found[names[0]] or "" if names else ""))
    share = _judged(file, {row.node for row in rows if row.verdict is Verdict.EQUAL})
    suspects = _suspects(file, matched, wrong, fractions)
    if not suspects:
        return Walk(None, rows, share, outputs=outputs)
    first = suspects[0]
    rows[first] = replace(rows[first], verdict=Verdict.EXPORT_WRONG)
    return Walk(file.nodes[first].name, rows, share, _region(file, suspects), outputs)


def _matched(
    file: ExactFile, sample: Sample, counterparts: Counterparts, tolerance: float
) -> tuple[dict[str, str | None], set[str]]:
    """Return for each result of the file the operation that gave the same, and which hold fractions."""
    found: dict[str, str | None] = {}
    fractions = set()

    def match(step: Step) -> None:
        for name, value in zip(step.node.output, step.outputs, strict=False):
            if name and isinstance(value, np.ndarray):
                found[name] = counterparts.find(value, tolerance)
                if value.dtype.kind == "f":
                    fractions.add(name)

    file.run(sample.feed, after=match)
    return found, fractions


def _share(outputs: Sequence[Row]) -> float:
    """Return to which share of its size a tensor has to match: what is no difference at the outputs."""
    shares = [1e-12]
    for row in outputs:
        size = max((abs(float(v)) for v in (row.expected, row.got) if v is not None), default=0.0)
        if row.dtype == "float64" and row.verdict is Verdict.EQUAL and size:
            shares.append(min(row.tolerance / size, 1e-6))
    return max(shares)


def _suspects(file: ExactFile, matched: set[str], wrong: set[str], fractions: set[str]) -> list[int]:
    """Return the places of nodes on the way to a wrong output of which nothing comes that matches.

    The guilty one is first: nothing that it is given is a suspect's. What is made of sizes alone is none.
    """
    useful, needed = _before(file, matched, fractions), _before(file, wrong, None)
    sizes = _made_of_sizes(file)
    places = [
        place
        for place, node in enumerate(file.nodes)
        if place in needed and place not in useful and not sizes.issuperset(_results(node))
    ]
    bad = {name for place in places for name in file.nodes[place].output}
    return sorted(places, key=lambda place: (bool(bad & set(file.nodes[place].input)), place))


def _before(file: ExactFile, results: set[str], fractions: set[str] | None) -> set[int]:
    """Return the places of the nodes that some results depend on.

    With ``fractions``, the results that hold some, an integer or boolean says nothing of the fractions that
    it was made of: many give the same.
    """
    needed = set(results)
    found = set()
    for place in reversed(range(len(file.nodes))):
        node = file.nodes[place]
        ours = needed & set(_results(node))
        if ours:
            found.add(place)
            all_inputs = fractions is None or ours & fractions
            needed.update(node.input if all_inputs else set(node.input) - (fractions or set()))
    return found


def _judged(file: ExactFile, nodes: set[str]) -> float:
    """Return the share of these nodes among those that handle more than constants and sizes."""
    sizes = _made_of_sizes(file)
    real = [node.name for node in file.nodes if not sizes.issuperset(_results(node))]
    return sum(name in nodes for name in real) / max(len(real), 1)


def _made_of_sizes(file: ExactFile) -> set[str]:
    """Return the results that are made of sizes and constants alone."""
    found = {"", *file.model.graph.initializers}
    for node in file.nodes:
        if node.op_type in ("Shape", "Size") or found.issuperset(node.input):
            found.update(node.output)
    return found


def _region(file: ExactFile, suspects: Sequence[int]) -> tuple[str, ...]:
    """Return the guilty node and those that come of it."""
    reached = set(file.nodes[suspects[0]].output)
    names = [file.nodes[suspects[0]].name]
    for place in sorted(suspects[1:]):
        node = file.nodes[place]
        if reached & set(node.input):
            reached.update(node.output)
            names.append(node.name)
    return tuple(itertools.islice(names, _REGION))


def walk_runtime(file: ExactFile, tapped: Tapped, feed: Mapping[str, Array], memory: int) -> Walk:
    """Evaluate each node on what the runtime gave for its inputs, and blame the first that differs."""
    ways = own_arithmetic(file)
    sizes: dict[str, int] = {}

    def measure(step: Step) -> None:
        pairs = zip(step.node.output, step.outputs, strict=False)
        sizes.update({name: value.nbytes for name, value in pairs if isinstance(value, np.ndarray)})

    file.run(feed, after=measure)
    judge = _NodeJudge(file, ways)
    file.run(feed, after=judge.after(tapped.run(feed, sizes, memory)))
    if judge.suspicious:
        exact: dict[str, Array] = {}
        moved: dict[str, list[Array]] = {name: [] for name in judge.suspicious}
        given = judge.kept

        def again(keep: Callable[[str, Array], None]) -> Callable[[Step], Sequence[Any]]:
            results = [tapped.run(feed, sizes, memory)]

            def after(step: Step) -> Sequence[Any]:
                if step.node is file.nodes[0]:  # each walk takes the run from its start
                    results[0] = tapped.run(feed, sizes, memory)
                for name, value in zip(step.node.output, step.outputs, strict=False):
                    if name in judge.suspicious:
                        keep(name, value)
                return _handed(step, results[0])

            return after

        file.run(feed, after=again(exact.__setitem__))
        rounding_spread(file, feed, ways, then=again(lambda name, value: moved[name].append(value)))
        judge.settle(given, exact, moved)
    guilty = next((row.node for row in judge.rows if row.verdict is Verdict.RUNTIME_WRONG), None)
    return Walk(guilty, judge.rows, _judged(file, {row.node for row in judge.rows}))


class _NodeJudge:
    """Judges each node by its own bound, and keeps those that are beyond it for what is fused with them."""

    def __init__(self, file: ExactFile, ways: Mapping[str, Arithmetic]) -> None:
        self._ways = ways
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
            seen = False
            for place, name in enumerate(node.output):
                if name not in results:
                    self._inside[name] = (*fused, node.name)
                    continue
                seen = True
                apart, allowed = self._compare(step, place, outputs[place])
                worst = max(worst, (float(apart.max(initial=0.0)), float(np.max(allowed, initial=0.0))))
                if bool((apart > allowed).any()):
                    self.suspicious[name] = len(self.rows)
                    self.kept[name] = outputs[place]
            if seen:
                error, tolerance = worst
                row = _row("runtime", node, Verdict.EQUAL, fused=fused)
                self.rows.append(replace(row, error=error, tolerance=tolerance))
            return outputs

        return judge

    def _compare(self, step: Step, place: int, got: Array) -> tuple[Array, Array]:
        """Return how far apart a result is from the exact one, and how far it may be."""
        exact = step.outputs[place]
        apart = _distance(got, exact)
        if exact.dtype != np.float64 or not apart.any():
            return apart, np.zeros(())
        arithmetic = self._ways.get(step.node.output[place], self._ways[""])
        once = np.abs(exact) * arithmetic.storage
        if not bool((apart > once).any()):  # rounded once: no bound is smaller
            return apart, once
        error = local_errors(step, arithmetic)[place]
        return apart, np.zeros(()) if error is None else 4 * error

    def settle(
        self, given: Mapping[str, Array], exact: Mapping[str, Array], moved: Mapping[str, Sequence[Array]]
    ) -> None:
        """Judge those that are beyond the bound of their last node by all nodes that are fused with it."""
        for name, place in self.suspicious.items():
            apart = _distance(given[name], exact[name])
            if exact[name].dtype == np.float64:
                allowed = spread_of(exact[name], moved[name])
                verdict = Verdict.RUNTIME_WRONG if bool((apart > allowed).any()) else Verdict.EQUAL
            else:
                allowed = np.zeros(())
                undecided = any(not np.array_equal(each, exact[name]) for each in moved[name])
                verdict = Verdict.CANNOT_SAY if undecided else Verdict.RUNTIME_WRONG
            self.rows[place] = replace(
                self.rows[place],
                verdict=verdict,
                error=float(apart.max(initial=0.0)),
                tolerance=float(np.max(allowed, initial=0.0)),
            )


def _handed(step: Step, results: Results) -> list[Any]:
    """Return a node's results as the runtime gave them, in float64, or as they are where it doesn't."""
    outputs = list(step.outputs)
    for place, name in enumerate(step.node.output):
        if name in results:
            got, exact = results.take(name), outputs[place]
            wide = isinstance(exact, np.ndarray) and exact.dtype == np.float64
            outputs[place] = got.astype(np.float64) if wide else got
    return outputs


def _distance(got: Array, exact: Array) -> Array:
    """Return how far apart elements are; NaN and infinities are so only from anything else."""
    if got.shape != exact.shape:
        return np.full(exact.shape or (1,), np.inf)
    if exact.dtype.kind != "f":
        different: Array = (got != exact).astype(np.float64)
        return different
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(
            same, 0.0, np.where(np.isfinite(got) & np.isfinite(exact), np.abs(got - exact), np.inf)
        )


def _results(node: NodeProto) -> list[str]:
    return [name for name in node.output if name]


def _row(
    question: Literal["export", "runtime"],
    node: NodeProto,
    verdict: Verdict,
    *,
    counterpart: str = "",
    fused: tuple[str, ...] = (),
) -> NodeRow:
    return NodeRow(
        question, node.name, f"{node.domain or 'ai.onnx'}::{node.op_type}", verdict, counterpart, fused
    )
