"""Which Functions a model calls, among those that its file names.

A file names no code to run by itself. What the caller's own model calls is code that the caller named,
though, and may compute the nodes that stand for its calls.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import onnx_ir as ir
from torch.autograd import Function

from ort_ops.parameters import given_arguments, with_parameters_of
from ort_ops.recorded import CALL, FUNCTION, is_named

from .modes import nothing_compiled

__all__ = ["names_of_calls", "noting_calls", "noting_results"]


def names_of_calls(model: ir.Model, *, with_body: bool = True) -> set[str]:
    """Return the Functions that a file names for whole calls: by any node, or one without a function body."""
    return {
        node.metadata_props[FUNCTION]
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        if (with_body or node.op_identifier() not in model.functions)
        and {FUNCTION, CALL} <= node.metadata_props.keys()
    }


@contextlib.contextmanager
def noting_calls(names: set[str], called: set[type[Function]]) -> Iterator[None]:
    """Add to ``called`` each Function of these names that is called, until the end.

    ``forward`` is replaced meanwhile, not ``apply``, which callers keep in variables. Nothing is compiled.
    """
    with contextlib.ExitStack() as undo:
        for function in _all_functions(Function):
            if any(is_named(function, name) for name in names):
                _replace(undo, function, functools.partial(_add, called, function))
        undo.enter_context(nothing_compiled())
        yield


@contextlib.contextmanager
def noting_results(names: set[str], note: Callable[[str, Any], None]) -> Iterator[None]:
    """Call ``note`` with the recorded name of each Function of these that is called, and what it returns."""
    with contextlib.ExitStack() as undo:
        for function in _all_functions(Function):
            for name in names:
                if is_named(function, name):
                    _replace(undo, function, functools.partial(note, name))
        yield


def _all_functions(base: type[Function]) -> set[type[Function]]:
    return {each for derived in base.__subclasses__() for each in (derived, *_all_functions(derived))}


def _add(called: set[type[Function]], function: type[Function], returned: Any) -> None:
    called.add(function)


def _replace(undo: contextlib.ExitStack, function: type[Function], note: Callable[[Any], None]) -> None:
    """Have a Function's forward, until it is undone, be followed by ``note``, which is given its result."""
    own: Callable[..., Any] = function.forward

    def forward(*arguments: Any, **keywords: Any) -> Any:
        arguments, keywords = given_arguments(own, arguments, keywords)
        returned = own(*arguments, **keywords)
        note(returned)
        return returned

    if "forward" in vars(function):
        undo.callback(setattr, function, "forward", vars(function)["forward"])
    else:
        undo.callback(delattr, function, "forward")
    function.forward = staticmethod(with_parameters_of(own, forward))  # type: ignore[method-assign]
