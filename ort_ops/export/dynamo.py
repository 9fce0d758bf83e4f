"""Calls that Dynamo traces: those in the branches of torch.cond, and all of them in a strict capture.

Dynamo looks into the Python code that it runs. What it must not look into is given constants only and gives
one back (``assume_constant_result``).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from .calls import Call, make_call
from .operator import CALL

__all__ = ["Sees", "call_in_dynamo", "dismiss", "enrol", "is_captured"]


class Sees(Protocol):
    """Who is told of the calls."""

    def captures(self) -> bool:
        """Tell whether what Dynamo traces in this thread is for a captured program."""

    def see(self, call: Call) -> None:
        """Note a call that was captured or traced."""

    def fake(self, function: type[Function]) -> Callable[..., Any] | None:
        """Return what gives a Function's dtypes and shapes, where its forward can't."""


_PLACE = object()  # of a tensor among constants
_numbers = itertools.count()
_enrolled: dict[int, tuple[type[Function], Callable[..., Any], Sees]] = {}
_calls: dict[str, Call] = {}  # for good: Dynamo reuses what it compiled, keys included


def enrol(function: type[Function], own: Callable[..., Any], host: Sees) -> int:
    """Return a number by which code that Dynamo traces names a Function."""
    number = next(_numbers)
    _enrolled[number] = (function, own, host)
    return number


def dismiss(number: int) -> None:
    """Forget a Function."""
    del _enrolled[number]


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def is_captured(number: int) -> bool:
    """Tell whether a call is to be captured: not where the model itself is compiled."""
    return number in _enrolled and _enrolled[number][2].captures()


def call_in_dynamo(number: int, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Capture a call, in code that Dynamo can trace."""
    values = [*arguments, *keywords.values()]
    tensors = [value for value in values if isinstance(value, Tensor)]
    places = tuple(isinstance(value, Tensor) for value in values)
    constants = tuple(None if isinstance(value, Tensor) else value for value in values)
    key = _see(number, places, constants, tuple(keywords))
    results = CALL(tensors, [], key)
    return results[0] if _is_single(key) else tuple(results)


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _see(number: int, places: tuple[bool, ...], constants: tuple[Any, ...], names: tuple[str, ...]) -> str:
    function, own, host = _enrolled[number]
    values = [_PLACE if is_tensor else value for is_tensor, value in zip(places, constants, strict=True)]
    count = len(values) - len(names)
    given = (tuple(values[:count]), dict(zip(names, values[count:], strict=True)))
    call, _, _ = make_call(function, own, given, lambda leaf: leaf is _PLACE, host.fake(function))
    _calls[call.key] = call
    host.see(call)
    return call.key


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _is_single(key: str) -> bool:
    results = _calls[key].results
    return results is not None and results[1].is_leaf()
