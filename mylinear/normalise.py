"""One form for the files that PyTorch's two exporters write, so that both write the same bytes.

Works on the onnx.ModelProto alone: names, order, shapes, the function body and the header. What an
exporter notes for its own use (stack traces with local paths, module names) goes.
"""

import importlib.metadata
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from typing import Any, TypeVar

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from ort_ops.errors import ExportError

from .bodies import OP_TYPE, shape_body

_T = TypeVar("_T")

__all__ = ["BATCH", "CAPTURE_DOMAIN", "INPUT", "OUTPUT", "find_nodes", "normalise"]

INPUT, OUTPUT, BATCH = "x", "y", "batch"
CAPTURE_DOMAIN = "mylinear"
"""The domain in which LinearF.symbolic, and so both exporters, write the node."""

# Shape inference reads the values of small initializers (the sizes that a Reshape is given); larger ones
# are weights, which it must not be made to copy.
_MAX_SHAPE_VALUES = 64
_FUNCTION_IR = 8  # the first IR version with model-local functions


def find_nodes(model: ModelProto) -> list[NodeProto]:
    """Return the MYLINEAR nodes that an exporter wrote, in the order of the graph."""
    return [n for n in model.graph.node if (n.domain, n.op_type) == (CAPTURE_DOMAIN, OP_TYPE)]


def normalise(
    model: ModelProto, operands: Sequence[Mapping[int, TensorProto]], *, domain: str, opset: int
) -> None:
    """Bring an exporter's file, with one input and one output, into the one form, in place.

    model: what the exporter wrote, with the MYLINEAR nodes in ``CAPTURE_DOMAIN``.
    operands: for each MYLINEAR node in order, the initializers that are known to be its inputs, by the
        input's index (1 weight, 2 bias).
    domain: the domain that the MYLINEAR nodes and their function get; "" gets no function.
    opset: the version of the default domain that ``model`` imports.

    Raises ExportError when an initializer in the file isn't the one that the call was given, when a
    parameter has the name of a value, or when the opset can't express the function body.
    """
    _bind(model, operands)
    _prune(model.graph)
    _rename(model.graph)
    _infer_types(model, opset)
    _strip(model)
    _finish(model, domain, opset)


def _bind(model: ModelProto, operands: Sequence[Mapping[int, TensorProto]]) -> None:
    """Give every MYLINEAR node its own weight and bias, under their state_dict names.

    Both exporters merge initializers of equal value (two biases that are still zero) and name a tied
    weight each in its own way.
    """
    _unmerge(model.graph)
    written = {initializer.name: initializer for initializer in model.graph.initializer}
    for node, known in zip(find_nodes(model), operands, strict=True):
        node.ClearField("attribute")  # the mark that kept equal calls apart
        for index, initializer in known.items():
            _check_same(written.get(node.input[index]), initializer)
            node.input[index] = initializer.name
            if initializer.name not in written:
                model.graph.initializer.append(initializer)
                written[initializer.name] = initializer


def _unmerge(graph: GraphProto) -> None:
    """Turn each Identity of an initializer, the TorchScript exporter's mark of a merge, into a copy."""
    written = {initializer.name: initializer for initializer in graph.initializer}
    ends = {value.name for value in graph.output}
    for node in list(graph.node):
        if node.op_type == "Identity" and node.input[0] in written and node.output[0] not in ends:
            copy = graph.initializer.add()
            copy.CopyFrom(written[node.input[0]])
            copy.name = node.output[0]
            graph.node.remove(node)


def _check_same(written: TensorProto | None, called: TensorProto) -> None:
    """Refuse a file whose nodes are not in the order of the calls: each would get another's weights."""
    if written is None:  # the exporter put a node in between
        return
    if list(written.dims) != list(called.dims) or written.raw_data != called.raw_data:
        raise ExportError(
            f"{OP_TYPE}: the file has {written.name} {list(written.dims)} where the model passed "
            f"{called.name} {list(called.dims)}; expected nodes in the order of the calls"
        )


def _prune(graph: GraphProto) -> None:
    """Drop nodes and initializers that the output doesn't need; put initializers in order of use."""
    needed = {graph.output[0].name}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(_reads(node))
            kept.append(node)
    nodes = kept[::-1]
    order = {
        name: place for place, name in enumerate(dict.fromkeys(n for node in nodes for n in _reads(node)))
    }
    initializers = sorted((i for i in graph.initializer if i.name in order), key=lambda i: order[i.name])
    _replace(graph.node, nodes)
    _replace(graph.initializer, initializers)


def _reads(node: NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those that its subgraphs read included."""
    yield from node.input
    for subgraph in _subgraphs(node):
        for inner in subgraph.node:
            yield from _reads(inner)
        yield from (output.name for output in subgraph.output)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _rename(graph: GraphProto) -> None:
    """Name nodes by type and count (Relu_0), values by their node, the input x and the output y."""
    names = {graph.input[0].name: INPUT, graph.output[0].name: OUTPUT}
    graph.name = "main_graph"
    _rename_nodes(graph, names, Counter())
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    _check_names(graph)


def _check_names(graph: GraphProto) -> None:
    """Refuse a parameter that bears the name of a value: the file would have two things of one name."""
    values = {INPUT, *(name for node in graph.node for name in node.output)}
    for initializer in graph.initializer:
        if initializer.name in values:
            raise ExportError(
                f"a parameter is named {initializer.name!r}, as a value in the file is; expected another name"
            )


def _rename_nodes(graph: GraphProto, names: dict[str, str], counts: Counter[str]) -> None:
    """Rename the nodes of one graph; ``names`` maps old names of values to new ones and grows."""
    for node in graph.node:
        node.name = f"{node.op_type}_{counts[node.op_type]}"
        counts[node.op_type] += 1
        node.input[:] = [names.get(name, name) for name in node.input]
        for subgraph in _subgraphs(node):
            _rename_subgraph(subgraph, node.name, dict(names), counts)
        for place, name in enumerate(node.output):
            if name:
                names.setdefault(name, f"{node.name}_{place}" if place else node.name)
        node.output[:] = [names.get(name, name) for name in node.output]


def _rename_subgraph(graph: GraphProto, owner: str, names: dict[str, str], counts: Counter[str]) -> None:
    """Rename a branch or a loop body of the node ``owner``; it sees the names of the graph around it."""
    names |= {value.name: f"{owner}_input_{place}" for place, value in enumerate(graph.input)}
    graph.name = owner
    _rename_nodes(graph, names, counts)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)


def _infer_types(model: ModelProto, opset: int) -> None:
    """Fill in element type and shape of every value, the output included, by ONNX's own inference.

    Where inference doesn't know a size that the exporter knew, the exporter's stands.
    """
    graph = model.graph
    inferred = _types(onnx.shape_inference.infer_shapes(_without_weights(model, opset), data_prop=True).graph)
    written = _types(graph)
    known = {name: _merge(inferred.get(name), written.get(name)) for name in {*inferred, *written}}
    values = [name for node in graph.node for name in node.output if name in known and name != OUTPUT]
    graph.output[0].type.CopyFrom(known[OUTPUT])
    _replace(graph.value_info, [ValueInfoProto(name=name, type=known[name]) for name in values])


def _types(graph: GraphProto) -> dict[str, TypeProto]:
    return {value.name: value.type for value in (*graph.value_info, *graph.output)}


def _without_weights(model: ModelProto, opset: int) -> ModelProto:
    """Copy a model for shape inference: without its weights, its shapes, or a MYLINEAR that it can't read."""
    graph = model.graph
    small = [i for i in graph.initializer if math.prod(i.dims) <= _MAX_SHAPE_VALUES]
    large = [i for i in graph.initializer if math.prod(i.dims) > _MAX_SHAPE_VALUES]
    inputs = [onnx.helper.make_tensor_value_info(i.name, i.data_type, i.dims) for i in large]
    bare = GraphProto(name=graph.name, node=graph.node, initializer=small, input=[*graph.input, *inputs])
    element_type = graph.output[0].type.tensor_type.elem_type
    bare.output.append(onnx.helper.make_tensor_value_info(OUTPUT, element_type, None))
    functions = [shape_body(domain=CAPTURE_DOMAIN, opset=opset)]
    return ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, graph=bare, functions=functions
    )


def _merge(inferred: TypeProto | None, written: TypeProto | None) -> TypeProto:
    """Take inference's type and shape; fill what it doesn't know from the exporter's.

    Symbolic sizes other than the batch get no name: each exporter invents its own.
    """
    merged = TypeProto()
    if inferred is not None and (written is None or inferred.tensor_type.HasField("shape")):
        merged.CopyFrom(inferred)
    elif written is not None:
        merged.CopyFrom(written)
    dims = merged.tensor_type.shape.dim
    hints = written.tensor_type.shape.dim if written is not None else ()
    for place, dim in enumerate(dims):
        if not _is_known(dim) and len(hints) == len(dims):
            dim.CopyFrom(hints[place])
        if not _is_known(dim):
            dim.Clear()
    return merged


def _is_known(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return dim.HasField("dim_value") or dim.dim_param == BATCH


def _strip(message: Any) -> None:
    """Drop notes that don't change what the file computes, in a protobuf message and everything under it."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                _strip(child)


def _finish(model: ModelProto, domain: str, opset: int) -> None:
    """Write the nodes' domain, those in use, the lowest IR version for them, and the producer."""
    for node in find_nodes(model):
        node.domain = domain
    for function in model.functions:
        function.domain = domain
    versions = {opset_id.domain: opset_id.version for opset_id in model.opset_import} | {domain: 1, "": opset}
    used = {"", *_domains(model.graph.node), *(d for f in model.functions for d in _domains(f.node))}
    imports = [onnx.helper.make_opsetid(name, versions[name]) for name in sorted(used)]
    _replace(model.opset_import, imports)
    lowest = onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True)
    model.ir_version = max(lowest, _FUNCTION_IR) if model.functions else lowest
    model.producer_name, model.producer_version = "ort-ops", _version()


def _domains(nodes: Iterable[NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield node.domain
        for subgraph in _subgraphs(node):
            yield from _domains(subgraph.node)


def _version() -> str:
    try:
        return importlib.metadata.version("ort-ops")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"


def _replace(field: MutableSequence[_T], items: Iterable[_T]) -> None:
    """Put ``items``, which may be the field's own, in place of what a repeated field holds."""
    kept = list(items)
    del field[:]
    field.extend(kept)
