"""What a model file asks for: its nodes, domains, opsets and functions, read without the onnx package.

An ONNX file is a protocol buffer of type ModelProto. Only its structure is walked here; the weights are
stepped over by their length, so that reading a file of gigabytes touches a few of its pages. Field
numbers are those of onnx.proto3.
"""

import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .errors import ModelError

__all__ = ["Model", "Node", "read_model"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Buffer = bytes | mmap.mmap


@dataclass(frozen=True)
class Node:
    """A node of the model's graph, of a graph inside it, or of a function body.

    ``input_types`` are the ONNX element types of its inputs as far as the file states them: None where
    it doesn't, 0 where the input is absent. ``in_function`` is the body that the node stands in.
    """

    name: str
    domain: str
    op_type: str
    input_types: tuple[int | None, ...]
    in_function: tuple[str, str] | None = None

    @property
    def op(self) -> tuple[str, str]:
        """Return the domain and the operator's name."""
        return self.domain, self.op_type


@dataclass(frozen=True)
class Model:
    """What a model file asks of a runtime."""

    opsets: Mapping[str, int]
    nodes: tuple[Node, ...]
    functions: frozenset[tuple[str, str]]
    """Domain and name of each operator that the file carries a body for."""

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
    functions: set[tuple[str, str]] = set()
    graphs = 0
    for field, value in _fields(buffer, 0, len(buffer)):
        if field == 7 and isinstance(value, slice):  # graph
            graphs += 1
            nodes += _graph(buffer, value, {}, None)
        elif field == 8 and isinstance(value, slice):  # opset_import
            opset = dict(_fields(buffer, value.start, value.stop))
            opsets[_domain(_text(buffer, opset.get(1)))] = _number(opset.get(2))
        elif field == 25 and isinstance(value, slice):  # functions
            op, inside = _function(buffer, value)
            functions.add(op)
            nodes += inside
    if graphs != 1:
        raise ValueError(f"it holds {graphs} graphs")
    return Model(opsets, tuple(nodes), frozenset(functions))


def _function(buffer: Buffer, span: slice) -> tuple[tuple[str, str], list[Node]]:
    fields = list(_fields(buffer, span.start, span.stop))
    single = dict(fields)
    op = (_domain(_text(buffer, single.get(10))), _text(buffer, single.get(1)))
    inside = [
        node
        for field, value in fields
        if field == 7 and isinstance(value, slice)
        for node in _node(buffer, value, {}, op)
    ]
    return op, inside


def _graph(
    buffer: Buffer, span: slice, outer: Mapping[str, int], in_function: tuple[str, str] | None
) -> Iterator[Node]:
    fields = list(_fields(buffer, span.start, span.stop))
    types = dict(outer)
    for field, value in fields:
        if not isinstance(value, slice):
            continue
        if field in (11, 12, 13):  # input, output, value_info
            name, element_type = _value_info(buffer, value)
            if element_type:
                types[name] = element_type
        elif field == 5:  # initializer
            name, element_type = _tensor(buffer, value)
            types[name] = element_type
    for field, value in fields:
        if field == 1 and isinstance(value, slice):
            yield from _node(buffer, value, types, in_function)


def _node(
    buffer: Buffer, span: slice, types: Mapping[str, int], in_function: tuple[str, str] | None
) -> Iterator[Node]:
    name = op_type = domain = ""
    inputs: list[int | None] = []
    graphs: list[slice] = []
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
        elif field == 5 and isinstance(value, slice):
            attribute = _fields(buffer, value.start, value.stop)
            graphs += [v for f, v in attribute if f in (6, 11) and isinstance(v, slice)]
    yield Node(name, _domain(domain), op_type, tuple(inputs), in_function)
    for graph in graphs:
        yield from _graph(buffer, graph, types, in_function)


def _value_info(buffer: Buffer, span: slice) -> tuple[str, int]:
    """Return a ValueInfoProto's name and, where it is a tensor, its element type (else 0)."""
    info = dict(_fields(buffer, span.start, span.stop))
    name = _text(buffer, info.get(1))
    of_type = info.get(2)
    if not isinstance(of_type, slice):
        return name, 0
    tensor = dict(_fields(buffer, of_type.start, of_type.stop)).get(1)
    if not isinstance(tensor, slice):
        return name, 0
    return name, _number(dict(_fields(buffer, tensor.start, tensor.stop)).get(1, 0))


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
