"""``as_node``: an operator of torch.library written as one ONNX node by both exporters."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import evaluator
from torch.onnx import symbolic_helper

from ort_ops.errors import ExportError
from ort_ops.registry import split_name

from .calls import next_number
from .symbolic import MARK

__all__ = ["as_node", "nodes_kept", "translations"]

_torch_onnx: Any = torch.onnx  # not all of it is declared
_nodes: dict[str, tuple[str, str]] = {}

# How the TorchScript exporter's helpers and its g.op call a type of an argument.
_KINDS = {
    "int": ("i", "i"),
    "float": ("f", "f"),
    "bool": ("b", "i"),
    "str": ("s", "s"),
    "List[int]": ("is", "i"),
    "List[float]": ("fs", "f"),
    "Device": ("s", "s"),
    "ScalarType": ("i", "i"),
}


def as_node(operator: str, node: str) -> None:
    """Have an operator of torch.library exported as one ONNX node: ``as_node("ns::op", "domain::NAME")``.

    Its tensors are the node's inputs, in order (one that is None is left out); its other arguments are
    attributes under the names of the operator's schema, but for those that are None. It holds for ``export``
    and for every ``keep_functions`` that begins afterwards. Raises ExportError where torch doesn't know the
    operator, and SchemaError where ``node`` is no name.
    """
    namespace, _, rest = operator.partition("::")
    name, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), name, None) if name else None
    if packet is None or (overload or "default") not in packet.overloads():
        raise ExportError(f"torch has no operator {operator!r}; expected the name of one: 'namespace::name'")
    _nodes[f"{namespace}::{name}.{overload or 'default'}"] = split_name(node)


def _overload(operator: str) -> Any:
    namespace, _, rest = operator.partition("::")
    name, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def _split(
    schema: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[list[Any], dict[str, tuple[str, Any]]]:
    """Divide an operator's arguments into a node's inputs and its attributes, by the operator's schema.

    An attribute comes with the name of its type.
    """
    inputs: list[Any] = []
    attributes: dict[str, tuple[str, Any]] = {}
    given = dict(zip((a.name for a in schema.arguments), arguments, strict=False)) | dict(keywords)
    for formal in schema.arguments:
        argument = given.get(formal.name, formal.default_value)
        text = str(formal.type)
        kind = text[len("Optional[") : -1] if text.startswith("Optional[") else text
        if "Tensor" in kind:
            inputs += argument if isinstance(argument, list | tuple) else [argument]
        elif argument is not None:
            attributes[formal.name] = (kind, argument)
    return inputs, attributes


def translations() -> dict[Any, Callable[..., Any]]:
    """Return what the newer exporter's custom_translation_table wants for each of these operators."""
    return {_overload(operator): _translation(operator, node) for operator, node in _nodes.items()}


def _translation(operator: str, node: tuple[str, str]) -> Callable[..., Any]:
    schema = _overload(operator)._schema

    def translate(*arguments: Any, **keywords: Any) -> Any:
        inputs, attributes = _split(schema, arguments, keywords)
        values: dict[str, Any] = {MARK: next_number()}
        for name, (_, value) in attributes.items():
            if isinstance(value, ir.Value):
                raise ExportError(f"{operator}: {name} depends on the inputs; a node's attribute can't")
            values[name] = int(value) if isinstance(value, bool) else value
        while inputs and inputs[-1] is None:
            inputs.pop()
        made = ir.Node(
            *node, inputs, ir.convenience.convert_attributes(values), num_outputs=len(schema.returns)
        )
        recorder: Any = evaluator.default()
        recorder.nodes.append(made)
        return made.outputs[0] if len(made.outputs) == 1 else list(made.outputs)

    return translate


@contextlib.contextmanager
def nodes_kept() -> Iterator[None]:
    """Have the TorchScript exporter write these operators as nodes, until the end."""
    with contextlib.ExitStack() as undo:
        for operator, node in _nodes.items():
            name = operator.partition(".")[0]
            _torch_onnx.register_custom_op_symbolic(name, _symbolic(operator, node), _OPSET)
            undo.callback(_torch_onnx.unregister_custom_op_symbolic, name, _OPSET)
        yield


_OPSET = 9  # the lowest that the exporter knows: it takes what is registered for one in all that follow


_get_constant: Any = symbolic_helper._maybe_get_const
_absent: Any = symbolic_helper._optional_input_placeholder_tensor


def _symbolic(operator: str, node: tuple[str, str]) -> Callable[..., Any]:
    schema = _overload(operator)._schema

    def symbolic(g: Any, *arguments: Any) -> Any:
        given = [None if value.node().mustBeNone() else value for value in arguments]
        inputs, attributes = _split(schema, given, {})
        values: dict[str, Any] = {f"{MARK}_i": next_number()}
        for name, (kind, value) in attributes.items():
            if kind not in _KINDS:
                raise ExportError(f"{operator}: {name} is a {kind}, which a node's attribute can't hold")
            read, suffix = _KINDS[kind]
            constant = _get_constant(value, read) if _is_value(value) else value
            if _is_value(constant):
                raise ExportError(f"{operator}: {name} depends on the inputs; a node's attribute can't")
            values[f"{name}_{suffix}"] = int(constant) if isinstance(constant, bool) else constant
        while inputs and inputs[-1] is None:
            inputs.pop()
        inputs = [_absent(g) if value is None else value for value in _unpacked(inputs)]
        kind = f"{node[0]}::{node[1]}" if node[0] else node[1]
        return g.op(kind, *inputs, outputs=len(schema.returns), **values)

    return symbolic


def _is_value(value: Any) -> bool:
    return isinstance(value, torch._C.Value)


def _unpacked(inputs: Sequence[Any]) -> Iterator[Any]:
    """Give the tensors of a list of tensors one by one."""
    for value in inputs:
        if value is not None and value.node().kind() == "prim::ListConstruct":
            yield from value.node().inputs()
        else:
            yield value
