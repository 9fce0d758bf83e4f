"""Types and shapes of a model's values by ONNX's own inference, which knows no custom node.

What a custom node gives is known from its call: a function of standard operators says so in its place.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, shape_inference

from .calls import Call, Dim
from .nodes import nodes_of
from .symbolic import Whole

__all__ = ["infer_types"]

# Shape inference reads the values of small initializers (the sizes that a Reshape is given); larger ones
# are weights, which it must not be made to copy.
_MAX_SHAPE_VALUES = 64
_SHAPES = "ort_ops.shapes"  # the domain of what stands for custom nodes while shapes are inferred
_SHAPES_OPSET = 18  # since which onnx propagates sizes through Gather and Expand
_ANY = "ort_ops.any"  # an input of that model: a size that nothing is known of


def infer_types(model: ir.Model, calls: Sequence[tuple[Call, Whole, Sequence[ir.Node]]]) -> None:
    """Give every value of the graph the type and shape that ONNX infers; where it infers none, it keeps its.

    Sizes keep symbols of the file's inputs alone.
    """
    graph = model.graph
    known = {
        dim.value for value in graph.inputs for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)
    }
    for value in _values(model):
        value.shape = _only_known(value.shape, known)
    bare = _bare(model, calls)
    inferred: Any = ir.from_proto(shape_inference.infer_shapes(bare, data_prop=True).graph)
    found = {value.name: value for node in inferred for value in node.outputs}
    for node in graph:
        for value in node.outputs:
            other = found.get(value.name)
            if other is None:
                continue
            value.type = value.type or other.type
            shape = _only_known(other.shape, known)
            value.shape = _completed(shape, value.shape)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for node in nodes_of(model):
        yield from node.outputs
    yield from (value for value in model.graph.outputs if value.producer() is None)


def _only_known(shape: ir.Shape | None, known: set[str | None]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape(
        [dim if isinstance(dim, int) else dim.value if dim.value in known else None for dim in shape]
    )


def _completed(inferred: ir.Shape | None, written: ir.Shape | None) -> ir.Shape | None:
    """Fill what inference doesn't know with what the exporter knew."""
    if inferred is None or written is None or len(inferred) != len(written):
        return inferred if inferred is not None else written
    return ir.Shape(
        [
            theirs if isinstance(mine, ir.SymbolicDim) and mine.value is None else mine
            for mine, theirs in zip(inferred, written, strict=True)
        ]
    )


def _bare(model: ir.Model, calls: Sequence[tuple[Call, Whole, Sequence[ir.Node]]]) -> ModelProto:
    """Copy a model for shape inference: without its weights, and with the shapes of custom nodes only.

    Where a call is known to give sizes that its tensors have, a function that says so stands for its node.
    """
    graph = model.graph
    bare = GraphProto(name="main_graph")
    functions = {}
    custom: set[ir.Node] = set()
    for call, whole, nodes in calls:
        custom.update(nodes)
        if call.types:
            functions.update(dict.fromkeys(nodes, (call, whole)))
    bodies = []
    for node in graph:
        proto = ir.to_proto(node)
        if node in functions:
            body = _shape_function(*functions[node], node)
            bodies.append(body)
            proto.domain, proto.op_type, proto.overload = body.domain, body.name, ""
            del proto.attribute[:]
            proto.input.append(_ANY)
        elif node in custom or (node.domain, node.op_type, node.overload) in model.functions:
            bare.value_info.extend(_typed(node.outputs))
        bare.node.append(proto)
    for value in graph.initializers.values():
        if value.const_value is None or value.const_value.size > _MAX_SHAPE_VALUES:
            bare.input.append(ir.to_proto(value))
        else:
            bare.initializer.append(ir.to_proto(value.const_value))
    bare.input.extend(ir.to_proto(value) for value in graph.inputs)
    bare.input.append(helper.make_tensor_value_info(_ANY, onnx.TensorProto.INT64, [1]))
    for value in graph.outputs:
        output = ValueInfoProto(name=value.name)
        if value.dtype is not None:
            output.type.tensor_type.elem_type = int(value.dtype)
        bare.output.append(output)
    imports = {
        **dict.fromkeys({node.domain for node in nodes_of(model)}, 1),
        **model.opset_imports,
        _SHAPES: 1,
    }
    return helper.make_model(
        bare,
        functions=bodies,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in imports.items()],
        ir_version=max(model.ir_version, 8),
    )


def _typed(values: Iterable[ir.Value]) -> Iterator[ValueInfoProto]:
    return (ir.to_proto(value) for value in values if value.name and value.type is not None)


def _shape_function(call: Call, whole: Whole, node: ir.Node) -> onnx.FunctionProto:
    """Write a function of a node's inputs whose outputs have the shapes that the call's results have."""
    inputs = [*(f"in_{place}" for place in range(len(node.inputs))), _ANY]
    outputs = [f"out_{place}" for place in range(len(node.outputs))]
    nodes: list[NodeProto] = []
    for output, (value, (_, sizes)) in zip(
        outputs, zip(node.outputs, call.types, strict=False), strict=False
    ):
        parts = [_size(nodes, f"{output}_{axis}", size, whole) for axis, size in enumerate(sizes)]
        nodes += _filled(output, parts, int(value.dtype or 1))
    return helper.make_function(
        _SHAPES, f"call{call.number}", inputs, outputs, nodes, [helper.make_opsetid("", _SHAPES_OPSET)]
    )


def _size(nodes: list[NodeProto], name: str, size: int | Dim | None, whole: Whole) -> str:
    """Write what gives a size as a tensor of one int64; returns its name."""
    place = whole.tensors[size.tensor] if isinstance(size, Dim) else None
    if isinstance(place, int) and isinstance(size, Dim):
        nodes += [
            helper.make_node("Shape", [f"in_{place}"], [f"{name}_shape"]),
            helper.make_node("Constant", [], [f"{name}_axis"], value_ints=[size.axis]),
            helper.make_node("Gather", [f"{name}_shape", f"{name}_axis"], [name], axis=0),
        ]
    elif isinstance(size, int):
        nodes.append(helper.make_node("Constant", [], [name], value_ints=[size]))
    else:
        return _ANY
    return name


def _filled(output: str, sizes: Sequence[str], element_type: int) -> list[NodeProto]:
    """Write a tensor of these sizes."""
    zero = helper.make_tensor("zero", element_type, [], b"\0" * _itemsize(element_type), raw=True)
    nodes = [helper.make_node("Constant", [], [f"{output}_zero"], value=zero)]
    if sizes:
        nodes.append(helper.make_node("Concat", list(sizes), [f"{output}_shape"], axis=0))
    else:
        none = onnx.numpy_helper.from_array(np.zeros(0, np.int64))
        nodes.append(helper.make_node("Constant", [], [f"{output}_shape"], value=none))
    return [*nodes, helper.make_node("Expand", [f"{output}_zero", f"{output}_shape"], [output])]


def _itemsize(element_type: int) -> int:
    return int(np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).itemsize)
