"""What a model is called with, and the same as its file's inputs by name."""

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ort_ops.errors import ParityError

from .graphs import input_names
from .inputs import make_inputs
from .original import Arguments, as_arrays
from .tensors import to_torch

__all__ = ["Given", "bind", "given_samples", "left_at_default"]


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Given:
    """What a model is called with, and the same as the file's inputs by name."""

    arguments: Arguments
    feed: Mapping[str, NDArray[Any]]


def given_samples(
    model: nn.Module,
    file: ir.Model,
    inputs: Any,
    count: int,
    ranges: Mapping[str, tuple[float, float]] | None,
    dims: Mapping[str, int] | None,
) -> list[Given]:
    """Return these inputs, or ``count`` that are made up; ParityError for ranges of what isn't."""
    if inputs is not None and (ranges or dims):
        raise ParityError("ranges and dims are for inputs made up; expected them or inputs, not both")
    if inputs is None:
        inputs = [_made_up(model, file, number, ranges, dims) for number in range(count)]
    each = inputs if isinstance(inputs, list) else [inputs]
    if not each:
        raise ParityError("no inputs were given; expected one sample at least")
    names = input_names(file.graph)
    given = [bind(model, names, one) for one in each]
    for one in given:
        _check(file, one)
    return given


def left_at_default(model: nn.Module, given: Given) -> dict[str, Any]:
    """Return the parameters of forward that were given nothing, with a default that is something."""
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*given.arguments[0], **given.arguments[1]).arguments
    except TypeError:  # which the model will say
        return {}
    return {
        name: each.default
        for name, each in signature.parameters.items()
        if name not in bound and each.default is not each.empty and each.default is not None
    }


def _made_up(
    model: nn.Module,
    file: ir.Model,
    number: int,
    ranges: Mapping[str, tuple[float, float]] | None,
    dims: Mapping[str, int] | None,
) -> Any:
    """Return inputs by the file's names where forward has these, or doesn't take as many; or in its order."""
    made = make_inputs(file, sample=number, ranges=ranges, dims=dims)
    parameters = inspect.signature(model.forward).parameters.values()
    if made.keys() <= {each.name for each in parameters if each.kind in _BY_NAME}:
        return made
    ordered = tuple(made.values())
    if _fits(model, ordered):
        return ordered
    with contextlib.suppress(ParityError):
        bind(model, list(made), made)
        return made
    return ordered


def _check(file: ir.Model, given: Given) -> None:
    """Refuse inputs of another dtype or of other sizes than the file says."""
    for value in file.graph.inputs:
        array = given.feed.get(value.name or "")
        if array is None:
            continue
        dtype = None if value.dtype is None else value.dtype.numpy()
        if dtype is not None and array.dtype != dtype and array.dtype.kind not in "OUS":
            raise ParityError(f"input {value.name!r} is {array.dtype}; the file takes {dtype}")
        if value.shape is None:
            continue
        pairs = zip(value.shape, array.shape, strict=False)
        has_sizes = len(value.shape) == array.ndim and all(
            not isinstance(dim, int) or dim == size for dim, size in pairs
        )
        if not has_sizes:
            raise ParityError(f"input {value.name!r} is of shape {array.shape}; the file takes {value.shape}")


def _fits(model: nn.Module, arguments: Sequence[Any]) -> bool:
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
    return (ordered, {}) if _fits(model, ordered) else ((), _nested(parameters, given))


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
    if isinstance(given, Mapping) and given.keys() == set(names):
        leaves = [given[name] for name in names]
    else:
        leaves = _by_name(model, arguments, names) or _in_order(arguments, names)
    for name, leaf in zip(names, leaves, strict=True):
        if not isinstance(leaf, Tensor | int | float | complex):
            kind = type(leaf).__qualname__
            raise ParityError(f"input {name!r} is a {kind}; expected a tensor, a NumPy array or a number")
    return Given(arguments, dict(zip(names, as_arrays(leaves), strict=True)))


def _by_name(model: nn.Module, arguments: Arguments, names: Sequence[str]) -> list[Any]:
    """Return the arguments that the file takes, where it names each as a parameter of forward; else nothing.

    In whatever order it has them, and without those that nothing reads, which the older exporter leaves out.
    """
    try:
        bound = inspect.signature(model.forward).bind(*arguments[0], **arguments[1]).arguments
    except (TypeError, ValueError):
        return []
    found = [bound.get(name) for name in names]
    return [] if any(each is None or not pytree.tree_is_leaf(each) for each in found) else found


def _in_order(arguments: Arguments, names: Sequence[str]) -> list[Any]:
    """Return the leaves of all arguments, in their order."""
    leaves = [leaf for leaf in pytree.tree_leaves(arguments) if leaf is not None]
    if len(leaves) != len(names):  # numbers and flags are in the file as what they were at the export
        leaves = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(leaves) != len(names):
        raise ParityError(
            f"{len(leaves)} inputs were given but the file takes {len(names)}: {', '.join(names) or 'none'}; "
            "expected as many, in a tuple or a dictionary (a list has several of these), or, where the file "
            "leaves out what nothing reads, inputs named as forward's parameters: input_names of the export"
        )
    return leaves


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
