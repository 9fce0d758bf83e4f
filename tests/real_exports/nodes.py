"""What two files must have in common: their custom nodes, with attributes, arity and constant inputs."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import numpy_helper

COMPUTED = "computed"
ABSENT = "absent"


def custom_nodes(model: onnx.ModelProto) -> Counter[Any]:
    """Count the nodes outside of ONNX's own domain, by type, attributes, inputs and number of outputs.

    An input that is an initializer or a constant counts by its value.
    """
    nodes = list(_nodes(model.graph))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    same = {}
    for node in nodes:
        if node.op_type == "Constant":
            (attribute,) = node.attribute
            constants[node.output[0]] = numpy_helper.to_array(attribute.t)
        elif node.op_type == "Identity":
            same[node.output[0]] = node.input[0]

    def value(name: str) -> Any:
        while name in same:
            name = same[name]
        if not name:
            return ABSENT
        return _plain(constants[name]) if name in constants else COMPUTED

    return Counter(
        (
            node.domain,
            node.op_type,
            tuple(
                sorted((a.name, a.type, _plain(onnx.helper.get_attribute_value(a))) for a in node.attribute)
            ),
            tuple(value(name) for name in node.input),
            len(node.output),
        )
        for node in nodes
        if node.domain not in ("", "ai.onnx")
    )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if hasattr(value, "tobytes"):
        return (str(value.dtype), value.shape, value.tobytes())
    return tuple(value) if isinstance(value, list) else value
