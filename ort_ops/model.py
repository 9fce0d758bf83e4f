"""What a model file asks for: its nodes, domains, opsets and functions, read without the onnx package.

An ONNX file is a protocol buffer of type ModelProto. Only its structure is walked here; the weights are
stepped over by their length, so that reading a file of gigabytes touches a few of its pages. Field
numbers are those of onnx.proto3.
"""

import dataclasses
import os
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .errors import ModelError
from .schema import Dim
from .wire import Buffer, content_of, fields, number, text

__all__ = ["UNREAD", "UNREADABLE", "Model", "Node", "Value", "read_model", "weight_files"]

# The fields of TypeProto that say what a value is.
_KINDS = {1: "tensor", 4: "sequence", 5: "map", 8: "sparse_tensor", 9: "optional"}


@dataclass(frozen=True)
class Value:
    """An input or output of the model.

    ``kind`` is ``"tensor"``, ``"sequence"``, ``"map"``, ``"optional"`` or ``"sparse_tensor"``, and "" where
    the file doesn't say. For a tensor ``element_type`` is ONNX's number for it (0 if not stated), and
    ``shape`` has a size, a symbol, or None for each dimension; it is None where the rank isn't stated.
    """

    name: str
    kind: str = ""
    element_type: int = 0
    shape: tuple[Dim, ...] | None = None


@dataclass(frozen=True)
class Node:
    """A node of the model's graph, of a graph inside it, or of a function body.

    ``input_types`` are the ONNX element types of its inputs as far as the file states them: None where
    it doesn't, 0 where the input is absent. ``in_function`` is the body that the node stands in, ``inner``
    says whether it is in a branch or a loop; ``metadata`` is what an exporter noted about it.
    """

    name: str
    domain: str
    op_type: str
    input_types: tuple[int | None, ...]
    in_function: tuple[str, str] | None = None
    overload: str = ""
    """Which of several function bodies of its operator the node asks for (IR 10)."""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    outputs: int = 0
    """How many it has, with those that have no name but are before others."""
    attributes: tuple[str, ...] = ()
    """Their names."""
    unreadable: tuple[str, ...] = ()
    """Those of kinds that ONNX Runtime shows no operator."""
    inner: bool = False

    @property
    def op(self) -> tuple[str, str]:
        """Return the domain and the operator's name."""
        return self.domain, self.op_type


@dataclass(frozen=True)
class Model:
    """What a model file asks of a runtime."""

    opsets: Mapping[str, int]
    nodes: tuple[Node, ...]
    bodies: frozenset[tuple[str, str, str]]
    """Domain, name and overload of each function body in the file."""
    inputs: tuple[Value, ...] = ()
    """What a caller has to give: the graph's inputs, less those that an initializer fills."""
    outputs: tuple[Value, ...] = ()
    element_types: frozenset[int] = frozenset()
    """Those that the file states of the graph's inputs, outputs, initializers and values between."""
    ir_version: int = 0

    @property
    def functions(self) -> frozenset[tuple[str, str]]:
        """Return domain and name of each operator that the file carries a body for."""
        return frozenset((domain, name) for domain, name, _ in self.bodies)

    def calls(self) -> frozenset[tuple[str, str]]:
        """Return domain and name of every operator that the file uses."""
        return frozenset(node.op for node in self.nodes)


UNREAD = Model({}, (), frozenset())
UNREADABLE = "is in ORT's own format, of which nothing is read; expected the ONNX file that it was made of"


def read_model(source: str | os.PathLike[str] | bytes) -> Model:
    """Read a model from a file or from its bytes; raises ModelError where it is no ONNX model.

    Of a file in ORT's own format nothing is read: it is ``UNREAD``.
    """
    if isinstance(source, bytes):
        return _read(source, "the given bytes")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"the model is a {type(source).__name__}; expected a path, or bytes "
            "(of a ModelProto: model.SerializeToString())"
        )
    with content_of(source) as content:
        return _read(content, os.fspath(source))


def weight_files(path: str | os.PathLike[str]) -> frozenset[str]:
    """Return where a model's file says that weights are besides: paths from its own folder, as they stand.

    Raises ModelError where it is no ONNX model, or one in ORT's own format.
    """
    with content_of(path) as content:
        if _is_in_orts_format(content):
            raise ModelError(f"{os.fspath(path)} {UNREADABLE}")
        try:
            return frozenset(_locations(content, slice(0, len(content)), "model"))
        except (IndexError, ValueError, RecursionError) as error:
            raise ModelError(f"{os.fspath(path)}: not an ONNX model ({error})") from error


def _is_in_orts_format(buffer: Buffer) -> bool:
    return bytes(buffer[4:8]) == b"ORTM"  # a flatbuffer, by its identifier


# Which fields of a message hold which messages, on the way to tensors.
_INSIDE = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
}


def _locations(buffer: Buffer, span: slice, kind: str) -> Iterator[str]:
    for field, value in fields(buffer, span.start, span.stop):
        if not isinstance(value, slice):
            continue
        if kind == "tensor" and field == 13:  # external_data
            entry = dict(fields(buffer, value.start, value.stop))
            if text(buffer, entry.get(1)) == "location":
                yield text(buffer, entry.get(2))
        elif field in _INSIDE.get(kind, {}):
            yield from _locations(buffer, value, _INSIDE[kind][field])


def _read(buffer: Buffer, what: str) -> Model:
    if _is_in_orts_format(buffer):
        return UNREAD
    try:
        return _model(buffer)
    except (IndexError, ValueError, RecursionError) as error:
        raise ModelError(f"{what}: not an ONNX model, or one that is cut short ({error})") from error


def _model(buffer: Buffer) -> Model:
    opsets: dict[str, int] = {}
    nodes: list[Node] = []
    bodies: set[tuple[str, str, str]] = set()
    graphs: list[_Scope] = []
    ir_version = 0
    for field, value in fields(buffer, 0, len(buffer)):
        if field == 1:
            ir_version = number(value)
        elif field == 7 and isinstance(value, slice):  # graph
            graphs.append(_scope(buffer, value))
            nodes += _nodes(buffer, graphs[-1], {}, None, inner=False)
        elif field == 8 and isinstance(value, slice):  # opset_import
            opset = dict(fields(buffer, value.start, value.stop))
            opsets[_domain(text(buffer, opset.get(1)))] = number(opset.get(2))
        elif field == 25 and isinstance(value, slice):  # functions
            body, inside = _function(buffer, value)
            bodies.add(body)
            nodes += inside
    if len(graphs) != 1:
        raise ValueError(f"it holds {len(graphs)} graphs")
    inputs, outputs, element_types = _tensors(graphs[0])
    return Model(opsets, tuple(nodes), frozenset(bodies), inputs, outputs, element_types, ir_version)


# Element types by the names of values: those of a graph inside another are seen through to the outer ones.
_Types = dict[str, int] | ChainMap[str, int]


@dataclass(frozen=True)
class _Scope:
    """A graph as it lies in memory: where its nodes are, and the values that it says something of."""

    nodes: list[slice]
    values: dict[int, list[Value]]
    """By field: 11 inputs, 12 outputs, 13 values between, of which the shapes aren't read."""
    weights: list[tuple[str, int]]


def _scope(buffer: Buffer, span: slice) -> _Scope:
    scope = _Scope([], {11: [], 12: [], 13: []}, [])
    for field, value in fields(buffer, span.start, span.stop):
        if not isinstance(value, slice):
            continue
        if field == 1:
            scope.nodes.append(value)
        elif field == 5:  # initializer
            scope.weights.append(_tensor(buffer, value))
        elif field in scope.values:
            scope.values[field].append(_value_info(buffer, value, with_shape=field != 13))
    return scope


def _tensors(graph: _Scope) -> tuple[tuple[Value, ...], tuple[Value, ...], frozenset[int]]:
    """Return the inputs and outputs of the model's graph, and the element types that it states."""
    types = {value.element_type for values in graph.values.values() for value in values}
    types |= {kind for _, kind in graph.weights}
    # Before IR 4 every initializer was listed as an input, too.
    filled = {name for name, _ in graph.weights}
    inputs = tuple(value for value in graph.values[11] if value.name not in filled)
    return inputs, tuple(graph.values[12]), frozenset(types - {0})


def _function(buffer: Buffer, span: slice) -> tuple[tuple[str, str, str], list[Node]]:
    parts = list(fields(buffer, span.start, span.stop))
    single = dict(parts)
    op = (_domain(text(buffer, single.get(10))), text(buffer, single.get(1)))
    inside = [
        node
        for field, value in parts
        if field == 7 and isinstance(value, slice)
        for node in _node(buffer, value, {}, op, inner=False)
    ]
    return (*op, text(buffer, single.get(13))), inside


_UNREADABLE = range(9, 15)  # lists of tensors, of graphs; sparse tensors; types


def _nodes(
    buffer: Buffer, graph: _Scope, outer: _Types, in_function: tuple[str, str] | None, *, inner: bool
) -> Iterator[Node]:
    own: dict[str, int] = {}
    for values in graph.values.values():
        own |= {value.name: value.element_type for value in values if value.element_type}
    own |= dict(graph.weights)
    types: _Types = own
    if outer:
        types = outer.new_child(own) if isinstance(outer, ChainMap) else ChainMap(own, outer)
    for node in graph.nodes:
        yield from _node(buffer, node, types, in_function, inner=inner)


def _node(
    buffer: Buffer, span: slice, types: _Types, in_function: tuple[str, str] | None, *, inner: bool
) -> Iterator[Node]:
    name = op_type = domain = overload = ""
    inputs: list[int | None] = []
    outputs = 0
    graphs: list[slice] = []
    metadata: dict[str, str] = {}
    attributes: list[str] = []
    unreadable: list[str] = []
    for field, value in fields(buffer, span.start, span.stop):
        if field == 1:
            given = text(buffer, value)
            inputs.append(types.get(given) if given else 0)
        elif field == 2:
            outputs += 1
        elif field == 3:
            name = text(buffer, value)
        elif field == 4:
            op_type = text(buffer, value)
        elif field == 7:
            domain = text(buffer, value)
        elif field == 8:
            overload = text(buffer, value)
        elif field == 5 and isinstance(value, slice):
            attribute = ""
            for part, content in fields(buffer, value.start, value.stop):  # there may be many numbers
                if part == 1:
                    attribute = text(buffer, content)
                    attributes.append(attribute)
                elif part == 20 and content in _UNREADABLE:
                    unreadable.append(attribute)
                elif part in (6, 11) and isinstance(content, slice):
                    graphs.append(content)
        elif field == 9 and isinstance(value, slice):  # metadata_props
            entry = dict(fields(buffer, value.start, value.stop))
            metadata[text(buffer, entry.get(1))] = text(buffer, entry.get(2))
    named = name, _domain(domain), op_type
    lists = tuple(attributes), tuple(unreadable)
    yield Node(*named, tuple(inputs), in_function, overload, metadata, outputs, *lists, inner)
    for graph in graphs:
        yield from _nodes(buffer, _scope(buffer, graph), types, in_function, inner=True)


def _value_info(buffer: Buffer, span: slice, *, with_shape: bool) -> Value:
    """Return what a ValueInfoProto says."""
    info = dict(fields(buffer, span.start, span.stop))
    name, of_type = text(buffer, info.get(1)), info.get(2)
    if not isinstance(of_type, slice):
        return Value(name)
    for field, value in fields(buffer, of_type.start, of_type.stop):
        if field in _KINDS and isinstance(value, slice):
            if field != 1:
                return Value(name, _KINDS[field])
            tensor = dict(fields(buffer, value.start, value.stop))
            shape = _shape(buffer, tensor.get(2)) if with_shape else None
            return Value(name, _KINDS[field], number(tensor.get(1, 0)), shape)
    return Value(name)


def _shape(buffer: Buffer, shape: int | slice | None) -> tuple[Dim, ...] | None:
    """Return what a TensorShapeProto says; None where there is none."""
    if not isinstance(shape, slice):
        return None
    dims: list[Dim] = []
    for field, value in fields(buffer, shape.start, shape.stop):
        if field == 1 and isinstance(value, slice):
            dim = dict(fields(buffer, value.start, value.stop))
            size = number(dim[1]) if 1 in dim else -1
            # A negative size (two's complement in 64 bits) is none.
            dims.append(size if 0 <= size < 1 << 63 else text(buffer, dim.get(2)) or None)
    return tuple(dims)


def _tensor(buffer: Buffer, span: slice) -> tuple[str, int]:
    """Return a TensorProto's name and element type, its data stepped over."""
    tensor = dict(fields(buffer, span.start, span.stop))
    return text(buffer, tensor.get(8)), number(tensor.get(2, 0))


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
