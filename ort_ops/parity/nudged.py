"""A model in float64 with rounding errors: each operation is given numbers that are some last places off."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from .original import Arguments, ExactModel, as_arrays

__all__ = ["nudged_runs"]

_LAST_PLACES = 16.0
_TINY = 1e-300  # where a number is 0: which of several is the largest is then open
_PLACES = ("topk", "argmax", "argmin", "sort", "max", "min", "kthvalue", "median", "mode")


def nudged_runs(model: ExactModel, arguments: Arguments, pairs: range) -> list[Sequence[NDArray[Any]]]:
    """Return what a model returns with rounding errors, and with their opposites, for each of the pairs."""
    nudges = [_Nudge(pair, direction) for pair, direction in itertools.product(pairs, (1.0, -1.0))]
    return [as_arrays(model.run(arguments, nudge=each.operation)) for each in nudges]


class _Nudge:
    def __init__(self, seed: int, direction: float) -> None:
        self._generator, self._direction = torch.Generator().manual_seed(seed), direction

    def operation(self, func: Any, given: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Any, Any]:
        """Return what an operation is to be given instead; what it writes into is moved where it lies."""
        schema = getattr(func, "_schema", None)
        if schema is None:  # an operation that takes functions, whose own operations come by
            return given
        args, kwargs = list(given[0]), dict(given[1])
        apart = _TINY if schema.name.removeprefix("aten::") in _PLACES else 0.0
        move = functools.partial(self._moved, apart=apart)
        for place, argument in enumerate(schema.arguments):
            where: Any = args if place < len(args) else kwargs
            key = place if place < len(args) else argument.name
            if key is not place and key not in kwargs:
                continue
            alias = argument.alias_info
            if alias is None:
                where[key] = pytree.tree_map_only(Tensor, move, where[key])
            elif alias.is_write and not argument.is_out:
                for tensor in pytree.tree_leaves(where[key]):
                    if isinstance(tensor, Tensor):
                        tensor.copy_(move(tensor))
        return tuple(args), kwargs

    def _moved(self, tensor: Tensor, apart: float) -> Tensor:
        if tensor.dtype != torch.float64:
            return tensor
        up = torch.randint(0, 2, tensor.shape, generator=self._generator, dtype=torch.float64)
        ways = (2 * up - 1) * self._direction
        few = _LAST_PLACES * torch.finfo(torch.float64).eps
        return tensor * (1 + few * ways.to(tensor.device)) + apart * (ways > 0).to(tensor.device)
