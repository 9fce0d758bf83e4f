"""Models made and changed by the onnx package, which is loaded only here and only when it's needed."""

import copy
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from .opdef import Opdef, default_opset_domain

__all__ = ["expand_onnx_inputs", "hook_model_op", "load_onnx", "make_onnx_model"]

# What onnxruntime-extensions writes for every ONNX Runtime from 1.14 on.
_OPSET = 18


def load_onnx(what: str) -> Any:
    """Return the onnx package; raises ModuleNotFoundError, naming what needs it, where it is missing."""
    try:
        return importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ort_ops.compat.{what} needs the onnx package: pip install onnx", name=error.name
        ) from error


def make_onnx_model(
    graph: Any,
    opset_version: int = 0,
    extra_domain: str = default_opset_domain(),
    extra_opset_version: int = 1,
) -> Any:
    """Return the ModelProto of a graph that imports ONNX's operators and those of ``extra_domain``.

    ``opset_version`` 0 is opset 18; the IR version is the lowest that has the opset.
    """
    helper = load_onnx("make_onnx_model").helper
    opsets = [helper.make_operatorsetid("ai.onnx", opset_version or _OPSET)]
    model = helper.make_model_gen_version(graph, opset_imports=opsets)
    model.opset_import.append(helper.make_operatorsetid(extra_domain, extra_opset_version))
    return model


def hook_model_op(
    model: Any, node_name: str, hook_func: Callable[..., Any], input_types: Sequence[int]
) -> Any:
    """Let a function see, and change, what a node is given each time that the model runs.

    ``hook_func`` takes the node's inputs as arrays and returns what the node is given instead, a tuple
    where there are several; ``input_types`` are their element types. An optional input that is absent
    stays so and isn't counted. Changes ``model`` (a ModelProto), and returns it. Raises ValueError where
    the main graph has no node of that name.
    """
    onnx = load_onnx("hook_model_op")
    nodes = list(model.graph.node)
    found = [index for index, node in enumerate(nodes) if node.name == node_name]
    if not found:
        raise ValueError(f"{node_name} is not the name of a node in the model's main graph")
    node = nodes[found[0]]
    names = _hooked_names(model.graph, node)
    op_type = f"op_{hook_func.__name__}_{node_name}".replace("::", "_")
    Opdef.create(hook_func, op_type=op_type, inputs=input_types, outputs=input_types)
    hook = onnx.helper.make_node(
        op_type, [i for i in node.input if i], [n for n in names if n], f"{node_name}_hkd"
    )
    hook.domain = default_opset_domain()
    node.input[:] = names
    model.graph.node.insert(found[0], hook)
    return _import_default_domain(onnx, model)


def _hooked_names(graph: Any, node: Any) -> list[str]:
    """Return a new name for each input of a node, empty for one that is absent."""
    taken = {name for n in graph.node for name in n.output} | {i.name for i in graph.input}
    names: list[str] = []
    for index, name in enumerate(node.input):
        new = f"{name}_hkd"
        if new in taken:  # another hook saw the same value, or this node has it twice
            new = f"{name}_{node.name}_{index}_hkd"
        taken.add(new)
        names.append(new if name else "")
    return names


def expand_onnx_inputs(
    model: Any, target_input: str, extra_nodes: Sequence[Any], new_inputs: Sequence[Any]
) -> Any:
    """Return a copy of a model in which nodes compute one of its inputs from others.

    ``target_input`` is no input any more, ``extra_nodes`` (NodeProto) compute it, ``new_inputs``
    (ValueInfoProto) join the inputs that are left.
    """
    onnx = load_onnx("expand_onnx_inputs")
    expanded = copy.deepcopy(model)
    graph = expanded.graph
    inputs = [i for i in graph.input if i.name != target_input] + list(new_inputs)
    nodes = list(extra_nodes) + list(graph.node)  # what computes a value stands before what takes it
    for field, items in ((graph.input, inputs), (graph.node, nodes)):
        kept = [copy.deepcopy(item) for item in items]
        del field[:]
        field.extend(kept)
    return _import_default_domain(onnx, expanded)


def _import_default_domain(onnx: Any, model: Any) -> Any:
    domain = default_opset_domain()
    if all(opset.domain != domain for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_operatorsetid(domain, 1))
    return model
