"""What Python says of a kernel: its name, its parameters and their annotations.

A kernel is a function, a ``functools.partial`` of one, or an object that can be called.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from .errors import SchemaError

__all__ = ["annotated_by_text", "annotations_of", "name_of", "parameters_of"]


def name_of(function: Callable[..., Any]) -> str:
    """Return module and name of a function; of a callable object its class's."""
    inner = _without_partial(function)
    named: Any = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{named.__module__}.{named.__qualname__}"


def _without_partial(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return a function's parameters; raises SchemaError for what can't be a kernel."""
    if not callable(function):
        raise SchemaError(
            f"{function!r} is a {type(function).__name__}; expected a function that is a kernel"
        )
    where, code = name_of(function), _code(function)
    if any(is_a(code) for is_a in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)):
        raise SchemaError(f"{where}: is async, and ONNX Runtime awaits nothing; expected a function (def)")
    if inspect.isgeneratorfunction(code):
        raise SchemaError(f"{where}: yields; expected a function that returns its results")
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError as error:
        raise SchemaError(f"{where}: has no signature that can be read; wrap it in a function") from error


def _code(function: Callable[..., Any]) -> Any:
    """Return what runs where a function is called, and has the annotations."""
    inner = _without_partial(function)
    return inner if hasattr(inner, "__qualname__") else type(inner).__call__


def annotations_of(function: Callable[..., Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function's annotations; ``names`` is what a name in one that is a text may stand for."""
    try:
        return typing.get_type_hints(_code(function), localns=dict(names))
    except Exception as error:  # whatever an annotation that is a text raises
        raise SchemaError(
            f"{name_of(function)}: {error}; annotations are looked up in the kernel's module"
        ) from error


def annotated_by_text(function: Callable[..., Any], text: str) -> list[str]:
    """Return what of a function, parameters and ``"return"``, is annotated with a text, quotes and all."""
    written = getattr(_code(function), "__annotations__", {})
    return [name for name, annotation in written.items() if annotation == text]
