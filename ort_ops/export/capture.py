"""Functions made to show while PyTorch captures a program: each call becomes one operator of the program.

What is replaced is ``forward``, never ``apply``, which callers keep in variables and which is C++ in newer
releases. Everything is put back afterwards, whatever happens.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _get_tracing_state
from torch.autograd import Function
from torch.compiler import is_dynamo_compiling
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ort_ops.errors import ExportError
from ort_ops.parameters import given_arguments, with_parameters_of

from .calls import make_call
from .dynamo import Sees, call_in_dynamo, dismiss, enrol, is_captured
from .operator import CALL
from .own import OWN, is_running_own, own_method, running_own, takes_context
from .running import versions, written_since
from .torchscript import Writing, mark_symbolic

__all__ = ["functions_shown", "shown_functions", "under_transform"]


class Host(Sees, Protocol):
    """Who is told of the calls, and what else there is to ask of it."""

    def computed(self, function: type[Function], result: Any) -> Any:
        """Return what a call gives outside of any capture."""

    def keeps(self) -> bool:
        """Tell whether the calls of this thread are of any interest."""

    def writing(self) -> Writing | None:
        """Return what the TorchScript exporter's calls of ``symbolic`` are noted in."""


@contextlib.contextmanager
def functions_shown(host: Host) -> Iterator[None]:
    """Show every call of a Function that has a ``symbolic`` to ``host``, until the end."""
    with contextlib.ExitStack() as undo:
        shown = _Shown(host, undo)
        for function in _all_functions(Function):
            shown.add(function)
        shown.watch()
        undo.enter_context(_kept_when_unused())
        yield


class _Shown:
    """The Functions that are shown, and how to put each back."""

    def __init__(self, host: Host, undo: contextlib.ExitStack) -> None:
        self._host, self._undo = host, undo

    def add(self, function: type[Function]) -> None:
        """Show a Function, if it has a ``symbolic`` and is not shown yet."""
        if not _has_symbolic(function) or hasattr(function.__dict__.get("forward"), OWN):
            return
        own = own_method(function, "forward")
        number = enrol(function, own, self._host)
        self._undo.callback(dismiss, number)
        forward = _replace_forward(function, own, self._host, number)
        _set(self._undo, function, "forward", forward)
        symbolic = mark_symbolic(function, own_method(function, "symbolic"), self._host.writing)
        _set(self._undo, function, "symbolic", symbolic)
        if not takes_context(function):
            _set(
                self._undo,
                function,
                "setup_context",
                _replace_setup(function.setup_context, self._host, number),
            )

    def watch(self) -> None:
        """Show Functions that are defined from now on."""

        def __init_subclass__(cls: Any, /, **keywords: Any) -> None:  # noqa: N807
            super(Function, cls).__init_subclass__(**keywords)  # type: ignore[misc]
            self.add(cls)

        _set(self._undo, Function, "__init_subclass__", classmethod(__init_subclass__))


def shown_functions() -> Iterator[type[Function]]:
    """Give every Function that has a ``symbolic``."""
    return (function for function in _all_functions(Function) if _has_symbolic(function))


def _has_symbolic(function: type[Function]) -> bool:
    return callable(getattr(function, "symbolic", None)) and function.forward is not Function.forward


def _all_functions(base: type[Function]) -> Iterator[type[Function]]:
    """Give every class derived from ``base``, each before those derived from it."""
    seen = set()
    waiting = list(base.__subclasses__())
    while waiting:
        function = waiting.pop(0)
        if function not in seen:
            seen.add(function)
            yield function
            waiting += function.__subclasses__()


def _set(undo: contextlib.ExitStack, owner: type, name: str, value: Any) -> None:
    """Set an attribute of a class, and have it put back or deleted again."""
    if name in owner.__dict__:
        undo.callback(setattr, owner, name, owner.__dict__[name])
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, value)


def _replace_forward(
    function: type[Function], own: Callable[..., Any], host: Host, number: int
) -> "staticmethod[..., Any]":
    """Return what stands in the place of a Function's forward while it is shown."""
    skip = 1 if takes_context(function) else 0

    def forward(*arguments: Any, **keywords: Any) -> Any:
        arguments, keywords = given_arguments(own, arguments, keywords)
        if is_dynamo_compiling():
            if is_captured(number):  # a branch of torch.cond, or a strict capture
                return call_in_dynamo(number, arguments[skip:], keywords)
            return own(*arguments, **keywords)
        if is_running_own() or not host.keeps():
            return own(*arguments, **keywords)
        if get_proxy_mode() is not None:
            return _call(function, own, host, (arguments[skip:], keywords))
        if _get_tracing_state() is not None:
            return _trace(function, own, host, (arguments, arguments[skip:], keywords))
        with running_own():
            return host.computed(function, own(*arguments, **keywords))

    replacement = with_parameters_of(own, forward)
    setattr(replacement, OWN, own)
    return staticmethod(replacement)


def _replace_setup(own: Callable[..., Any], host: Host, number: int) -> "staticmethod[..., Any]":
    """Return what stands in the place of setup_context: a capture differentiates nothing."""

    @functools.wraps(own)
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        if is_dynamo_compiling():
            return None if is_captured(number) else own(ctx, inputs, output)
        if get_proxy_mode() is not None and host.keeps():
            return None
        return own(ctx, inputs, output)

    return staticmethod(setup_context)


def _call(
    function: type[Function],
    own: Callable[..., Any],
    host: Host,
    given: tuple[tuple[Any, ...], dict[str, Any]],
) -> Any:
    """Capture a call: one operator instead of what forward computes with."""
    if _are_functorch_transforms_active():
        raise under_transform(function)
    call, tensors, sizes = make_call(function, own, given, _is_tensor, host.fake(function))
    host.see(call)
    results = CALL(tensors, sizes, call.key)
    for tensor, result in call.written.items():
        results[result] = tensors[tensor].copy_(results[result])
    return call.rebuild(results)


def under_transform(function: type[Function]) -> ExportError:
    """Return what to say of a call that a transform of torch.func takes apart."""
    return ExportError(
        f"{function.__qualname__} is called under a transform of torch.func (vmap, grad), which computes "
        "through it; no node can stand for that; expected a call on the whole batch"
    )


def _trace(
    function: type[Function],
    own: Callable[..., Any],
    host: Host,
    given: tuple[tuple[Any, ...], tuple[Any, ...], dict[str, Any]],
) -> Any:
    """Note a call that the TorchScript exporter traces, and compute it."""
    everything, arguments, keywords = given
    call, tensors, _ = make_call(function, own, (arguments, keywords), _is_tensor)
    host.see(call)
    before = versions(tensors)
    with running_own():
        returned = own(*everything, **keywords)
    call.note(returned, tensors, written_since(before, tensors))
    return returned


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


@contextlib.contextmanager
def _kept_when_unused() -> Iterator[None]:
    """Keep the operator in a captured program even where nothing reads it: each call is to be found there."""
    effects = torch.fx.node._side_effectful_functions
    added = CALL not in effects
    effects.add(CALL)
    try:
        yield
    finally:
        if added:
            effects.discard(CALL)
