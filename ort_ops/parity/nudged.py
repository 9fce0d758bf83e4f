"""A model in float64 with rounding errors: each operation is given numbers that are some last places off."""

import functools
from collections.abc import Sequence, Set
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from .original import Arguments, ExactModel, as_arrays

__all__ = ["nudged_runs"]

_LAST_PLACES = (16.0, 1.0)  # what is moved by many meets no number exactly, as a sum of shares does 1
_OPPOSITES = 2  # pairs that are each other's opposite
_OTHERS = 1000  # what the seed of no pair reaches
_TINY = 1e-300  # where a number is 0: which of several is the largest is then open
_PLACES = ("topk", "argmax", "argmin", "sort", "max", "min", "kthvalue", "median", "mode")


def nudged_runs(model: ExactModel, arguments: Arguments, pairs: range) -> list[Sequence[NDArray[Any]]]:
    """Return what a model returns with rounding errors, and with others, for each of the pairs.

    The opposites for the first: what doesn't turn at a step one way turns the other. Two steps that turn
    opposite ways may leave a sum as it was, though, and so would all opposites.
    """
    weights = {each.untyped_storage()._cdata for each in model.parameters()}
    seeds = [(pair, pair if pair < _OPPOSITES else pair + _OTHERS) for pair in pairs]
    nudges = [_Nudge(weights, *each) for one, other in seeds for each in ((one, 1.0), (other, -1.0))]
    return [as_arrays(model.run(arguments, nudge=each.operation)) for each in nudges]


class _Nudge:
    """weights: the storages of those, which stay as they are where an operation is given something else."""

    def __init__(self, weights: Set[int], seed: int, direction: float) -> None:
        self._generator, self._direction = torch.Generator().manual_seed(seed), direction
        self._weights = weights
        self._few = _LAST_PLACES[seed % len(_LAST_PLACES)] * torch.finfo(torch.float64).eps

    def operation(self, func: Any, given: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Any, Any]:
        """Return what an operation is to be given instead; what it writes into is moved where it lies."""
        schema = getattr(func, "_schema", None)
        if schema is None:  # an operation that takes functions, whose own operations come by
            return given
        args, kwargs = list(given[0]), dict(given[1])
        apart = _TINY if schema.name.removeprefix("aten::") in _PLACES else 0.0
        tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, Tensor)]
        kept = self._weights if any(_is_moved(each, self._weights) for each in tensors) else frozenset[int]()
        move = functools.partial(self._moved, apart=apart, kept=kept)
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

    def _moved(self, tensor: Tensor, apart: float, kept: Set[int]) -> Tensor:
        if not _is_moved(tensor, kept):
            return tensor
        up = torch.randint(0, 2, tensor.shape, generator=self._generator, dtype=torch.float64)
        ways = (2 * up - 1) * self._direction
        return tensor * (1 + self._few * ways.to(tensor.device)) + apart * (ways > 0).to(tensor.device)


def _is_moved(tensor: Tensor, kept: Set[int]) -> bool:
    """Tell whether a tensor holds numbers in float64, in none of the storages that are kept."""
    numbers = tensor.dtype == torch.float64 and tensor.layout is torch.strided
    return numbers and tensor.untyped_storage()._cdata not in kept
