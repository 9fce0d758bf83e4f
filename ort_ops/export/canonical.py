"""One form for the files of both exporters: what is the exporter's and not the model's goes.

Names, order, shapes and the header. Where both exporters write the same nodes, the files are equal, byte by
byte; what an exporter notes for its own use (stack traces with local paths, modules' names) is gone.
"""

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from onnx import defs
from onnx_ir.passes import common as passes
from torch import Tensor
from torch.export import ExportedProgram

from ort_ops.errors import ExportError
from ort_ops.runtime import release_of

from .calls import ELEMENT_TYPES, Call, to_array
from .nodes import nodes_of
from .shapes import infer_types
from .symbolic import Whole

__all__ = ["Named", "canonicalize", "initializers_apart", "parameters_of"]

_OURS = "ort_ops."
_NUMBER = re.compile(r"[._]\d+$")


@dataclass(frozen=True)
class Named:
    """A parameter or buffer, and the first name that it has in the state_dict."""

    name: str
    tensor: Tensor


def canonicalize(
    model: ir.Model, held: Mapping[str, Named], calls: Sequence[tuple[Call, Whole, Sequence[ir.Node]]]
) -> None:
    """Bring a model into the one form, in place.

    Nodes are named by type and count (``Relu_0``), values by their node, initializers as ``held`` says, or
    by the node that reads them first; graph inputs and outputs keep their names. Types are those that ONNX
    infers, completed by the exporter's; a size that is no input's has no symbol, since each exporter invents
    its own.

    held: the model's parameters and buffers, by every name that they have.
    calls: those that a node stands for wholly, with their nodes.

    Raises ExportError where a parameter has the name of an input or an output.
    """
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveUnusedNodesPass()(model)
    graph = model.graph
    graph.name = "main_graph"
    _name_initializers(graph, held)
    _name_nodes(graph, {value.name or "" for value in (*graph.inputs, *graph.outputs, *_initializers(graph))})
    infer_types(model, calls)
    _strip(model)
    for node in nodes_of(model):
        _order_attributes(node, model.opset_imports.get("", 1))
    model.producer_name, model.producer_version = "ort-ops", release_of("ort-ops")


def _initializers(graph: ir.Graph) -> list[ir.Value]:
    return list(graph.initializers.values())


def parameters_of(model: Any) -> dict[str, Named]:
    """Return the parameters and buffers of a model by every name that they have."""
    if isinstance(model, ExportedProgram):
        both = {**model.state_dict, **model.constants}
        return {name: Named(name, each) for name, each in both.items() if isinstance(each, Tensor)}
    if not isinstance(model, torch.nn.Module):
        return {}
    first: dict[int, str] = {}
    named = itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    return {name: Named(first.setdefault(id(tensor), name), tensor) for name, tensor in named}


@contextlib.contextmanager
def initializers_apart(canonical: bool) -> Iterator[None]:
    """Keep the newer exporter's optimizer from merging equal initializers: each has its own name."""
    with contextlib.ExitStack() as undo:
        if canonical:
            own = passes.DeduplicateInitializersPass
            undo.callback(setattr, passes, "DeduplicateInitializersPass", own)
            setattr(passes, "DeduplicateInitializersPass", _NothingPass)  # noqa: B010
        yield


class _NothingPass(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, modified=False)


def _name_initializers(graph: ir.Graph, held: Mapping[str, Named]) -> None:
    """Put initializers in the order in which nodes read them, under the names of the state_dict."""
    ends = {value.name for value in (*graph.inputs, *graph.outputs)}
    order: dict[ir.Value, str] = {}
    counts: Counter[str] = Counter()
    written = set(graph.initializers)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        own = f"{node.op_type}_{counts[node.op_type]}"
        counts[node.op_type] += 1
        for place, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and value.graph is graph:
                order.setdefault(value, _state_name(value, held, written) or f"{own}_input_{place}")
    for value in graph.outputs:
        if value.is_initializer():
            order.setdefault(value, value.name or "")
    clashes = [name for value, name in order.items() if name in ends and not value.is_graph_output()]
    if clashes:
        raise ExportError(
            f"a parameter is named {clashes[0]!r}, as an input or output of the file is; "
            "expected another name"
        )
    graph.initializers.clear()
    first: dict[str, ir.Value] = {}
    for value, name in order.items():
        same = first.setdefault(name, value)
        if same is value:
            value.name = name
            graph.register_initializer(value)
        elif _equal(same, value):  # another name of the same parameter
            value.replace_all_uses_with(same)
        else:
            raise ExportError(f"the exporter wrote two different tensors for the parameter {name!r}")


def _state_name(value: ir.Value, held: Mapping[str, Named], written: set[str]) -> str | None:
    """Return the first name in the state_dict of what an initializer was made of; None for a constant.

    An exporter appends a number to a name that it also has for something else, and numbers constants, too.
    """
    name = value.name or ""
    if name in held:
        return held[name].name
    stem = _NUMBER.sub("", name)
    return (
        held[stem].name if stem in held and stem not in written and _has(value, held[stem].tensor) else None
    )


def _has(value: ir.Value, tensor: Tensor) -> bool:
    """Tell whether an initializer has what a tensor has."""
    there = value.const_value
    if there is None or there.dtype != ELEMENT_TYPES.get(tensor.dtype) or there.shape != tuple(tensor.shape):
        return False
    same: bool = there.numpy().tobytes() == to_array(tensor).tobytes()
    return same


def _equal(one: ir.Value, other: ir.Value) -> bool:
    mine, theirs = one.const_value, other.const_value
    return (
        mine is not None
        and theirs is not None
        and mine.dtype == theirs.dtype
        and mine.shape == theirs.shape
        and mine.tobytes() == theirs.tobytes()
    )


def _name_nodes(graph: ir.Graph, taken: set[str]) -> None:
    """Name nodes by type and count, and values by their node; those inside of a node by it, too."""
    inner = set(_inner_values(graph))
    counts: Counter[str] = Counter()
    for node in ir.traversal.RecursiveGraphIterator(graph):
        node.name = f"{node.op_type}_{counts[node.op_type]}"
        counts[node.op_type] += 1
        for subgraph in _subgraphs(node):
            subgraph.name = node.name
            for place, value in enumerate(subgraph.inputs):
                value.name = _free(f"{node.name}_input_{place}", taken)
        for place, value in enumerate(node.outputs):
            if value in inner:
                value.name = _free(f"{node.name}_{place}" if place else node.name, taken)


def _inner_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Give the results of all nodes, but for those that the file gives and those that a node leaves out."""
    ends = set(graph.outputs)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        yield from (value for value in node.outputs if value.name and value not in ends)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _order_attributes(node: ir.Node, opset: int) -> None:
    """Put a node's attributes in the order of their names, without those that have ONNX's default value."""
    kept = sorted(node.attributes.values(), key=lambda attribute: attribute.name)
    if node.domain == "" and defs.has(node.op_type, opset):
        defaults = defs.get_schema(node.op_type, opset).attributes
        kept = [
            attribute
            for attribute in kept
            if attribute.name not in defaults
            or defaults[attribute.name].default_value != ir.to_proto(attribute)
        ]
    node.attributes.clear()
    node.attributes.update({attribute.name: attribute for attribute in kept})


def _strip(model: ir.Model) -> None:
    """Drop notes that don't change what the file computes; ours on nodes say what they stand for."""
    graphs: list[Any] = [model.graph, *model.functions.values()]
    for owner in (model, *graphs):
        owner.metadata_props.clear()
        owner.doc_string = None
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _strip_value(value)
    for node in nodes_of(model):
        for key in [key for key in node.metadata_props if not key.startswith(_OURS)]:
            del node.metadata_props[key]
        node.doc_string = None
        for attribute in node.attributes.values():
            attribute.doc_string = None
        for inner in _subgraphs(node):
            inner.metadata_props.clear()
            inner.doc_string = None
            for value in inner.inputs:
                _strip_value(value)
        for value in node.outputs:
            _strip_value(value)


def _strip_value(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None
