"""What is read off a file's graph: precisions, who reads which value, and the graph without its weights."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

__all__ = [
    "all_values",
    "input_names",
    "last_uses",
    "name_nodes",
    "places_before",
    "precisions",
    "read_tensor",
    "reads",
    "standard",
    "without_weights",
]

_FLOATING = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def read_tensor(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """Return a tensor's values; what lies in a file besides isn't kept in memory for the next time."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    array = tensor.numpy().copy()
    tensor.release()
    return array


def all_values(graph: ir.Graph) -> Iterable[ir.Value]:
    """Give the inputs, the initializers and the results of nodes of a graph."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def input_names(graph: ir.Graph) -> list[str]:
    """Return the names of the inputs that a caller gives."""
    return [value.name or "" for value in graph.inputs if not value.is_initializer()]


def standard(node: NodeProto | ir.Node) -> str:
    """Return the operator of ONNX that a node is of; nothing for another domain's of the same name."""
    return node.op_type if node.domain in ("", "ai.onnx") else ""


def precisions(graph: ir.Graph) -> dict[str, ir.DataType]:
    """Return the precision of floating-point values: as the file says it, or as it comes of what it says."""
    found = {
        value.name or "": value.dtype
        for value in all_values(graph)
        if value.dtype in _FLOATING and value.dtype
    }
    for node in graph:
        to = node.attributes.get("to") if standard(node) == "Cast" else None
        given = (found[value.name] for value in node.inputs if value is not None and value.name in found)
        dtype = ir.DataType(to.as_int()) if to is not None else next(given, None)
        for output in node.outputs:
            if output.dtype is None and dtype in _FLOATING:
                found.setdefault(output.name or "", dtype)
    return found


def name_nodes(graph: ir.Graph) -> None:
    """Give each node a name of its own, by which it is talked about."""
    names = Counter(node.name for node in graph)
    for place, node in enumerate(graph):
        if not node.name or names[node.name] > 1:
            node.name = f"{node.op_type}#{place}"


def without_weights(model: ir.Model) -> ModelProto:
    """Return the model with its initializers as inputs, for the evaluator to look at the nodes only."""
    graph = model.graph
    for inner in graph.subgraphs():  # whose weights stay where they are, and aren't read from other files
        for value in inner.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(read_tensor(value.const_value), name=value.name)
    bare = onnx.GraphProto(name="graph")
    bare.node.extend(ir.to_proto(node) for node in graph)
    for name in dict.fromkeys([*(value.name for value in graph.inputs), *graph.initializers]):
        bare.input.append(onnx.ValueInfoProto(name=name))
    bare.output.extend(onnx.ValueInfoProto(name=value.name) for value in graph.outputs)
    imports = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    functions = [ir.to_proto(function) for function in model.functions.values()]
    return helper.make_model(bare, opset_imports=imports, functions=functions)


def reads(node: NodeProto) -> Iterable[str]:
    """Give the names that a node reads, those that graphs inside of it read included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                yield from reads(inner)
            yield from (output.name for output in graph.output)


def places_before(nodes: Sequence[NodeProto], results: Iterable[str]) -> set[int]:
    """Return the places of the nodes that some results depend on."""
    needed, found = {name for name in results if name}, set[int]()
    for place in reversed(range(len(nodes))):
        if needed & set(nodes[place].output):
            found.add(place)
            needed.update(name for name in reads(nodes[place]) if name)
    return found


def last_uses(nodes: Sequence[NodeProto], kept: Iterable[str]) -> list[list[str]]:
    """Return for each node the names that nothing reads after it."""
    last: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in (*reads(node), *node.output):
            last[name] = place
    found: list[list[str]] = [[] for _ in nodes]
    left = {"", *kept}
    for name, place in last.items():
        if name not in left:
            found[place].append(name)
    return found
