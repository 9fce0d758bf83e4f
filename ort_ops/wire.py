"""Protocol buffers, of which ONNX files are made: the fields of messages, as they lie in memory."""

import contextlib
import mmap
import os
from collections.abc import Iterator

from .errors import ModelError

__all__ = ["Buffer", "content_of", "fields", "number", "text"]

_SMALL = 1 << 26  # bytes of a file that is read as a whole

_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_KEY = 0xFFFFFFFF  # bits of a field's key

Buffer = bytes | mmap.mmap


@contextlib.contextmanager
def content_of(path: str | os.PathLike[str]) -> Iterator[Buffer]:
    """Give a file's content; raises ModelError where it is empty.

    A large one is mapped into memory: to cut it short while it is read would end the process.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise ModelError(f"{os.fspath(path)} is empty; expected an ONNX model")
        if size <= _SMALL:
            yield file.read()
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped


def text(buffer: Buffer, value: int | slice | None) -> str:
    """Return a field that is a text; raises ValueError for one that isn't."""
    if value is None:
        return ""
    if not isinstance(value, slice):
        raise ValueError("a number where a text belongs")
    return bytes(buffer[value]).decode()


def number(value: int | slice | None) -> int:
    """Return a field that is a number; raises ValueError for one that isn't."""
    if not isinstance(value, int):
        raise ValueError("a text where a number belongs")
    return value


def fields(buffer: Buffer, start: int, stop: int) -> Iterator[tuple[int, int | slice]]:
    """Give each field of a message: its number and its value, a slice of the buffer for bytes."""
    at = start
    while at < stop:
        key = buffer[at]  # most numbers are of one byte
        if key < 0x80:
            at += 1
        else:
            key, at = _varint(buffer, at, stop)
            key &= _KEY  # as ONNX Runtime reads it: what is beyond hides no field from us alone
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(buffer, at, stop)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            length = buffer[at] if at < stop else 0x80
            length, at = (length, at + 1) if length < 0x80 else _varint(buffer, at, stop)
        else:
            length = _FIXED.get(wire, stop)  # more than is there: no field
        if at + length > stop:
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
