"""Calls of torch Functions that a file records, as they are run (see ``functions``)."""

import contextlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils import _pytree as pytree

from .recorded import Input, RecordedCall, restore

__all__ = ["Call", "is_function"]

_T = TypeVar("_T")


def is_function(value: object) -> bool:
    """Tell whether something is a Function, and not an object of one."""
    return isinstance(value, type) and issubclass(value, Function)


class Call:
    """A call that can be run: the Function, and its arguments with the inputs to be filled in.

    Tensors, devices and autocast are those of the inputs' device, whichever the call was recorded on.
    """

    def __init__(self, function: Any, recorded: RecordedCall) -> None:
        self.function = function
        self._args = [restore(value) for value in recorded.args]
        self._kwargs = {key: restore(value) for key, value in recorded.kwargs.items()}
        self._autocast = dict(recorded.autocast)
        self._writes = recorded.writes
        self._count = len(recorded.outputs)
        self._grads = frozenset(recorded.grads)
        self._there: dict[torch.device, tuple[list[Any], dict[str, Any]]] = {}  # the arguments, by device

    def __call__(self, inputs: Sequence[Tensor | None]) -> Sequence[Tensor]:
        """Return the tensors among what the Function returns, as many as the node has outputs."""
        if self._writes:
            inputs = [None if tensor is None else tensor.clone() for tensor in inputs]
        device = next((tensor.device for tensor in inputs if tensor is not None), torch.device("cpu"))
        if device not in self._there:
            self._there[device] = _placed(self._args, device), _placed(self._kwargs, device)
        if self._grads:
            inputs = [_requiring(t) if place in self._grads else t for place, t in enumerate(inputs)]
        args, kwargs = (_fill(value, inputs) for value in self._there[device])
        with torch.no_grad() if self._grads else contextlib.nullcontext():
            if not self._autocast:
                returned = self.function.apply(*args, **kwargs)
            else:
                dtype = self._autocast.get(device.type) or next(iter(self._autocast.values()))
                with torch.autocast(device.type, getattr(torch, dtype)):
                    returned = self.function.apply(*args, **kwargs)
        if isinstance(returned, Tensor):
            return (returned,)
        return [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)][: self._count]


def _requiring(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor that requires a gradient, as a parameter does, where its dtype can."""
    if tensor is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.detach().requires_grad_()


def _placed(value: _T, device: torch.device) -> _T:
    """Return an argument with the tensors and devices in it on a device."""

    def place(each: Any) -> Any:
        if isinstance(each, Tensor):
            return each.to(device)
        if isinstance(each, torch.device):
            return device
        if type(each) in (list, tuple):
            return type(each)(map(place, each))
        if isinstance(each, dict):
            return {key: place(item) for key, item in each.items()}
        return each

    placed: _T = place(value)
    return placed


def _fill(value: Any, inputs: Sequence[Tensor | None]) -> Any:
    """Return an argument for one run; what forward may change, it changes for that run alone."""
    if isinstance(value, Input):
        # A node may leave trailing inputs out.
        tensor = inputs[value.index] if value.index < len(inputs) else None
        return int(tensor) if value.number and tensor is not None else tensor
    if type(value) in (list, tuple):
        return type(value)(_fill(item, inputs) for item in value)
    if isinstance(value, dict):
        return {key: _fill(item, inputs) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.clone() if isinstance(value, Tensor) else value
