"""What a model file asks for: its nodes, domains, opsets and functions, read without the onnx package.

An ONNX file is a protocol buffer of type ModelProto. Only its structure is walked here; the weights are
stepped over by their length, so that reading a file of gigabytes touches a few of its pages. Field
numbers are those of onnx.proto3.
"""

import dataclasses
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .errors import ModelError
from .schema import Dim

__all__ = ["Model", "Node", "Value", "read_model"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Buffer = bytes | mmap.mmap

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
    it doesn't, 0 where the input is absent. ``in_function`` is the body that the node stands in; ``metadata``
    what an exporter noted about it.
    """

    name: str
    domain: str
    op_type: str
    input_types: tuple[int | None, ...]
    in_function: tuple[str, str] | None = None
    overload: str = ""
    """Which of several function bodies of its operator the node asks for (IR 10)."""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

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


def read_model(source: str | os.PathLike[str] | bytes) -> Model:
    """Read a model from a file or from its bytes; raises ModelError where it is no ONNX model."""
    if isinstance(source, bytes):
        return _read(source, "the given bytes")
    with open(source, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ModelError(f"{os.fspath(source)} is empty; expected an ONNX model")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _read(mapped, os.fspath(source))


def _read(buffer: Buffer, what: str) -> Model:
    try:
        return _model(buffer)
    except (IndexError, ValueError, RecursionError) as error:
        raise ModelError(f"{what}: not an ONNX model, or one that is cut short ({error})") from error


def _model(buffer: Buffer) -> Model:
    opsets: dict[str, int] = {}
    nodes: list[Node] = []
    bodies: set[tuple[str, str, str]] = set()
    graphs: list[slice] = []
    ir_version = 0
    for field, value in _fields(buffer, 0, len(buffer)):
        if field == 1:
            ir_version = _number(value)
        elif field == 7 and isinstance(value, slice):  # graph
            graphs.append(value)
            nodes += _graph(buffer, value, {}, None)
        elif field == 8 and isinstance(value, slice):  # opset_import
            opset = dict(_fields(buffer, value.start, value.stop))
            opsets[_domain(_text(buffer, opset.get(1)))] = _number(opset.get(2))
        elif field == 25 and isinstance(value, slice):  # functions
            body, inside = _function(buffer, value)
            bodies.add(body)
            nodes += inside
    if len(graphs) != 1:
        raise ValueError(f"it holds {len(graphs)} graphs")
    inputs, outputs, element_types = _tensors(buffer, graphs[0])
    return Model(opsets, tuple(nodes), frozenset(bodies), inputs, outputs, element_types, ir_version)


def _tensors(buffer: Buffer, graph: slice) -> tuple[tuple[Value, ...], tuple[Value, ...], frozenset[int]]:
    """Return the inputs and outputs of the model's graph, and the element types that it states."""
    fields = [(f, v) for f, v in _fields(buffer, graph.start, graph.stop) if isinstance(v, slice)]
    weights = [_tensor(buffer, value) for field, value in fields if field == 5]
    inputs, outputs, between = (
        tuple(_value_info(buffer, value) for field, value in fields if field == wanted)
        for wanted in (11, 12, 13)
    )
    types = {value.element_type for value in (*inputs, *outputs, *between)} | {kind for _, kind in weights}
    # Before IR 4 every initializer was listed as an input, too.
    filled = {name for name, _ in weights}
    return tuple(value for value in inputs if value.name not in filled), outputs, frozenset(types - {0})


def _function(buffer: Buffer, span: slice) -> tuple[tuple[str, str, str], list[Node]]:
    fields = list(_fields(buffer, span.start, span.stop))
    single = dict(fields)
    op = (_domain(_text(buffer, single.get(10))), _text(buffer, single.get(1)))
    inside = [
        node
        for field, value in fields
        if field == 7 and isinstance(value, slice)
        for node in _node(buffer, value, {}, op)
    ]
    return (*op, _text(buffer, single.get(13))), inside


def _graph(
    buffer: Buffer, span: slice, outer: Mapping[str, int], in_function: tuple[str, str] | None
) -> Iterator[Node]:
    fields = list(_fields(buffer, span.start, span.stop))
    types = dict(outer)
    for field, value in fields:
        if not isinstance(value, slice):
            continue
        if field in (11, 12, 13):  # input, output, value_info
            info = _value_info(buffer, value)
            if info.element_type:
                types[info.name] = info.element_type
        elif field == 5:  # initializer
            name, element_type = _tensor(buffer, value)
            types[name] = element_type
    for field, value in fields:
        if field == 1 and isinstance(value, slice):
            yield from _node(buffer, value, types, in_function)


def _node(
    buffer: Buffer, span: slice, types: Mapping[str, int], in_function: tuple[str, str] | None
) -> Iterator[Node]:
    name = op_type = domain = overload = ""
    inputs: list[int | None] = []
    graphs: list[slice] = []
    metadata: dict[str, str] = {}
    for field, value in _fields(buffer, span.start, span.stop):
        if field == 1:
            text = _text(buffer, value)
            inputs.append(types.get(text) if text else 0)
        elif field == 3:
            name = _text(buffer, value)
        elif field == 4:
            op_type = _text(buffer, value)
        elif field == 7:
            domain = _text(buffer, value)
        elif field == 8:
            overload = _text(buffer, value)
        elif field == 5 and isinstance(value, slice):
            attribute = _fields(buffer, value.start, value.stop)
            graphs += [v for f, v in attribute if f in (6, 11) and isinstance(v, slice)]
        elif field == 9 and isinstance(value, slice):  # metadata_props
            entry = dict(_fields(buffer, value.start, value.stop))
            metadata[_text(buffer, entry.get(1))] = _text(buffer, entry.get(2))
    yield Node(name, _domain(domain), op_type, tuple(inputs), in_function, overload, metadata)
    for graph in graphs:
        yield from _graph(buffer, graph, types, in_function)


def _value_info(buffer: Buffer, span: slice) -> Value:
    """Return what a ValueInfoProto says."""
    info = dict(_fields(buffer, span.start, span.stop))
    name, of_type = _text(buffer, info.get(1)), info.get(2)
    if not isinstance(of_type, slice):
        return Value(name)
    for field, value in _fields(buffer, of_type.start, of_type.stop):
        if field in _KINDS and isinstance(value, slice):
            if field != 1:
                return Value(name, _KINDS[field])
            tensor = dict(_fields(buffer, value.start, value.stop))
            return Value(name, _KINDS[field], _number(tensor.get(1, 0)), _shape(buffer, tensor.get(2)))
    return Value(name)


def _shape(buffer: Buffer, shape: int | slice | None) -> tuple[Dim, ...] | None:
    """Return what a TensorShapeProto says; None where there is none."""
    if not isinstance(shape, slice):
        return None
    dims: list[Dim] = []
    for field, value in _fields(buffer, shape.start, shape.stop):
        if field == 1 and isinstance(value, slice):
            dim = dict(_fields(buffer, value.start, value.stop))
            size = _number(dim[1]) if 1 in dim else -1
            # A negative size (two's complement in 64 bits) is none.
            dims.append(size if 0 <= size < 1 << 63 else _text(buffer, dim.get(2)) or None)
    return tuple(dims)


def _tensor(buffer: Buffer, span: slice) -> tuple[str, int]:
    """Return a TensorProto's name and element type, its data stepped over."""
    tensor = dict(_fields(buffer, span.start, span.stop))
    return _text(buffer, tensor.get(8)), _number(tensor.get(2, 0))


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _text(buffer: Buffer, value: int | slice | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, slice):
        raise ValueError("a number where a text belongs")
    return bytes(buffer[value]).decode()


def _number(value: int | slice | None) -> int:
    if not isinstance(value, int):
        raise ValueError("a text where a number belongs")
    return value


def _fields(buffer: Buffer, start: int, stop: int) -> Iterator[tuple[int, int | slice]]:
    """Give each field of a message: its number and its value, a slice of the buffer for bytes."""
    at = start
    while at < stop:
        key, at = _varint(buffer, at, stop)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(buffer, at, stop)
            yield key >> 3, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            length, at = _varint(buffer, at, stop)
        if length is None or at + length > stop:
            raise ValueError(f"byte {at}: no field of a protocol buffer")
        yield key >> 3, slice(at, at + length)
        at += length


def _varint(buffer: Buffer, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 70:
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError(f"byte {at}: a number that does not end")
