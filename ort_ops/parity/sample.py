"""One set of inputs, and what the model and the file make of it in float64 and in their own dtypes."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ort_ops.errors import ParityError

from .exact import ExactFile
from .original import Arguments, ExactModel, as_arrays

__all__ = ["Given", "Sample", "bind", "take_sample"]


@dataclass(frozen=True)
class Given:
    """What a model is called with, and the same as the file's inputs by name."""

    arguments: Arguments
    feed: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Sample:
    """Inputs, and what they become.

    torch: what the model returns. model: what it returns in float64.
    file: the file's outputs in float64, by name.
    chance: those that are another each time, and the node that makes them so; draws: whether the model's
        results are, too.
    """

    given: Given
    torch: Sequence[NDArray[Any]]
    model: Sequence[NDArray[Any]]
    file: Mapping[str, Any]
    chance: Mapping[str, str] = field(default_factory=dict)
    draws: bool = False

    @property
    def feed(self) -> Mapping[str, NDArray[Any]]:
        """Return the file's inputs by name."""
        return self.given.feed


def _arguments(model: nn.Module, given: Any, names: Sequence[str]) -> Arguments:
    """Return what a model is called with; a dictionary is by forward's parameters or the file's inputs."""
    if not isinstance(given, Mapping):
        return (tuple(given) if isinstance(given, tuple | list) else (given,)), {}
    signature = inspect.signature(model.forward).parameters
    parameters = [name for name, each in signature.items() if each.kind is not each.VAR_KEYWORD]
    if len(parameters) < len(signature):  # it takes whatever name it is given
        return (), {**{name: given[name] for name in parameters if name in given}, **given}
    if set(given) <= set(parameters):  # in forward's order, which is the file's
        return (), {name: given[name] for name in parameters if name in given}
    if set(given) != set(names):
        raise ParityError(
            f"inputs are named {', '.join(given)}; expected parameters of the model's forward, or the file's "
            f"inputs {', '.join(names)}"
        )
    return tuple(given[name] for name in names), {}


def bind(model: nn.Module, names: Sequence[str], given: Any) -> Given:
    """Return what a caller gave as the model's arguments, on its device, and as inputs of these names."""
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    arguments = _arguments(model, given, names)
    arguments = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), arguments)
    leaves = [leaf for leaf in pytree.tree_leaves(arguments) if leaf is not None]
    if len(leaves) != len(names):  # numbers and flags are in the file as what they were at the export
        leaves = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(leaves) != len(names):
        raise ParityError(
            f"{len(leaves)} inputs were given but the file takes {len(names)}: {', '.join(names) or 'none'}"
        )
    if isinstance(given, Mapping) and set(given) == set(names) and len(leaves) == len(given):
        leaves = [given[name] for name in names]
    return Given(arguments, dict(zip(names, as_arrays(leaves), strict=True)))


def take_sample(
    outputs: Sequence[NDArray[Any]], exact_model: ExactModel, exact_file: ExactFile, given: Given
) -> Sample:
    """Run a model in float64, and its file; ``outputs`` is what the model as it is makes of the inputs."""
    if not outputs:
        raise ParityError("the model returned nothing; expected one tensor at least")
    exact = as_arrays(exact_model.run(given.arguments))
    exact_file.know(exact_model.numbers)
    chance = exact_file.chance(given.feed)
    draws = bool(chance) and exact_model.draws(given.arguments)
    return Sample(given, outputs, exact, exact_file.run(given.feed), chance, draws)
