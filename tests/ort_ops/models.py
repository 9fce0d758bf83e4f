"""A tiny builder of models, so that a test says only what matters to it."""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper

from ort_ops.dtypes import find_dtype

DOMAIN = "test.domain"


def tensor(
    name: str, dtype: str = "float32", shape: Sequence[int | str] | None = None
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, find_dtype(dtype).onnx, shape)


def node(
    op: str, inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("y",), **attributes: Any
) -> onnx.NodeProto:
    """A node of the tests' domain that is called what its operator is called."""
    return helper.make_node(op, list(inputs), list(outputs), domain=DOMAIN, name=op, **attributes)


def builtin(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), list(outputs), name=f"{op}_{outputs[0]}", **attributes)


def function(op: str, inputs: Sequence[str], outputs: Sequence[str], *nodes: onnx.NodeProto) -> Any:
    """A function body for an operator of the tests' domain."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_function(DOMAIN, op, list(inputs), list(outputs), list(nodes), opsets)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    *,
    initializers: Sequence[onnx.TensorProto] = (),
    functions: Sequence[Any] = (),
    value_info: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 18,
    version: int = 1,
) -> bytes:
    """A model from x to y (float32 unless said) as bytes."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [tensor("x")] if inputs is None else list(inputs),
        [tensor("y")] if outputs is None else list(outputs),
        list(initializers),
        value_info=list(value_info),
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, version)]
    made = helper.make_model(graph, ir_version=8, opset_imports=opsets, functions=list(functions))
    data: bytes = made.SerializeToString()
    return data


def one_node(op: str, dtype: str = "float32", **attributes: Any) -> bytes:
    """A model of one node from x to y, both of one dtype."""
    return model([node(op, **attributes)], [tensor("x", dtype)], [tensor("y", dtype)])
