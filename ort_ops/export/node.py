"""``as_node``: an operator of torch.library written as one ONNX node by both exporters."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import evaluator
from torch.onnx import _constants, symbolic_helper
from torch.onnx._internal.torchscript_exporter import _type_utils
from torch.onnx._internal.torchscript_exporter.registration import registry

from ort_ops.errors import ExportError
from ort_ops.registry import split_name

from .calls import next_number
from .overloads import called
from .symbolic import MARK

__all__ = ["as_node", "kept_operators", "nodes_kept", "translations"]

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
_MAKERS: dict[str, Callable[[str, Any], Any]] = {
    "int": ir.AttrInt64,
    "float": ir.AttrFloat32,
    "bool": ir.AttrInt64,
    "str": ir.AttrString,
    "List[int]": ir.AttrInt64s,
    "List[float]": ir.AttrFloat32s,
}


def as_node(operator: str, node: str) -> None:
    """Have an operator of torch.library exported as one ONNX node: ``as_node("ns::op", "domain::NAME")``.

    Its tensors are the node's inputs, in order (one that is None is left out); its other arguments are
    attributes under the names of the operator's schema, but for those that are None. It holds for ``export``
    and for every ``keep_functions`` that begins afterwards. Raises ExportError where torch doesn't know the
    operator, where that writes into what it is given or returns something else than tensors, which a node
    can't, or takes a list of tensors and behind it another or a tensor that may be None, which inputs in a
    row don't tell apart; and SchemaError where ``node`` is no name.
    """
    namespace, _, rest = operator.partition("::")
    name, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), name, None) if name else None
    if packet is None or (overload or "default") not in packet.overloads():
        raise ExportError(f"torch has no operator {operator!r}; expected the name of one: 'namespace::name'")
    full_name = f"{namespace}::{name}.{overload or 'default'}"
    _check(_overload(full_name)._schema)
    _nodes[full_name] = split_name(node)


def _check(schema: Any) -> None:
    """Refuse an operator that no node can stand for."""
    if schema.is_mutable:
        written = next(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
        raise ExportError(
            f"{schema.name} writes into its argument {written!r}, which a node can't; "
            "expected an operator that returns its results"
        )
    kinds = [(argument.name, str(argument.real_type)) for argument in schema.arguments]
    lists = [place for place, (_, kind) in enumerate(kinds) if "Tensor" in kind and "List[" in kind]
    for name, kind in kinds[lists[0] + 1 :] if lists else ():
        if "Tensor" in kind and kind != "Tensor":
            before = kinds[lists[0]][0]
            raise ExportError(
                f"{schema.name} takes {name!r} after {before!r}, a list of tensors: which are whose, a node "
                "doesn't say; expected one such list at most, and no optional tensor behind it"
            )
    if not schema.returns:
        raise ExportError(f"{schema.name} returns nothing; expected one or more tensors")
    for returned in schema.returns:
        if str(returned.type) != "Tensor":
            raise ExportError(
                f"{schema.name} returns {returned.type}, which a node can't; expected one or more tensors"
            )


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
        text = str(formal.real_type)
        kind = text[len("Optional[") : -1] if text.startswith("Optional[") else text
        argument = given.get(formal.name, _to_onnx(formal.default_value, kind))
        if "Tensor" in kind:
            inputs += argument if isinstance(argument, list | tuple) else [argument]
        elif argument is not None:
            attributes[formal.name] = (kind, argument)
    return inputs, attributes


def _to_onnx(value: Any, kind: str) -> Any:
    """Return a constant as a node's attribute has it: a dtype by ONNX's number."""
    if kind == "ScalarType" and isinstance(value, int):
        number: Any = _type_utils.JitScalarType(value).onnx_type()
        return int(number)
    return value


def kept_operators() -> set[Any]:
    """Return these operators as torch calls them."""
    return {_overload(operator) for operator in _nodes}


def translations() -> dict[Any, Callable[..., Any]]:
    """Return what the newer exporter's custom_translation_table wants for each of these operators."""
    return {_overload(operator): _translation(operator, node) for operator, node in _nodes.items()}


def _translation(operator: str, node: tuple[str, str]) -> Callable[..., Any]:
    schema = _overload(operator)._schema

    def translate(*arguments: Any, **keywords: Any) -> Any:
        inputs, attributes = _split(schema, arguments, keywords)
        values = [ir.AttrInt64(MARK, next_number())]
        for name, (kind, value) in attributes.items():
            if isinstance(value, ir.Value):
                raise ExportError(f"{operator}: {name} depends on the inputs; a node's attribute can't")
            values.append(_MAKERS.get(kind, ir.convenience.convert_attribute)(name, value))
        while inputs and inputs[-1] is None:
            inputs.pop()
        made = ir.Node(*node, inputs, values, num_outputs=len(schema.returns))
        recorder: Any = evaluator.default()
        recorder.nodes.append(made)
        return made.outputs[0] if len(made.outputs) == 1 else list(made.outputs)

    return translate


@contextlib.contextmanager
def nodes_kept() -> Iterator[None]:
    """Have the TorchScript exporter write these operators as nodes, until the end."""
    declared: dict[str, dict[str, tuple[str, str]]] = {}
    for operator, node in _nodes.items():
        name, _, overload = operator.partition(".")
        declared.setdefault(name, {})[overload] = node
    with contextlib.ExitStack() as undo:
        for name, nodes in declared.items():
            group = registry.get_function_group(name)
            others = {} if group is None else dict(group._functions._overrides)
            for opset in _OPSETS:
                symbolic = _symbolic_of_all(name, nodes, None if group is None else group.get(opset))
                _torch_onnx.register_custom_op_symbolic(name, symbolic, opset)
                undo.callback(_put_back, name, opset, others.get(opset))
        yield


def _put_back(name: str, opset: int, other: Callable[..., Any] | None) -> None:
    """Take an operator's symbolic out again, and put in what somebody else had registered."""
    _torch_onnx.unregister_custom_op_symbolic(name, opset)
    if other is not None:
        _torch_onnx.register_custom_op_symbolic(name, other, opset)


# Each that the exporter knows: what is registered for one holds up to the next for which torch has its own.
_OPSETS = range(_constants.ONNX_MIN_OPSET, _constants.ONNX_MAX_OPSET + 1)


_get_constant: Any = symbolic_helper._maybe_get_const
_absent: Any = symbolic_helper._optional_input_placeholder_tensor


def _symbolic_of_all(
    name: str, nodes: Mapping[str, tuple[str, str]], other: Callable[..., Any] | None
) -> Callable[..., Any]:
    """Return the symbolic for all overloads of an operator, which the TorchScript exporter knows by one name.

    other: the one of those that are no nodes.
    """
    symbolics = {overload: _symbolic(f"{name}.{overload}", node) for overload, node in nodes.items()}

    def symbolic(g: Any, *arguments: Any) -> Any:
        overload = called(name, arguments, symbolics)
        if overload in symbolics:
            return symbolics[overload](g, *arguments)
        if other is None:
            raise ExportError(
                f"{name}.{overload} is called, and only {', '.join(nodes)} of it was declared: "
                f"as_node('{name}.{overload}', ...)"
            )
        return other(g, *arguments)

    return symbolic


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
            constant = _to_onnx(_get_constant(value, read), kind) if _is_value(value) else value
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
