"""What requires a gradient, which a forward may go by: a parameter does where gradients are off, too."""

from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor

__all__ = ["asks_for_gradients", "differentiable"]

_ASKED = frozenset({"requires_grad", "needs_input_grad"})


def differentiable(tensors: Sequence[Any]) -> tuple[bool, ...]:
    """Tell of each tensor whether it requires a gradient whether gradients are on or off: of no result."""
    return tuple(isinstance(each, Tensor) and each.requires_grad and each.is_leaf for each in tensors)


def asks_for_gradients(function: Callable[..., Any]) -> bool:
    """Tell whether code of a function, or of one that it names, reads what requires a gradient."""
    return any(_ASKED.intersection(code.co_names) for code in _codes(function, set()))


def _codes(function: Any, seen: set[int]) -> Iterator[CodeType]:
    """Give the code of a function, and of those that are in it, around it, or that it names."""
    function = getattr(function, "__func__", function)
    if id(function) in seen:
        return
    seen.add(id(function))
    code = function if isinstance(function, CodeType) else getattr(function, "__code__", None)
    if code is None:
        return
    yield code
    around = [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if _is_full(cell)]
    named = getattr(function, "__globals__", {})
    others = [each for each in map(named.get, code.co_names) if isinstance(each, FunctionType)]
    for each in (*code.co_consts, *around, *others, getattr(function, "__wrapped__", None)):
        if isinstance(each, CodeType | FunctionType | MethodType):
            yield from _codes(each, seen)


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018, which raises
    except ValueError:
        return False
    return True
