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
from .original import Arguments, ExactModel, as_arrays, run_model, to_numpy

__all__ = ["Sample", "take_sample"]


@dataclass(frozen=True)
class Sample:
    """Inputs, and what they become.

    arguments: what the model is called with. feed: the file's inputs by name.
    torch: what the model returns. model: what it returns in float64.
    file: the file's outputs in float64, by name.
    chance: those that are another each time, and the node that makes them so; draws: whether the model's
        results are, too.
    """

    arguments: Arguments
    feed: Mapping[str, NDArray[Any]]
    torch: Sequence[NDArray[Any]]
    model: Sequence[NDArray[Any]]
    file: Mapping[str, Any]
    chance: Mapping[str, str] = field(default_factory=dict)
    draws: bool = False


def _arguments(model: nn.Module, given: Any, names: Sequence[str]) -> Arguments:
    """Return what a model is called with; a dictionary is by forward's parameters or the file's inputs."""
    if not isinstance(given, Mapping):
        return (tuple(given) if isinstance(given, tuple | list) else (given,)), {}
    if set(given) <= set(inspect.signature(model.forward).parameters):
        return (), dict(given)
    if set(given) != set(names):
        raise ParityError(
            f"inputs are named {', '.join(given)}; expected parameters of the model's forward, or the file's "
            f"inputs {', '.join(names)}"
        )
    return tuple(given[name] for name in names), {}


def take_sample(
    model: nn.Module, exact_model: ExactModel, exact_file: ExactFile, given: Any, device: torch.device
) -> Sample:
    """Run a model as it is and in float64, and its file in float64, on the model's arguments."""
    names = exact_file.inputs
    arguments = _arguments(model, given, names)
    arguments = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), arguments)
    leaves = [leaf for leaf in pytree.tree_leaves(arguments) if leaf is not None]
    if len(leaves) != len(names):
        raise ParityError(
            f"{len(leaves)} inputs were given but the file takes {len(names)}: {', '.join(names) or 'none'}"
        )
    feed = {
        name: to_numpy(leaf) if isinstance(leaf, Tensor) else as_arrays([leaf])[0]
        for name, leaf in zip(names, leaves, strict=True)
    }
    outputs = as_arrays(run_model(model, arguments))
    if not outputs:
        raise ParityError("the model returned nothing; expected one tensor at least")
    chance = exact_file.chance(feed)
    draws = bool(chance) and exact_model.draws(arguments)
    return Sample(
        arguments, feed, outputs, as_arrays(exact_model.run(arguments)), exact_file.run(feed), chance, draws
    )
