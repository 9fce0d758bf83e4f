"""``as_node``: an operator of torch.library written as one ONNX node by both exporters."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import evaluator

from ort_ops.errors import ExportError
from ort_ops.registry import split_name

__all__ = ["as_node", "nodes_kept", "translations"]

_nodes: dict[str, tuple[str, str]] = {}


def as_node(operator: str, node: str) -> None:
    """Have an operator of torch.library exported as one ONNX node: ``as_node("ns::op", "domain::NAME")``.

    Its tensors are the node's inputs, in order (one that is None is left out); its other arguments are
    attributes under the names of the operator's schema. It holds for ``export`` and ``keep_functions``.
    Raises ExportError where torch doesn't know the operator, and SchemaError where ``node`` is no name.
    """
    namespace, _, rest = operator.partition("::")
    name, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), name, None) if rest else None
    if packet is None or (overload or "default") not in packet.overloads():
        raise ExportError(
            f"torch has no operator {operator!r}; expected the name of one, as 'namespace::name'"
        )
    _nodes[f"{namespace}::{name}.{overload or 'default'}"] = split_name(node)


def _overload(operator: str) -> Any:
    namespace, _, rest = operator.partition("::")
    name, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def translations() -> dict[Any, Callable[..., Any]]:
    """Return what the newer exporter's custom_translation_table wants for each of these operators."""
    return {_overload(operator): _translation(operator, node) for operator, node in _nodes.items()}


def _translation(operator: str, node: tuple[str, str]) -> Callable[..., Any]:
    schema = _overload(operator)._schema

    def translate(*arguments: Any, **keywords: Any) -> Any:
        inputs, attributes = _split(schema, arguments, keywords, ir.Value)
        made = ir.Node(
            node[0],
            node[1],
            inputs,
            ir.convenience.convert_attributes(attributes),
            num_outputs=len(schema.returns),
        )
        recorder: Any = evaluator.default()
        recorder.nodes.append(made)
        return made.outputs[0] if len(made.outputs) == 1 else list(made.outputs)

    return translate


def _split(
    schema: Any, arguments: Sequence[Any], keywords: dict[str, Any], value: type
) -> tuple[list[Any], dict[str, Any]]:
    """Divide an operator's arguments into a node's inputs and its attributes, by the operator's schema."""
    inputs: list[Any] = []
    attributes: dict[str, Any] = {}
    given = dict(zip((a.name for a in schema.arguments), arguments, strict=False)) | keywords
    for formal in schema.arguments:
        argument = given.get(formal.name, formal.default_value)
        if "Tensor" in str(formal.type):
            inputs += argument if isinstance(argument, list | tuple) else [argument]
        elif isinstance(argument, value):
            raise ExportError(
                f"{schema.name}: {formal.name} depends on the inputs; an attribute of a node can't"
            )
        elif argument is not None:
            attributes[formal.name] = int(argument) if isinstance(argument, bool) else argument
    while inputs and inputs[-1] is None:
        inputs.pop()
    return inputs, attributes


@contextlib.contextmanager
def nodes_kept() -> Iterator[None]:
    """Have the TorchScript exporter write these operators as nodes, until the end."""
    yield
