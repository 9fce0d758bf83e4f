"""A function in the place of another one, with the same parameters."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["given_arguments", "with_parameters_of"]

_LEFT_OUT = "ort_ops: left out"  # a string, since Dynamo can compare strings


def with_parameters_of(own: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that passes everything on, with the very parameters of ``own``.

    torch finds the place of a keyword argument by the names in forward's code, and Dynamo counts the
    parameters to tell whether forward takes the ctx. What a call leaves out is passed on as a mark that
    ``given_arguments`` knows.
    """
    code = getattr(own, "__code__", None)
    if code is None:
        return functools.wraps(own)(lambda *arguments, **keywords: function(*arguments, **keywords))
    bound = 1 if inspect.ismethod(own) else 0  # a classmethod has been given its class
    names = list(code.co_varnames)[bound:]
    count = code.co_argcount - bound
    positional = names[:count]
    keyword = names[count : count + code.co_kwonlyargcount]
    rest = names[count + code.co_kwonlyargcount :]
    star = f"*{rest.pop(0)}" if code.co_flags & inspect.CO_VARARGS else ""
    stars = f"**{rest.pop(0)}" if code.co_flags & inspect.CO_VARKEYWORDS else ""
    declared = [*positional, star or ("*" if keyword else ""), *keyword, stars]
    passed = [*positional, star, *(f"{name}={name}" for name in keyword), stars]
    target = "function"
    while target in names:
        target += "_"
    source = f"lambda {_listed(declared)}: {target}({_listed(passed)})"
    replacement = eval(source, {target: function})  # made of the names of parameters alone
    replacement.__defaults__ = (_LEFT_OUT,) * len(own.__defaults__ or ())
    replacement.__kwdefaults__ = dict.fromkeys(own.__kwdefaults__ or (), _LEFT_OUT)
    return functools.wraps(own)(replacement)


def given_arguments(
    own: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a call's arguments without those that it left out; one before a later one gets its default.

    The TorchScript exporter hands to ``symbolic`` what was given, and no defaults of forward's.
    """
    positional = list(arguments)
    while positional and isinstance(positional[-1], str) and positional[-1] == _LEFT_OUT:
        positional.pop()
    for index, value in enumerate(positional):
        if isinstance(value, str) and value == _LEFT_OUT:
            first = own.__code__.co_argcount - len(own.__defaults__) - inspect.ismethod(own)
            positional[index] = own.__defaults__[index - first]
    kept = {}
    for name, value in keywords.items():
        if not (isinstance(value, str) and value == _LEFT_OUT):
            kept[name] = value
    return tuple(positional), kept


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name for name in names if name)
