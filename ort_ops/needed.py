"""Which nodes of a model file its results need, by the file's own data flow."""

import os
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from .wire import Buffer, content_of, fields, text

__all__ = ["NodeId", "needed_nodes"]

NodeId = tuple[str, str, str]
"""Domain, operator and name of a node."""

# What of these is read may be known beforehand, or count for nothing, but for so many first inputs.
_SURELY_READ: Mapping[tuple[str, str], int] = {
    ("", "Shape"): 0,
    ("", "Size"): 0,
    ("", "Dropout"): 1,
    ("", "Reshape"): 1,
}


def needed_nodes(
    source: str | os.PathLike[str] | bytes, unknown: Container[tuple[str, str]] = ()
) -> list[NodeId]:
    """Return the nodes that the results of a model, in a file or as bytes, are surely made of.

    Not returned are those of function bodies and of If's branches, of which one may never run, nor what only
    they use. What an operator in ``unknown`` makes of its inputs isn't known: they may count for nothing.
    """
    if isinstance(source, bytes):
        return _needed(source, unknown)
    with content_of(source) as content:
        return _needed(content, unknown)


def _needed(buffer: Buffer, unknown: Container[tuple[str, str]]) -> list[NodeId]:
    graphs = (value for number, value in fields(buffer, 0, len(buffer)) if number == 7)
    found: list[NodeId] = []
    for graph in graphs:
        if isinstance(graph, slice):
            _follow(buffer, graph, unknown, found)
    return found


@dataclass
class _Node:
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    graphs: list[slice] = field(default_factory=list)
    named: dict[int, str] = field(default_factory=dict)
    """Name, operator and domain, by field."""

    @property
    def id(self) -> NodeId:
        domain = self.named.get(7, "")
        return "" if domain == "ai.onnx" else domain, self.named.get(4, ""), self.named.get(3, "")


def _follow(
    buffer: Buffer, graph: slice, unknown: Container[tuple[str, str]], found: list[NodeId]
) -> set[str]:
    """Add the needed nodes of a graph and of those inside it; returns the values that it needs."""
    parts = list(fields(buffer, graph.start, graph.stop))
    values = [dict(fields(buffer, v.start, v.stop)) for n, v in parts if n == 12 and isinstance(v, slice)]
    needed = {text(buffer, value.get(1)) for value in values}
    # A node stands behind those that it reads from.
    for node in (_node(buffer, v) for n, v in reversed(parts) if n == 1 and isinstance(v, slice)):
        if needed.isdisjoint(node.outputs):
            continue
        found.append(node.id)
        op = node.id[:2]
        if op not in unknown:
            needed.update(node.inputs[: _SURELY_READ.get(op)])
        for inner in node.graphs if op != ("", "If") else ():
            needed |= _follow(buffer, inner, unknown, found)
    return needed - {""}


def _node(buffer: Buffer, span: slice) -> _Node:
    node = _Node()
    for number, value in fields(buffer, span.start, span.stop):
        if number in (1, 2):
            (node.inputs if number == 1 else node.outputs).append(text(buffer, value))
        elif number in (3, 4, 7):
            node.named[number] = text(buffer, value)
        elif number == 5 and isinstance(value, slice):
            inside = fields(buffer, value.start, value.stop)
            node.graphs += [each for n, each in inside if n in (6, 11) and isinstance(each, slice)]
    return node
