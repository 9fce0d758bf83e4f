"""Operators that slide a window, in torch's float64: onnx's reference evaluator computes them slowly."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_average_pool import AveragePool_19 as ReferenceAveragePool
from onnx.reference.ops.op_conv import Conv as ReferenceConv
from onnx.reference.ops.op_conv_transpose import ConvTranspose as ReferenceConvTranspose
from onnx.reference.ops.op_max_pool import MaxPool as ReferenceMaxPool
from torch import Tensor
from torch.nn import functional

__all__ = ["WINDOWS", "convolve"]

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAX: dict[int, Callable[..., Any]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}


def _ints(given: Sequence[int] | None, rank: int, default: int = 1) -> list[int]:
    return list(given) if given else [default] * rank


def _pads(
    auto_pad: str | None,
    pads: Sequence[int] | None,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    """Return what is added before and behind each axis, as ONNX's auto_pad has it."""
    rank = len(kernel)
    if auto_pad in (None, "", "NOTSET"):
        given = _ints(pads, 2 * rank, 0)
        return list(zip(given[:rank], given[rank:], strict=True))
    if auto_pad == "VALID":
        return [(0, 0)] * rank
    padded = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small = total // 2
        padded.append((small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small))
    return padded


def _window(
    x: NDArray[Any], kernel: Sequence[int], attributes: dict[str, Any]
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Return the strides, the dilations and the pads of a node that slides a window of this size over x."""
    strides, dilations = (_ints(attributes.get(name), len(kernel)) for name in ("strides", "dilations"))
    auto_pad, pads = attributes.get("auto_pad"), attributes.get("pads")
    return strides, dilations, _pads(auto_pad, pads, x.shape[2:], kernel, strides, dilations)


def _pad(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    flat = [amount for pair in reversed(pads) for amount in pair]
    return functional.pad(x, flat, value=value) if any(flat) else x


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def convolve(
    x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None, attributes: dict[str, Any]
) -> NDArray[Any]:
    """Return a convolution over one, two or three axes, by the attributes of an ONNX ``Conv``."""
    kernel = weight.shape[2:]
    strides, dilations, pads = _window(x, kernel, attributes)
    summand = None if bias is None else _tensor(bias)
    group = attributes.get("group") or 1
    padded = _pad(_tensor(x), pads)
    if weight.shape[1] == 1 < group == x.shape[1]:
        return _each_channel(padded, _tensor(weight), summand, strides, dilations)
    y: NDArray[Any] = _CONV[len(kernel)](
        padded, _tensor(weight), summand, strides, 0, dilations, group
    ).numpy()
    return y


def _each_channel(
    x: Tensor, weight: Tensor, bias: Tensor | None, strides: Sequence[int], dilations: Sequence[int]
) -> NDArray[Any]:
    """Return a convolution of each channel by itself: shifted products, for torch's takes its time."""
    x = x.repeat_interleave(len(weight) // x.shape[1], 1)
    kernel = weight.shape[2:]
    axes = list(zip(x.shape[2:], kernel, strides, dilations, strict=True))
    sizes = [max((size - (k - 1) * dilation - 1) // stride + 1, 0) for size, k, stride, dilation in axes]
    y = x.new_zeros((*x.shape[:2], *sizes))
    for places in itertools.product(*map(range, kernel)):
        ranges = (
            slice(place * dilation, place * dilation + (size - 1) * stride + 1, stride)
            for place, size, (_, _, stride, dilation) in zip(places, sizes, axes, strict=True)
        )
        part: tuple[Any, ...] = (slice(None), 0, *places)
        y.addcmul_(x[(slice(None), slice(None), *ranges)], weight[part].reshape(-1, *[1] * len(kernel)))
    return (y if bias is None else y + bias.reshape(-1, *[1] * len(kernel))).numpy()


class Conv(ReferenceConv):
    """Convolution over one, two or three axes."""

    op_domain = ""

    def _run(self, X: Any, W: Any, B: Any = None, **attributes: Any) -> tuple[Any]:  # type: ignore[override]  # noqa: N803
        if X.ndim - 2 not in _CONV or X.dtype != np.float64:
            return super()._run(X, W, B, **attributes)  # type: ignore[no-any-return,no-untyped-call]
        return (convolve(X, W, B, attributes),)


class ConvTranspose(ReferenceConvTranspose):
    """Transposed convolution with explicit pads of the same size on both sides."""

    op_domain = ""

    def _run(self, X: Any, W: Any, B: Any = None, **attributes: Any) -> tuple[Any]:  # type: ignore[override]  # noqa: N803
        rank = X.ndim - 2
        pads = _ints(attributes.get("pads"), 2 * rank, 0)
        plain = attributes.get("auto_pad") in (None, "", "NOTSET") and not attributes.get("output_shape")
        if rank not in _TRANSPOSED or X.dtype != np.float64 or not plain or pads[:rank] != pads[rank:]:
            return super()._run(X, W, B, **attributes)  # type: ignore[no-any-return,no-untyped-call]
        y = _TRANSPOSED[rank](
            _tensor(X),
            _tensor(W),
            None if B is None else _tensor(B),
            _ints(attributes.get("strides"), rank),
            pads[:rank],
            _ints(attributes.get("output_padding"), rank, 0),
            attributes.get("group") or 1,
            _ints(attributes.get("dilations"), rank),
        )
        return (y.numpy(),)


class MaxPool(ReferenceMaxPool):
    """Largest value of each window, and where it was."""

    op_domain = ""

    def _run(self, x: Any, **attributes: Any) -> tuple[Any, ...]:  # type: ignore[override]
        rank = x.ndim - 2
        if rank not in _MAX or x.dtype != np.float64:
            return super()._run(x, **attributes)  # type: ignore[no-any-return,no-untyped-call]
        kernel = list(attributes["kernel_shape"])
        strides, dilations, pads = _window(x, kernel, attributes)
        if attributes.get("ceil_mode") and attributes.get("auto_pad") in (None, "", "NOTSET"):
            each = zip(x.shape[2:], kernel, strides, dilations, pads, strict=True)
            pads = [_pads_for_all(*axis) for axis in each]
        padded = _pad(_tensor(x), pads, -np.inf)
        with_indices = len([name for name in self.output if name]) > 1
        results = _MAX[rank](padded, kernel, strides, 0, dilations, return_indices=with_indices)
        if not with_indices:
            return (results.numpy(),)
        y, places = (each.numpy() for each in results)
        return y, _in_tensor(places, padded.shape[2:], pads, x.shape, bool(attributes.get("storage_order")))


def _pads_for_all(
    size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int]
) -> tuple[int, int]:
    """Return pads by which a last window has room that begins before the end of what there is."""
    before, behind = pads
    whole = (kernel - 1) * dilation + 1
    count = -(-(size + before + behind - whole) // stride) + 1
    count -= (count - 1) * stride >= size + before  # it would begin behind the end
    return before, max((count - 1) * stride + whole - size - before, 0)


def _in_tensor(
    places: NDArray[Any],
    padded: Sequence[int],
    pads: Sequence[tuple[int, int]],
    shape: tuple[int, ...],
    by_columns: bool,
) -> NDArray[Any]:
    """Return places within a whole tensor, as ONNX counts them; torch does within a padded channel."""
    at = np.unravel_index(places, tuple(padded))
    within = tuple(axis - before for axis, (before, _) in zip(at, pads, strict=True))
    counted = np.ravel_multi_index(within, shape[2:], order="F" if by_columns else "C")
    channels = np.arange(shape[0] * shape[1]).reshape(shape[:2] + (1,) * len(shape[2:]))
    return counted + channels * int(np.prod(shape[2:]))


class AveragePool(ReferenceAveragePool):
    """Mean of each window; of the elements that are there where padding doesn't count."""

    op_domain = ""

    def _run(self, x: Any, **attributes: Any) -> tuple[Any]:  # type: ignore[override]
        rank = x.ndim - 2
        if rank not in _CONV or x.dtype != np.float64:
            return super()._run(x, **attributes)  # type: ignore[no-any-return,no-untyped-call]
        kernel = list(attributes["kernel_shape"])
        strides, dilations, pads = _window(x, kernel, attributes)
        own = pads
        if attributes.get("ceil_mode") and attributes.get("auto_pad") in (None, "", "NOTSET"):
            each = zip(x.shape[2:], kernel, strides, dilations, pads, strict=True)
            pads = [_pads_for_all(*axis) for axis in each]
        channels = x.shape[1]
        window = torch.ones((channels, 1, *kernel), dtype=torch.float64)

        def total(values: Tensor) -> Tensor:
            summed: Tensor = _CONV[rank](values, window, None, strides, 0, dilations, channels)
            return summed

        given = _tensor(x)
        counted = torch.ones_like(given)
        padded = [(0, 0)] * rank
        if attributes.get("count_include_pad"):  # and nothing beyond the pads, where a last window reaches
            padded = [
                (before, min(behind, all_)) for (before, behind), (_, all_) in zip(own, pads, strict=True)
            ]
            counted = _pad(counted, padded, 1.0)
        rest = [(before - b, behind - e) for (before, behind), (b, e) in zip(pads, padded, strict=True)]
        return ((total(_pad(given, pads)) / total(_pad(counted, rest))).numpy(),)


WINDOWS: tuple[type[OpRun], ...] = (Conv, ConvTranspose, MaxPool, AveragePool)
"""Implementations for ``ReferenceEvaluator``'s ``new_ops``."""
