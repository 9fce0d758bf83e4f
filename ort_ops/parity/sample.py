"""One set of inputs, and what the model and the file make of it in float64 and in their own dtypes."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ort_ops.errors import ParityError

from .exact import ExactFile
from .original import Arguments, ExactModel, as_arrays
from .tensors import to_torch

__all__ = ["Given", "Sample", "bind", "fits", "take_sample"]


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


def fits(model: nn.Module, arguments: Sequence[Any]) -> bool:
    """Tell whether a model's forward takes so many positional arguments."""
    try:
        inspect.signature(model.forward).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


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
    ordered = tuple(given[name] for name in names)
    return (ordered, {}) if fits(model, ordered) else ((), _nested(parameters, given))


def _nested(parameters: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return lists and dictionaries put together as forward takes them, by the names that torch.export gives.

    An element of ``xs`` is ``xs_0``, or ``xs_key``.
    """
    parts: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        owners = [each for each in parameters if name == each or name.startswith(f"{each}_")]
        if not owners:
            raise ParityError(
                f"forward takes {', '.join(parameters)}, and the file's input {name!r} is of none of them by "
                "its name; expected forward's arguments, in a tuple"
            )
        owner = max(owners, key=len)
        parts.setdefault(owner, {})[name[len(owner) + 1 :]] = value
    return {owner: _built(each) for owner, each in parts.items()}


def _built(parts: Mapping[str, Any]) -> Any:
    """Return the argument of elements by the rest of their names: ``""``, ``"0"``, ``"0_1"`` or ``"key"``.

    A tuple is a list.
    """
    if "" in parts:
        return parts[""]
    heads: dict[str, dict[str, Any]] = {}
    for name, value in parts.items():
        head, _, rest = name.partition("_")
        heads.setdefault(head, {})[rest] = value
    if set(heads) == {str(index) for index in range(len(heads))}:
        return [_built(heads[str(index)]) for index in range(len(heads))]
    return dict(parts)


def bind(model: nn.Module, names: Sequence[str], given: Any) -> Given:
    """Return what a caller gave as the model's arguments, on its device, and as inputs of these names."""
    given = pytree.tree_map(_tensor, dict(given) if isinstance(given, Mapping) else given)
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    arguments = _arguments(model, given, names)
    arguments = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), arguments)
    leaves = [leaf for leaf in pytree.tree_leaves(arguments) if leaf is not None]
    if len(leaves) != len(names):  # numbers and flags are in the file as what they were at the export
        leaves = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(leaves) != len(names):
        raise ParityError(
            f"{len(leaves)} inputs were given but the file takes {len(names)}: {', '.join(names) or 'none'}; "
            "expected them in a tuple or a dictionary: a list has several of these"
        )
    if isinstance(given, Mapping) and set(given) == set(names) and len(leaves) == len(given):
        leaves = [given[name] for name in names]
    for name, leaf in zip(names, leaves, strict=True):
        if not isinstance(leaf, Tensor | int | float | complex):
            kind = type(leaf).__qualname__
            raise ParityError(f"input {name!r} is a {kind}; expected a tensor, a NumPy array or a number")
    return Given(arguments, dict(zip(names, as_arrays(leaves), strict=True)))


def _tensor(leaf: Any) -> Any:
    """Return an array of NumPy's as a tensor, and anything else as it is."""
    if not isinstance(leaf, np.ndarray | np.generic):
        return leaf
    try:
        return to_torch(np.array(leaf))
    except (TypeError, ValueError) as error:
        raise ParityError(
            f"an input is an array of {leaf.dtype}, which torch doesn't have: {error}"
        ) from error


def take_sample(
    outputs: Sequence[NDArray[Any]], exact_model: ExactModel, exact_file: ExactFile, given: Given
) -> Sample:
    """Run a model in float64, and its file; ``outputs`` is what the model as it is makes of the inputs."""
    if not outputs:
        raise ParityError("the model returned nothing; expected one tensor at least")
    exact = as_arrays(exact_model.run(given.arguments))
    exact_file.know(exact_model.numbers, exact_model.taken)
    chance = exact_file.chance(given.feed)
    draws = bool(chance) and exact_model.draws(given.arguments)
    return Sample(given, outputs, exact, exact_file.run(given.feed), chance, draws)
