"""Calls that Dynamo traces: those in the branches of torch.cond, and all of them in a strict capture.

Dynamo looks into the Python code that it runs. What it must not look into is given constants only and gives
one back (``assume_constant_result``).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

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


_F = TypeVar("_F", bound=Callable[..., Any])
_PLACE = "ort_ops: tensor "  # a string, since Dynamo takes those for constants
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


def _constant(function: _F) -> _F:
    """Mark a function as torch.compiler.assume_constant_result does, which loads Dynamo for it: a second."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def is_captured(number: int) -> bool:
    """Tell whether a call is to be captured: not where the model itself is compiled."""
    return number in _enrolled and _enrolled[number][2].captures()


def call_in_dynamo(number: int, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Capture a call, in code that Dynamo can trace."""
    tensors: list[Tensor] = []
    key = _see(number, _take_out(list(arguments), tensors), _take_out(keywords, tensors))
    results = CALL(tensors, [], key)  # before it nobody knows what it returns
    return _put_in(_returned(key), results)


def _take_out(value: Any, tensors: list[Tensor]) -> Any:
    """Return arguments with marks in the place of the tensors, which are added to the others."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return _PLACE
    if isinstance(value, list):
        return [_take_out(each, tensors) for each in value]
    if isinstance(value, tuple):
        return tuple([_take_out(each, tensors) for each in value])
    if isinstance(value, dict):
        return {name: _take_out(each, tensors) for name, each in value.items()}
    return value


def _put_in(value: Any, tensors: Sequence[Tensor]) -> Any:
    """Return results with the tensors in the place of the marks that name them."""
    if isinstance(value, str) and value.startswith(_PLACE):
        return tensors[int(value[len(_PLACE) :])]
    if isinstance(value, list):
        return [_put_in(each, tensors) for each in value]
    if isinstance(value, tuple):
        return tuple([_put_in(each, tensors) for each in value])
    if isinstance(value, dict):
        return {name: _put_in(each, tensors) for name, each in value.items()}
    return value


@_constant
def _see(number: int, arguments: Sequence[Any], keywords: dict[str, Any]) -> str:
    function, own, host = _enrolled[number]
    given = (tuple(arguments), keywords)
    call, _, _ = make_call(function, own, given, lambda leaf: leaf == _PLACE, host.fake(function))
    _calls[call.key] = call
    host.see(call)
    return call.key


@_constant
def _returned(key: str) -> Any:
    call = _calls[key]
    return call.rebuild([f"{_PLACE}{index}" for index in range(len(call.dtypes))])
