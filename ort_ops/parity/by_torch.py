"""Operators in torch's float64 that onnx's reference evaluator computes slowly, or in float32."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_average_pool import AveragePool_19 as ReferenceAveragePool
from onnx.reference.ops.op_conv import Conv as ReferenceConv
from onnx.reference.ops.op_conv_transpose import ConvTranspose as ReferenceConvTranspose
from onnx.reference.ops.op_cum_sum import CumSum as ReferenceCumSum
from onnx.reference.ops.op_grid_sample import GridSample as ReferenceGridSample
from onnx.reference.ops.op_max_pool import MaxPool as ReferenceMaxPool
from onnx.reference.ops.op_resize import Resize as ReferenceResize
from torch import Tensor
from torch.nn import functional

__all__ = ["BY_TORCH"]

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


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


class Conv(ReferenceConv):
    """Convolution over one, two or three axes."""

    op_domain = ""

    def _run(self, X: Any, W: Any, B: Any = None, **attributes: Any) -> tuple[Any]:  # type: ignore[override]  # noqa: N803
        rank = X.ndim - 2
        if rank not in _CONV or X.dtype != np.float64:
            return super()._run(X, W, B, **attributes)  # type: ignore[no-any-return,no-untyped-call]
        kernel = W.shape[2:]
        strides, dilations, pads = _window(X, kernel, attributes)
        bias = None if B is None else _tensor(B)
        y = _CONV[rank](
            _pad(_tensor(X), pads), _tensor(W), bias, strides, 0, dilations, attributes.get("group") or 1
        )
        return (y.numpy(),)


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
        with_indices = len([name for name in self.output if name]) > 1
        if rank not in _MAX or x.dtype != np.float64 or attributes.get("ceil_mode"):
            return super()._run(x, **attributes)  # type: ignore[no-any-return,no-untyped-call]
        kernel = list(attributes["kernel_shape"])
        strides, dilations, pads = _window(x, kernel, attributes)
        if not with_indices:
            y = _MAX[rank](_pad(_tensor(x), pads, -np.inf), kernel, strides, 0, dilations)
            return (y.numpy(),)
        if any(before != behind for before, behind in pads) or attributes.get("storage_order"):
            return super()._run(x, **attributes)  # type: ignore[no-any-return,no-untyped-call]
        before = [pair[0] for pair in pads]
        y, places = _MAX[rank](_tensor(x), kernel, strides, before, dilations, return_indices=True)
        # torch counts within a channel, ONNX through the whole tensor.
        channels = np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[:2] + (1,) * rank)
        return y.numpy(), places.numpy() + channels * int(np.prod(x.shape[2:]))


class AveragePool(ReferenceAveragePool):
    """Mean of each window; of the elements that are there where padding doesn't count."""

    op_domain = ""

    def _run(self, x: Any, **attributes: Any) -> tuple[Any]:  # type: ignore[override]
        rank = x.ndim - 2
        if rank not in _CONV or x.dtype != np.float64 or attributes.get("ceil_mode"):
            return super()._run(x, **attributes)  # type: ignore[no-any-return,no-untyped-call]
        kernel = list(attributes["kernel_shape"])
        strides, dilations, pads = _window(x, kernel, attributes)
        channels = x.shape[1]
        window = torch.ones((channels, 1, *kernel), dtype=torch.float64)

        def total(values: Tensor) -> Tensor:
            summed: Tensor = _CONV[rank](_pad(values, pads), window, None, strides, 0, dilations, channels)
            return summed

        given = _tensor(x)
        count = (
            float(np.prod(kernel)) if attributes.get("count_include_pad") else total(torch.ones_like(given))
        )
        return ((total(given) / count).numpy(),)


class Resize(ReferenceResize):
    """Interpolation; the corners are those of the size that comes out, which is a whole number."""

    op_domain = ""

    def _run(  # type: ignore[override]
        self,
        x: Any,
        roi: Any = None,
        scales: Any = None,
        sizes: Any = None,
        **attributes: Any,
    ) -> tuple[Any]:
        corners = attributes.get("coordinate_transformation_mode") == "align_corners"
        if corners and scales is not None and scales.size and not attributes.get("axes"):
            sizes, scales = np.floor(np.array(x.shape) * scales).astype(np.int64), None
        return super()._run(x, roi, scales, sizes, **attributes)  # type: ignore[no-any-return]


class CumSum(ReferenceCumSum):
    """Running sums; the axis may be given as a list of one, too."""

    op_domain = ""

    def _run(self, x: Any, axis: Any, **attributes: Any) -> tuple[Any]:  # type: ignore[override]
        return super()._run(x, np.asarray(axis).reshape(()), **attributes)  # type: ignore[no-any-return,no-untyped-call]


class Erf(OpRun):
    """The error function."""

    op_domain = ""

    def _run(self, x: Any) -> tuple[Any]:
        return (torch.erf(_tensor(x)).numpy().reshape(x.shape),)


class Gelu(OpRun):
    """x times the normal distribution's integral up to x, or the approximation of it by tanh."""

    op_domain = ""

    def _run(self, x: Any, approximate: str | None = None) -> tuple[Any]:
        y = functional.gelu(_tensor(x), approximate=approximate or "none")
        return (y.numpy().reshape(x.shape),)


class Selu(OpRun):
    """The scaled exponential unit, whose own numbers ONNX has in float32 only."""

    op_domain = ""

    def _run(self, x: Any, alpha: Any = None, gamma: Any = None) -> tuple[Any]:
        given = {attribute.name for attribute in self.onnx_node.attribute}
        if not given:
            return (functional.selu(_tensor(x)).numpy().reshape(x.shape),)
        return (np.where(x > 0, gamma * x, gamma * alpha * np.expm1(np.minimum(x, 0))),)


class GridSample(ReferenceGridSample):
    """Interpolation at the points of a grid."""

    op_domain = ""

    def _run(self, X: Any, grid: Any, **attributes: Any) -> tuple[Any]:  # type: ignore[override]  # noqa: N803
        mode = {"linear": "bilinear", "cubic": "bicubic"}.get(attributes["mode"], attributes["mode"])
        if X.ndim not in (4, 5) or (X.ndim == 5 and mode == "bicubic"):
            return super()._run(X, grid, **attributes)  # type: ignore[no-any-return,no-untyped-call]
        y = functional.grid_sample(
            _tensor(X), _tensor(grid), mode, attributes["padding_mode"], bool(attributes["align_corners"])
        )
        return (y.numpy(),)


class AffineGrid(OpRun):
    """The grid of points that an affine map gives."""

    op_domain = ""

    def _run(self, theta: Any, size: Any, align_corners: int | None = None) -> tuple[Any]:
        grid = functional.affine_grid(_tensor(theta), size.tolist(), bool(align_corners))
        return (grid.numpy(),)


class SequenceMap(OpRun):
    """A graph run on each element of sequences; ONNX's own function for it loses what is around the graph."""

    op_domain = ""

    def need_context(self) -> bool:
        """Tell that the graph may read any value before it."""
        return True

    def _run(
        self, first: Any, *others: Any, context: Any = None, attributes: Any = None, **_: Any
    ) -> tuple[Any, ...]:
        body: Any = self.body  # type: ignore[attr-defined]
        given = [each if isinstance(each, list) else [each] * len(first) for each in (first, *others)]
        runs = [
            self._run_body(  # type: ignore[attr-defined] # made by OpRun for the attribute of this name
                {**(context or {}), **dict(zip(body.input_names, each, strict=True))},
                attributes=attributes,
            )
            for each in zip(*given, strict=True)
        ]
        count = len(body.output_names)
        return tuple([run[place] for run in runs] for place in range(count))


BY_TORCH: tuple[type[OpRun], ...] = (
    *(Conv, ConvTranspose, MaxPool, AveragePool),
    *(Resize, CumSum, Erf, Gelu, Selu, GridSample, AffineGrid, SequenceMap),
)
"""Implementations for ``ReferenceEvaluator``'s ``new_ops``."""
