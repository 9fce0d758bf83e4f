"""Function bodies: what a custom node computes, in standard operators, so that a file runs without a kernel.

A body is derived from the Function's forward, exported through the ordinary operators. One body serves
every node of an operator where it can: ONNX Runtime 1.18 to 1.26 computes overloads wrong without a word.
Nodes that need another one become plain operators, or overloads where the caller asks for them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import onnx
import onnx_ir as ir
from onnx import FunctionProto
from onnx_ir.passes.common import inliner
from torch.autograd import Function

from ort_ops.dtypes import from_onnx
from ort_ops.errors import ExportError
from ort_ops.recorded import CALL, FUNCTION, REASON
from ort_ops.schema import TensorType

from .calls import Call
from .derive import Group, derive
from .function_proto import NoBodyError
from .merge import merge
from .nodes import nodes_of
from .stand_in import StandIn
from .symbolic import Whole

__all__ = ["Body", "BodyFound", "BodyMaker", "give_bodies"]

BodyMaker: TypeAlias = Callable[[Sequence[StandIn], str, int], FunctionProto]
"""Makes the one body for some nodes of an operator, in a domain, at a version of the default domain.

As many inputs and outputs as the nodes have, in their order; the nodes' attributes are given by their names.
Domain, name and declared attributes of what it returns are replaced by the nodes'. With ``"inline"`` it has
to be of the version that it is given. An ExportError that it raises says why there is none.
"""

Body = Literal["function", "overload", "inlined", ""]


@dataclass(frozen=True)
class BodyFound:
    """What body a node got: ``"function"``, ``"overload"``, ``"inlined"``, or none, and why none."""

    body: Body = ""
    reason: str = ""


def give_bodies(
    model: ir.Model,
    calls: Sequence[tuple[Call, Whole, Sequence[ir.Node]]],
    makers: Mapping[type[Function], BodyMaker],
    *,
    inline: bool,
    overloads: bool,
) -> dict[int, BodyFound]:
    """Give each node a function body, or put plain operators in its place; by the number of the call.

    ``calls`` are those that a node stands for wholly, with their nodes.
    """
    found: dict[int, BodyFound] = {}
    for operator, stand_ins in _by_operator(calls).items():
        try:
            _refuse_others(model, operator, stand_ins)
            found |= _give(model, stand_ins, makers, inline=inline, overloads=overloads)
        except NoBodyError as error:
            found |= {stand_in.call.number: BodyFound(reason=str(error)) for stand_in in stand_ins}
    return found


def _refuse_others(model: ir.Model, operator: tuple[str, str], stand_ins: Sequence[StandIn]) -> None:
    """Refuse to give a body to an operator that has other nodes, too: it would be theirs as well."""
    if operator[0] in ("", "ai.onnx"):
        raise NoBodyError("a file can't have functions in ONNX's default domain")
    known = {id(stand_in.node) for stand_in in stand_ins}
    for node in nodes_of(model):
        if (node.domain, node.op_type) == operator and id(node) not in known:
            raise NoBodyError(f"node {node.name!r} of the same operator doesn't stand for a whole call")


def _by_operator(
    calls: Sequence[tuple[Call, Whole, Sequence[ir.Node]]],
) -> dict[tuple[str, str], list[StandIn]]:
    found: dict[tuple[str, str], list[StandIn]] = {}
    for call, whole, nodes in calls:
        for node in nodes:
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            stand_in = StandIn(node, call, whole, tuple(_inputs(node, call, whole)), attributes)
            found.setdefault((node.domain, node.op_type), []).append(stand_in)
    return found


def _inputs(node: ir.Node, call: Call, whole: Whole) -> Iterator[TensorType | None]:
    """Give what is known of each input: by the file, or by the call where the file doesn't say."""
    tensors = {place: i for i, place in enumerate(whole.tensors) if isinstance(place, int)}
    for place, value in enumerate(node.inputs):
        if value is None:
            yield None
            continue
        shape: tuple[Any, ...] | None = None
        if value.shape is not None:
            shape = tuple(d if isinstance(d, int) else d.value for d in value.shape)
        elif place in tensors:
            shape = (None,) * len(call.examples[tensors[place]][0])
        element_type = int(value.dtype) if value.dtype else call.element_type(tensors.get(place))
        yield TensorType(from_onnx(element_type).numpy, shape)


def _give(
    model: ir.Model,
    stand_ins: Sequence[StandIn],
    makers: Mapping[type[Function], BodyMaker],
    *,
    inline: bool,
    overloads: bool,
) -> dict[int, BodyFound]:
    node = stand_ins[0].node
    opset = model.opset_imports[""]
    functions = {stand_in.call.function for stand_in in stand_ins}
    maker = makers.get(next(iter(functions))) if len(functions) == 1 else None
    if maker is not None:
        try:
            body = maker(stand_ins, node.domain, opset)
        except ExportError as error:
            raise NoBodyError(str(error)) from error
        _check(body, stand_ins, opset, inline=inline)
        groups = [(body, list(stand_ins))]
    else:
        groups = _derive(stand_ins, opset)
    groups.sort(key=lambda group: -len(group[1]))
    found: dict[int, BodyFound] = {}
    for index, (body, served) in enumerate(groups):
        kind: Body = "inlined" if inline or (index and not overloads) else "overload" if index else "function"
        _attach(model, body, served, overload=str(index) if index or inline else "")
        if kind == "inlined":
            for stand_in in served:  # the nodes that come in its place don't stand for the call
                for key in (FUNCTION, CALL, REASON):
                    stand_in.node.metadata_props.pop(key, None)
            _inline(model, (node.domain, node.op_type, str(index)))
        found |= {stand_in.call.number: BodyFound(kind) for stand_in in served}
    return found


def _check(body: Any, stand_ins: Sequence[StandIn], opset: int, *, inline: bool) -> None:
    """Raise ExportError for a body that the caller wrote and that can be none of these nodes."""
    name, nodes = stand_ins[0].call.name, [stand_in.node for stand_in in stand_ins]
    if not isinstance(body, FunctionProto):
        raise ExportError(f"{name}: its body is a {type(body).__name__}; expected an onnx.FunctionProto")
    for what, own, wanted in (
        ("inputs", len(body.input), max(len(node.inputs) for node in nodes)),
        ("outputs", len(body.output), max(len(node.outputs) for node in nodes)),
    ):
        if own != wanted:
            raise ExportError(f"{name}: its body has {own} {what}, and its node {wanted}; expected as many")
    given = {*body.input, *(result for node in body.node for result in node.output)}
    if missing := [output for output in body.output if output not in given]:
        raise ExportError(f"{name}: nothing in its body gives output {missing[0]!r}")
    versions = {each.domain: each.version for each in body.opset_import}
    if inline and versions.get("", opset) != opset:
        raise ExportError(
            f"{name}: its body is of opset {versions['']}, and its nodes go into a model of opset {opset}; "
            "expected one of the opset that its maker is given"
        )
    for node in body.node:
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type):
            raise ExportError(
                f"{name}: its body has a node {node.op_type}, an operator that ONNX doesn't have"
            )


def _derive(stand_ins: Sequence[StandIn], opset: int) -> list[Group]:
    """Return bodies for the nodes, as few as can be found."""
    derived, plain = derive(stand_ins, opset)
    groups = merge(derived)
    if len(groups) == 1:
        return groups
    return min(groups, merge(plain), key=len)


def _inline(model: ir.Model, identifier: tuple[str, str, str]) -> None:
    """Put a function's nodes in the place of those that call it."""
    inliner.InlinePass(lambda function: function.identifier() == identifier)(model)
    model.functions.pop(identifier, None)


def _attach(model: ir.Model, body: FunctionProto, served: Sequence[StandIn], overload: str) -> None:
    """Put a function into the model under the nodes' own name, and make the nodes call it."""
    node = served[0].node
    proto = FunctionProto()
    proto.CopyFrom(body)
    proto.domain, proto.name, proto.overload = node.domain, node.op_type, overload
    declared = {name for stand_in in served for name in stand_in.attributes}
    del proto.attribute[:]
    proto.attribute.extend(sorted(declared))
    function: Any = ir.from_proto(proto)
    model.functions[function.identifier()] = function
    for stand_in in served:
        stand_in.node.overload = overload
