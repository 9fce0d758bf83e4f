"""The nodes of a model, wherever they are."""

import itertools
from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["nodes_of"]


def nodes_of(model: ir.Model) -> Iterator[ir.Node]:
    """Give every node of the graph, of graphs inside it, and of functions."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    return itertools.chain.from_iterable(ir.traversal.RecursiveGraphIterator(graph) for graph in graphs)
