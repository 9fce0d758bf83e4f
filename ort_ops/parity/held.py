"""What a model's modules hold between calls, as a recurrent one its state: put back as it was."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["computed_tensors", "put_back"]

# What torch itself keeps in every module: of that a forward changes buffers alone.
_MANY = 1000  # elements of a list or dictionary of data, as of a vocabulary, in which no state is looked for
_TORCHS_OWN = vars(nn.Module()).keys() - {"_buffers"}


@contextlib.contextmanager
def put_back(model: nn.Module) -> Iterator[Callable[[list[Any]], list[Any]]]:
    """Put back what modules hold, where a forward binds other values to its names or writes into tensors.

    Gives a function that copies those of the forward's results that share memory with such a tensor, which
    would be put back with it.
    """
    before = [(each, dict(each) if isinstance(each, dict) else list(each)) for each in _holders(model)]
    tensors = {id(tensor): (tensor, tensor.clone()) for tensor in _written_into(model)}
    storages = {tensor.untyped_storage()._cdata for tensor, _ in tensors.values()}

    def apart(results: list[Any]) -> list[Any]:
        return [result.clone() if _storage(result) in storages else result for result in results]

    try:
        yield apart
    finally:
        for holder, was in before:
            _fill(holder, was)
        for tensor, value in tensors.values():
            if not torch.equal(tensor, value):
                tensor.copy_(value)


def computed_tensors(model: nn.Module) -> dict[int, Any]:
    """Return copies of what modules hold that was computed from parameters, which torch refuses to copy."""
    held = (value for holder in _holders(model) for value in _values(holder))
    return {id(each): each.detach().clone() for each in held if isinstance(each, Tensor) and each.grad_fn}


def _holders(model: nn.Module) -> Iterator[dict[str, Any] | list[Any]]:
    """Give the attributes of each module, and the dictionaries and lists in them, in one another, too."""
    seen: set[int] = set()
    for module in model.modules():
        yield vars(module)
        for name, value in vars(module).items():
            if name not in _TORCHS_OWN:
                yield from _within(value, seen)


def _within(value: Any, seen: set[int]) -> Iterator[dict[str, Any] | list[Any]]:
    """Give the dictionaries and lists that a value is or holds, each once."""
    if not isinstance(value, dict | list | tuple) or id(value) in seen:
        return
    seen.add(id(value))
    if not isinstance(value, tuple):
        yield value
    if len(value) > _MANY:
        return
    for each in [*value.values()] if isinstance(value, dict) else value:
        yield from _within(each, seen)


def _values(holder: dict[str, Any] | list[Any]) -> list[Any]:
    return [*holder.values()] if isinstance(holder, dict) else holder


def _written_into(model: nn.Module) -> Iterator[Tensor]:
    """Give the tensors that a forward may write into: buffers, and what modules hold besides."""
    yield from model.buffers()
    for holder in _holders(model):
        yield from (value for value in _values(holder) if type(value) is Tensor and _is_plain(value))


def _fill(holder: dict[str, Any] | list[Any], was: Any) -> None:
    if isinstance(holder, list):
        holder[:] = was
    elif holder.keys() != was.keys() or any(holder[name] is not value for name, value in was.items()):
        holder.clear()
        holder.update(was)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided


def _storage(result: Any) -> int | None:
    plain = isinstance(result, Tensor) and _is_plain(result)
    return result.untyped_storage()._cdata if plain else None
