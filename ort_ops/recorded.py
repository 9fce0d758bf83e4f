"""A call of a torch Function as a file records it: in the metadata of the node that stands for it."""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import ort_ops

from .model import Node

if TYPE_CHECKING:  # the package loads it when it is first asked for, and torch with it
    import ort_ops.torch_values

__all__ = [
    "CALL",
    "FUNCTION",
    "MAIN",
    "REASON",
    "Input",
    "RecordedCall",
    "UnrecordableError",
    "function_name",
    "is_named",
    "record",
    "restore",
]

FUNCTION = "ort_ops.function"
"""The entry of a node's metadata that names the Function."""

REASON = "ort_ops.reason"
"""The entry that says why a node doesn't stand for a whole call."""

CALL = "ort_ops.call"
"""The entry that records the call's arguments."""

MAIN = "__main__"
"""The module that a Function of a script is recorded with, since Python calls every script so."""

_MANY = 1 << 16  # element types: more than ONNX will have


@dataclass(frozen=True)
class Input:
    """An argument that is an input of the node; ``number`` where the call was given its value, an integer."""

    index: int
    number: bool = False


@dataclass(frozen=True)
class RecordedCall:
    """A call as it is recorded in a node's metadata.

    ``function`` is ``"module:qualified.name"``; ``args`` and ``kwargs`` are the arguments in JSON's terms;
    ``inputs`` and ``outputs`` are the node's ONNX element types, 0 for an input that is absent; ``autocast``
    has the device and the dtype that were on; ``writes`` says that forward writes into its arguments;
    ``grads`` which inputs of the node required a gradient, as a parameter does: a forward may go by that.
    """

    function: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    inputs: Sequence[int]
    outputs: Sequence[int]
    autocast: Sequence[tuple[str, str]] = ()
    writes: bool = False
    grads: Sequence[int] = ()

    def metadata(self) -> dict[str, str]:
        """Return the entries for a node's metadata_props."""
        fields = {name: value for name, value in vars(self).items() if name != "function"}
        if not self.grads:
            del fields["grads"]
        return {FUNCTION: self.function, CALL: json.dumps(fields, separators=(",", ":"))}

    def check(self) -> None:
        """Raise TypeError where a field is of a type that it can't be: a file may say anything."""
        lists: tuple[Any, ...] = (self.args, self.inputs, self.outputs, self.autocast)
        lists += () if self.grads == () else (self.grads,)
        if not all(isinstance(each, list) for each in lists) or not isinstance(self.kwargs, dict):
            raise TypeError("expected lists and a dictionary")
        if not all(type(n) is int and 0 <= n < _MANY for n in (*self.inputs, *self.outputs, *self.grads)):
            raise TypeError("expected element types by ONNX's numbers")

    @classmethod
    def of_node(cls, node: Node) -> "RecordedCall | None":
        """Return the call that a node stands for, or None; raises ValueError where it isn't well formed."""
        if FUNCTION not in node.metadata or CALL not in node.metadata:
            return None
        try:
            call = cls(function=node.metadata[FUNCTION], **json.loads(node.metadata[CALL]))
            call.check()
            return call
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"what node {node.name!r} records of its call can't be read: {error}") from error


class UnrecordableError(Exception):
    """An argument can't be written into a file; the text says which."""


def function_name(function: type) -> str:
    """Return the name under which a Function is recorded."""
    return f"{function.__module__}:{function.__qualname__}"


def is_named(function: type, name: str) -> bool:
    """Tell whether a recorded name may be a Function's; a script's is ``"__main__:F"``, whichever it is."""
    module, _, qualified = name.partition(":")
    return function_name(function) == name or (module == MAIN and function.__qualname__ == qualified)


def record(value: Any) -> Any:
    """Return an argument in JSON's terms; raises UnrecordableError for what these don't hold."""
    if type(value) in (type(None), bool, int, str):
        return value
    if isinstance(value, float) and not isinstance(value, np.generic):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Input):
        return {"number" if value.number else "input": value.index}
    if type(value) in (list, tuple):
        return {type(value).__name__: [record(item) for item in value]}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: record(item) for key, item in value.items()}}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {kind: [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    found = ort_ops.torch_values.record_torch(value)
    if found is None:
        raise UnrecordableError(f"a {type(value).__qualname__} can't be recorded in a file")
    return found


def restore(value: Any) -> Any:
    """Return the argument that ``record`` wrote."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind in ("list", "tuple"):
        items = [restore(item) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {key: restore(item) for key, item in content.items()}
    if kind in ("torch", "device", "size", "tensor"):
        return ort_ops.torch_values.restore_torch(kind, content)
    if kind in ("array", "scalar"):
        dtype, shape, data = content
        array = np.frombuffer(bytearray(base64.b64decode(data)), np.dtype(dtype)).reshape(shape)
        return array if kind == "array" else array[()]
    makers: dict[str, Callable[[Any], Any]] = {
        "input": lambda index: Input(_index(index)),
        "number": lambda index: Input(_index(index), True),
        "float": float,
        "bytes": base64.b64decode,
        "complex": lambda parts: complex(*parts),
    }
    return makers[kind](content)


def _index(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of an input")
    return value
