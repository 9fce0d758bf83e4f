"""What a forward that runs on fake tensors makes of sizes that may vary: whether it leaves them free."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._sympy.functions import ToFloat

__all__ = ["AskedForSizeError", "fixed_since", "free_sizes", "sizes_left_free"]


class AskedForSizeError(Exception):
    """Python code wants the number that a size is (``math.sqrt(x.shape[0])``), which would then be fixed."""


@contextlib.contextmanager
def sizes_left_free(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Raise AskedForSizeError where code would fix a size that may vary at what it is in the example."""
    env = next((size.node.shape_env for _, _, size in free_sizes(tensors)), None)
    if env is None:
        yield
        return
    own = env.evaluate_sym_node

    def evaluate(node: Any, *arguments: Any, **keywords: Any) -> Any:
        if node.pytype is not bool and _fixes(node.expr):
            raise AskedForSizeError(f"it computes with the number that {node.expr} is, which may vary")
        return own(node, *arguments, **keywords)

    env.evaluate_sym_node = evaluate
    try:
        yield
    finally:
        env.evaluate_sym_node = own


def _fixes(expression: Any) -> bool:
    """Tell whether an expression's value fixes the sizes in it: a quotient's or a remainder's doesn't."""
    plain = expression.replace(ToFloat, lambda inside: inside)
    symbols = plain.free_symbols
    return bool(symbols) and bool(plain.is_polynomial(*symbols))


def free_sizes(tensors: Sequence[Tensor]) -> list[tuple[int, int, Any]]:
    """Return the sizes that may vary: the index of the tensor, the axis, and the SymInt."""
    return [
        (index, axis, size)
        for index, tensor in enumerate(tensors)
        for axis, size in enumerate(tensor.shape)
        if isinstance(size, torch.SymInt) and not _is_fixed(size)
    ]


def fixed_since(free: Sequence[tuple[int, int, Any]]) -> dict[tuple[int, int], int]:
    """Return the sizes, of those that could vary before, that are one number since, by tensor and axis."""
    return {(index, axis): int(size) for index, axis, size in free if _is_fixed(size)}


def _is_fixed(size: torch.SymInt) -> bool:
    node: Any = size.node
    return bool(node.expr.is_number or node.shape_env.bound_sympy(node.expr).is_singleton())
