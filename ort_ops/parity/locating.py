"""Which node is to blame: the first of a file that is wrong, under either question."""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from torch import nn

from ort_ops.errors import ParityError
from ort_ops.selection import Prefer

from .chance import by_chance, by_open_order
from .evaluated import evaluate
from .exact import ExactFile
from .export_side import ExportSide
from .given import Given
from .original import as_arrays, run_model
from .report import Row, finite, worst_rows
from .runs import make_run, refusals, settings
from .runtime_side import Expectations, RuntimeSide
from .sample import Sample
from .subject import File, Subject
from .survivors import Tapped
from .verdict import GOOD, ExitCode, Verdict
from .walk_export import walk_export
from .walk_runtime import walk_runtime
from .walks import NodeRow, Walk

__all__ = ["Located", "locate"]

_MEMORY = 2**30
Question: TypeAlias = Literal["export", "runtime"]


@dataclass(frozen=True)
class Located:
    """The first guilty node by name, or None; the question under which it is, and a row for each node.

    matched: for each question the share of the file's nodes that could be judged: that have a counterpart in
    the model, or whose results the runtime hands out; nodes of constants and sizes alone don't count.
    region: the guilty node and those that come of it, none of which has a counterpart: where the model takes
    one step for several of the file it may be one of these. outputs: the file's outputs beside the model's,
    and where no node of a run is guilty, the run's beside the file's. provider: of the run in which the node
    is guilty, empty under ``"export"``.
    """

    node: str | None
    question: Question | None
    rows: tuple[NodeRow, ...] = field(repr=False)
    matched: Mapping[str, float]
    region: tuple[str, ...]
    outputs: tuple[Row, ...]
    provider: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """Return what a command exits with; where no node is to blame and not all is well, "cannot say".

        A node of which nothing can be said, as of a code that a rounding error turned, is nobody's concern
        where all outputs are as they should be.
        """
        if self.node is not None:
            return ExitCode.WRONG
        compared = any(row.elements for row in self.outputs) if self.outputs else bool(self.rows)
        return ExitCode.CANNOT_SAY if self.unsettled or not compared else ExitCode.EQUAL

    @property
    def unsettled(self) -> tuple[Row, ...]:
        """Return the outputs that are not what they should be, or of which nothing can be said."""
        return tuple(row for row in self.outputs if row.verdict not in GOOD)

    def __str__(self) -> str:
        """Say which node is guilty and what comes of it, or which outputs are not settled."""
        if self.node is not None:
            op = next(row.op for row in self.rows if (row.node, row.question) == (self.node, self.question))
            after = f", with what comes of it: {', '.join(self.region[1:])}" if self.region[1:] else ""
            where = f" on {self.provider}" if self.provider else ""
            return f"guilty: {self.node} ({op}), {self.question}{where}{after}"
        if self.exit_code is ExitCode.EQUAL:
            return "no node is guilty"
        lines = [f"{row.question} {row.output}: {row.verdict}, {row.reason}" for row in self.unsettled]
        return "\n".join([*lines, "no node can be blamed, and not all of them can be cleared"])

    def to_json(self) -> str:
        """Return everything as JSON; a number that JSON has no name for is a string."""
        return json.dumps(finite(asdict(self)), indent=2, allow_nan=False)


def locate(
    model: nn.Module,
    file: File,
    inputs: Any = None,
    providers: Sequence[str] = ("cpu",),
    *,
    functions: Iterable[type] | None = None,
    trust: Iterable[str] = (),
    libraries: Sequence[str | os.PathLike[str]] = (),
    prefer: Prefer = "kernel",
    ranges: Mapping[str, tuple[float, float]] | None = None,
    dims: Mapping[str, int] | None = None,
    questions: Sequence[Question] = ("export", "runtime"),
    seeds: int = 3,
    memory: int = _MEMORY,
) -> Located:
    """Find the first node of a file that is wrong, by the first sample that shows it.

    The arguments are those of ``check``.

    *Export*: the file is walked in float64 beside the model in float64, and their tensors matched by value.
    The node to blame has no counterpart, nor has anything that comes of it, though what it is given has one;
    a part that is taken of a result (Slice, Split, Gather) clears it only with all other parts.
    *Runtime*: the file is run with every tensor as an output that is there after optimisation, and each node
    evaluated in float64 on the runtime's own inputs, so that errors of earlier nodes are not held against it.
    Fused kernels stay fused; what is inside of one is judged at its end. Where no node is guilty, a run is
    judged as ``check`` does.

    questions: those that are asked; the second alone needs no copy of the model in float64. seeds: how many
    samples are made up, where there are no inputs.
    memory: bytes of results that are held at a time.

    Raises what ``check`` raises, and ParityError for a session that can't be made, or fails.
    """
    if isinstance(questions, str) or not questions or not {*questions} <= {"export", "runtime"}:
        raise ParityError(f"questions={questions!r}; expected some of 'export' and 'runtime', in a list")
    asked = settings(providers) if "runtime" in questions else []
    subject = Subject(
        model,
        file,
        inputs,
        count=seeds,
        ranges=ranges,
        dims=dims,
        functions=functions,
        trust=trust,
        prefer=prefer,
    )
    walks: list[tuple[Question, str, Walk]] = []
    samples: Sequence[Sample] = ()
    if "export" in questions:
        walk, samples, place = _walk_export(subject, memory)
        walks.append(("export", "", walk))
        if walk.node is not None:  # the others would say nothing else
            samples = samples[place : place + 1]
    given = [sample.given for sample in samples] or subject.given
    expectations = Expectations(subject.exact_file)
    for setting in asked:
        try:
            tapped = Tapped(subject.content, setting, libraries, subject.options)
            with contextlib.closing(tapped), refusals("the run fails"):
                walk = _walk_runtime(subject.exact_file, tapped, given, memory)
        except ParityError:
            if any(walk.node is not None for *_, walk in walks):
                break  # the file is wrong, whether it can be run or not
            raise
        if walk.node is None and all(other.node is None for *_, other in walks):
            samples = samples or [_sample(subject, each) for each in given]
            run = make_run(subject.source, setting, libraries, subject.options)
            side = RuntimeSide(expectations, run)
            judged = [side.judge(sample, number) for number, sample in enumerate(samples)]
            walk = replace(walk, outputs=worst_rows(judged))
        walks.append(("runtime", str(setting), walk))
    guilty = next((each for each in walks if each[-1].node is not None), None)
    matched: dict[str, float] = {}
    for question, _, walk in walks:
        matched[question] = min(matched.get(question, 1.0), walk.matched)
    return Located(
        node=guilty[-1].node if guilty else None,
        question=guilty[0] if guilty else None,
        rows=tuple(row for *_, walk in walks for row in walk.rows),
        matched=matched,
        region=guilty[-1].region if guilty else (),
        outputs=tuple(row for *_, walk in walks for row in walk.outputs),
        provider=guilty[1] if guilty else "",
    )


def _walk_export(subject: Subject, memory: int) -> tuple[Walk, Sequence[Sample], int]:
    """Walk the file beside the model in float64, which is held no longer, by the sample that is wrong.

    Returns the samples, too, and the place of that one.
    """
    model = subject.exact_model()
    evaluated = evaluate(subject, model)
    side = ExportSide(subject, evaluated, plant=False)
    judged: list[list[Row]] = []
    place = 0
    for number, sample in enumerate(evaluated.samples):
        judged.append(side.judge(sample, number))
        if any(row.verdict is Verdict.EXPORT_WRONG for row in judged[-1]):
            place = number
            break
    walk = walk_export(subject, model, evaluated, evaluated.samples[place], judged[place], memory)
    if walk.node is None:
        walk = replace(walk, outputs=worst_rows(judged))
    return walk, evaluated.samples, place


def _walk_runtime(file: ExactFile, tapped: Tapped, given: Sequence[Given], memory: int) -> Walk:
    """Walk runs on what is given until a node is guilty; the first walk where none is."""
    walks = (walk_runtime(file, tapped, each.feed, memory) for each in given)
    first = next(walks)
    found = first if first.node is not None else next((walk for walk in walks if walk.node is not None), None)
    return found or first


def _sample(subject: Subject, given: Given) -> Sample:
    """Return a sample without the model in float64."""
    file, own = subject.exact_file, as_arrays(run_model(subject.model, given.arguments))
    outputs = file.run(given.feed)
    chance = {**by_open_order(file, given.feed, outputs), **by_chance(file, given.feed, outputs)}
    return Sample(given, own, (), outputs, chance)
