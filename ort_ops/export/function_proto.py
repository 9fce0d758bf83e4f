"""A model's graph as a function, in one form: values by position, constants as nodes."""

from collections.abc import Sequence

import onnx
from onnx import FunctionProto, ModelProto, TensorProto

__all__ = ["NoBodyError", "to_function"]

_MAX_CONSTANTS = 2**20  # bytes of constants in a body; more belongs into an initializer


class NoBodyError(Exception):
    """A forward has no form in ONNX's standard operators; the text says why."""


def to_function(model: ModelProto, places: Sequence[int], inputs: int, opset: int) -> FunctionProto:
    """Return a model's graph as a function of so many inputs; raises NoBodyError for what none can hold.

    The inputs are ``in_0`` and so on, the outputs ``out_0`` and so on. places: which of the function's inputs
    the model's are, in their order.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", opset) != opset:
        raise NoBodyError(f"the exporter writes forward at opset {versions['']}, and the file is at {opset}")
    if model.functions:
        raise NoBodyError(f"forward needs the function {model.functions[0].name}")
    size = sum(len(weights.raw_data) for weights in model.graph.initializer)
    if size > _MAX_CONSTANTS:
        raise NoBodyError(f"forward has {size} bytes of constants; a body holds up to {_MAX_CONSTANTS}")
    function = FunctionProto()
    function.input.extend(f"in_{place}" for place in range(inputs))
    function.output.extend(f"out_{place}" for place in range(len(model.graph.output)))
    function.opset_import.extend([onnx.helper.make_opsetid("", opset)])
    # Not by name: an input that is an output, too, torch 2.9 calls otherwise than it was told.
    names = {value.name: f"in_{place}" for value, place in zip(model.graph.input, places, strict=True)}
    for weights in model.graph.initializer:
        names[weights.name] = f"value_{len(names)}"
        _add_constant(function, weights, names[weights.name])
    for node in model.graph.node:
        _add_node(function, node, names)
    _name_outputs(function, [names[value.name] for value in model.graph.output])
    return function


def _name_outputs(function: FunctionProto, results: Sequence[str]) -> None:
    """Call the results out_0 and so on; an input, or a result that is given twice, gets a node for it."""
    renamed: dict[str, str] = {}
    for place, name in enumerate(results):
        if name in function.input or name in renamed:
            source = renamed.get(name, name)
            function.node.append(onnx.helper.make_node("Identity", [source], [f"out_{place}"]))
        else:
            renamed[name] = f"out_{place}"
            for node in function.node:
                node.input[:] = [renamed.get(value, value) for value in node.input]
                node.output[:] = [renamed.get(value, value) for value in node.output]


def _add_constant(function: FunctionProto, weights: TensorProto, name: str) -> None:
    value = TensorProto()
    value.CopyFrom(weights)
    value.ClearField("name")
    value.ClearField("metadata_props")
    value.ClearField("doc_string")
    function.node.append(onnx.helper.make_node("Constant", [], [name], value=value))


def _add_node(function: FunctionProto, node: onnx.NodeProto, names: dict[str, str]) -> None:
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        raise NoBodyError(f"forward needs {node.op_type}, which holds a graph of its own")
    added = function.node.add()
    added.op_type, added.domain = node.op_type, node.domain
    added.input.extend(names[name] if name else "" for name in node.input)
    for name in node.output:
        if name:
            names[name] = f"value_{len(names)}"
        added.output.append(names[name] if name else "")
    added.attribute.extend(sorted(node.attribute, key=lambda attribute: attribute.name))
