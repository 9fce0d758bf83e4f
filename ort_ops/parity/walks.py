"""What a walk through a file finds of its nodes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from onnx import NodeProto

from .exact import ExactFile
from .graphs import reads, standard
from .report import Row
from .verdict import Verdict

__all__ = ["NodeRow", "Walk", "judged_share", "made_of_sizes", "node_row", "results_of"]


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


def results_of(node: NodeProto) -> list[str]:
    """Return the names of a node's results."""
    return [name for name in node.output if name]


def node_row(
    question: Literal["export", "runtime"],
    node: NodeProto,
    verdict: Verdict,
    *,
    counterpart: str = "",
    fused: tuple[str, ...] = (),
) -> NodeRow:
    """Return a row for a node."""
    return NodeRow(
        question, node.name, f"{node.domain or 'ai.onnx'}::{node.op_type}", verdict, counterpart, fused
    )


def judged_share(file: ExactFile, nodes: set[str]) -> float:
    """Return the share of these nodes among those that handle more than constants and sizes."""
    sizes = made_of_sizes(file)
    real = [node.name for node in file.nodes if not sizes.issuperset(results_of(node))]
    return sum(name in nodes for name in real) / max(len(real), 1)


def made_of_sizes(file: ExactFile) -> set[str]:
    """Return the results that are made of sizes and constants alone."""
    found = {"", *file.model.graph.initializers}
    for node in file.nodes:
        if standard(node) in ("Shape", "Size") or found.issuperset(reads(node)):
            found.update(node.output)
    return found
