"""Fake quantisation in float64: torch's kernels take float64, and compute in float32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .modes import Mode

__all__ = ["EXACT", "FakeQuantized"]

_aten = torch.ops.aten


def _quantized(x: Tensor, scale: Any, zero: Any, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Return what a tensor is after it was quantised, and where it was within the limits."""
    places = x / scale
    fractional = isinstance(zero, Tensor) and zero.is_floating_point()
    codes = (places + zero).round() if fractional else places.round() + zero
    return (codes.clamp(low, high) - zero) * scale, (codes >= low) & (codes <= high)


def _by_tensors(
    x: Tensor, scale: Tensor, zero: Tensor, enabled: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor]:
    if not bool(enabled.item()):
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    return _quantized(x, scale, zero, low, high)


def _by_channel(
    x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int
) -> tuple[Tensor, Tensor]:
    shape = [-1 if place == axis % x.dim() else 1 for place in range(x.dim())]
    return _quantized(x, scale.reshape(shape), zero.reshape(shape), low, high)


EXACT: dict[Any, Callable[..., tuple[Tensor, Tensor]]] = {
    _aten.fake_quantize_per_tensor_affine_cachemask.default: _quantized,
    _aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default: _by_tensors,
    _aten.fake_quantize_per_channel_affine_cachemask.default: _by_channel,
}
"""What computes an operation of torch in the dtype that it is given."""


class FakeQuantized(Mode):
    """Compute fake quantisation in the dtype that it is given."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return EXACT.get(func, func)(*args, **(kwargs or {}))
