"""Fewer bodies: those that differ in a constant that is an attribute, in an element type, or in a rank."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, FunctionProto, NodeProto

from ort_ops.providers import CPU

from .agreeing import agree, unit_of
from .derive import Group
from .stand_in import StandIn

__all__ = ["merge"]

_ROUNDINGS = 64  # by which two orders of the same operations may differ


def merge(groups: Sequence[Group]) -> list[Group]:
    """Return bodies for the same nodes, as few as can be found.

    Bodies of one structure become one: a constant that each node has as an attribute becomes a reference
    to it, a constant of a type that the nodes' inputs have follows the input. Of bodies for other ranks one
    is taken that computes the same on all of them.
    """
    merged: list[_Merged] = []
    for group in groups:
        if not any(other.add(group) for other in merged):
            merged.append(_Merged(group[0], [group]))
    return [(each.body, each.served()) for each in merged]


@dataclass
class _Merged:
    """A body, the bodies of its structure that it was made of, and nodes that it serves besides."""

    body: FunctionProto
    parts: list[Group]
    others: list[StandIn] = field(default_factory=list)

    def served(self) -> list[StandIn]:
        return [stand_in for _, served in self.parts for stand_in in served] + self.others

    def add(self, group: Group) -> bool:
        """Make the body serve one more group; tells whether it can."""
        joined = _join([*self.parts, group])
        if joined is not None and (not self.others or joined == self.body):
            self.parts.append(group)
            self.body = joined
            return True
        if len({_but_for_rank(stand_in) for stand_in in (*self.served(), *group[1])}) > 1:
            return False
        if _agree(self.body, group):
            self.others += group[1]
            return True
        if all(_agree(group[0], part) for part in (*self.parts, (self.body, self.others))):
            self.body, self.parts, self.others = group[0], [group], self.served()
            return True
        return False


def _but_for_rank(stand_in: StandIn) -> Any:
    types = tuple(None if kind is None else str(kind.dtype) for kind in stand_in.inputs)
    return stand_in.constants(), types


def _join(groups: Sequence[Group]) -> FunctionProto | None:
    """Join bodies that have the same nodes but for constants."""
    first = groups[0][0]
    if any(len(body.node) != len(first.node) or body.output != first.output for body, _ in groups):
        return None
    joined = FunctionProto()
    joined.CopyFrom(first)
    del joined.node[:]
    for index in range(len(first.node)):
        nodes = _join_nodes([body.node[index] for body, _ in groups], groups)
        if nodes is None:
            return None
        joined.node.extend(nodes)
    return joined


def _join_nodes(nodes: Sequence[NodeProto], groups: Sequence[Group]) -> list[NodeProto] | None:
    first = nodes[0]
    if all(node == first for node in nodes):
        return [first]
    if any(node.op_type != "Constant" or node.output != first.output for node in nodes):
        return None
    values = [_value(node) for node in nodes]
    if any(value is None for value in values):
        return None
    (output,) = first.output
    if len({value.dtype for value in values}) == 1:
        return _refer(values, groups, output)
    return _cast(values, groups, output)


def _refer(values: Sequence[Any], groups: Sequence[Group], output: str) -> list[NodeProto] | None:
    """Make a constant out of the attribute that has its value in every node."""
    for name in groups[0][1][0].attributes:
        if all(
            _has(s, name, value) for value, (_, served) in zip(values, groups, strict=True) for s in served
        ):
            return _reference(name, values[0].dtype, output)
    return None


def _cast(values: Sequence[Any], groups: Sequence[Group], output: str) -> list[NodeProto] | None:
    """Cast the widest of constants that are one value to the type of an input that has its type in each."""
    wide = max(values, key=lambda value: value.dtype.itemsize)
    if any(
        value.shape != wide.shape or not np.array_equal(wide.astype(value.dtype), value) for value in values
    ):
        return None
    for place in range(len(groups[0][1][0].inputs)):
        pairs = [(s, value.dtype) for value, (_, served) in zip(values, groups, strict=True) for s in served]
        if all(_type(stand_in, place) == dtype for stand_in, dtype in pairs):
            constant = onnx.numpy_helper.from_array(np.ascontiguousarray(wide))
            return [
                onnx.helper.make_node("Constant", [], [f"{output}_wide"], value=constant),
                onnx.helper.make_node("CastLike", [f"{output}_wide", f"in_{place}"], [output]),
            ]
    return None


def _value(node: NodeProto) -> Any:
    """Return a Constant's value, None where it isn't given as a tensor."""
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return onnx.numpy_helper.to_array(attribute.t)
    return None


def _has(stand_in: StandIn, name: str, constant: Any) -> bool:
    """Tell whether an attribute is this constant: exactly, in the one type that a reference to it has."""
    value = stand_in.attributes.get(name)
    if constant.shape != () or type(value) not in (int, float):
        return False
    dtype = np.dtype(np.int64 if type(value) is int else np.float32)
    return bool(constant.dtype == dtype and constant == dtype.type(value))


def _reference(name: str, dtype: Any, output: str) -> list[NodeProto]:
    kind = AttributeProto.INT if dtype == np.int64 else AttributeProto.FLOAT
    node = onnx.helper.make_node("Constant", [], [output])
    field = "value_int" if kind == AttributeProto.INT else "value_float"
    node.attribute.append(AttributeProto(name=field, ref_attr_name=name, type=kind))
    return [node]


def _type(stand_in: StandIn, place: int) -> Any:
    kind = stand_in.inputs[place] if place < len(stand_in.inputs) else None
    return None if kind is None else kind.dtype


def _agree(candidate: FunctionProto, group: Group) -> bool:
    """Tell whether a body computes what another one does, on inputs of the nodes that the other is for.

    Both come of one forward with the same constants, so that only the ranks can make a difference.
    """
    body, served = group
    return all(_agree_on(candidate, body, stand_in) for stand_in in served)


def _agree_on(candidate: FunctionProto, body: FunctionProto, stand_in: StandIn) -> bool:
    generator = np.random.default_rng(0)
    for extra, wide in itertools.product((0, 1, 3), (False, True)):
        feed = _feed(stand_in, generator, extra, wide=wide)
        try:
            results = [_run(function, feed) for function in (candidate, body)]
        except Exception:
            if wide:  # of an index, which they may hold
                continue
            return False
        if not all(itertools.starmap(_is_same, zip(*results, strict=True))):
            return False
    return True


def _is_same(one: Any, two: Any) -> bool:
    return agree(one, two, _ROUNDINGS * unit_of(one.dtype))


def _feed(stand_in: StandIn, generator: np.random.Generator, extra: int, *, wide: bool) -> dict[str, Any]:
    """Return random inputs; a dimension of one symbol has one size, which ``extra`` makes larger.

    They are fractions, zeros and ones; ``wide`` ones are larger, and of both signs.
    """
    sizes: dict[Any, int] = {}
    feed = {}
    for place, kind in enumerate(stand_in.inputs):
        if kind is None or kind.shape is None or kind.dtype is None:
            continue
        shape = [
            d if isinstance(d, int) else sizes.setdefault(d if d is not None else object(), 2 + extra)
            for d in kind.shape
        ]
        whole = kind.dtype.kind in "iub"
        if wide:
            low = 0 if kind.dtype.kind in "ub" else -8
            values = (
                generator.integers(low, 2 if kind.dtype.kind == "b" else 9, shape)
                if whole
                else 16 * generator.random(shape) - 8
            )
        else:
            values = generator.integers(0, 2, shape) if whole else generator.random(shape)
        feed[f"in_{place}"] = values.astype(kind.dtype)
    return feed


def _run(function: FunctionProto, feed: dict[str, Any]) -> list[Any]:
    """Run a body in ONNX Runtime as a model of its own."""
    used = [name for name in function.input if name in feed]
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(feed[name].dtype), feed[name].shape
        )
        for name in used
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in function.output]
    graph = onnx.helper.make_graph(list(function.node), "body", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=list(function.opset_import), ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    read = {i.name for i in session.get_inputs()}
    results: list[Any] = session.run(None, {name: value for name, value in feed.items() if name in read})
    return results
