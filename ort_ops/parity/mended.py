"""Operators in float64 as ONNX has them, where onnx's reference evaluator computes something else."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_batch_normalization import BatchNormalization_14 as ReferenceBatchNormalization
from onnx.reference.ops.op_reduce_log_sum_exp import ReduceLogSumExp_18 as ReferenceReduceLogSumExp
from onnx.reference.ops.op_roi_align import RoiAlign as ReferenceRoiAlign

__all__ = ["FLATTENING", "MENDED", "cropping", "flattening"]

FLATTENING = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
"""Operators that are computed along one axis since opset 13."""


def flattening(kind: type[Any]) -> type[OpRun]:
    """Return one of these as it was before: its input made a matrix at its axis, which is 1 by default."""

    def _run(self: Any, x: Any, **_: Any) -> tuple[Any]:
        axis = next((a.i for a in self.onnx_node.attribute if a.name == "axis"), 1) % max(x.ndim, 1)
        rows = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        return (kind._run(self, rows, axis=1)[0].reshape(x.shape),)

    return type(kind.__name__, (kind,), {"op_domain": "", "_run": _run})


def cropping(kind: type[Any]) -> type[OpRun]:
    """Return a Pad that takes elements away where its pads are negative, of opset 11 or newer."""

    def _run(self: Any, data: Any, pads: Any, *others: Any, **attributes: Any) -> tuple[Any]:
        axes = others[1] if len(others) > 1 and others[1] is not None else range(data.ndim)
        parts = [slice(None)] * data.ndim
        for axis, before, after in zip(axes, *np.minimum(pads, 0).reshape(2, -1), strict=True):
            parts[axis] = slice(-before, data.shape[axis] + after)
        return kind._run(self, data[tuple(parts)], np.maximum(pads, 0), *others, **attributes)  # type: ignore[no-any-return]

    return type(kind.__name__, (kind,), {"op_domain": "", "_run": _run})


class BatchNormalization(ReferenceBatchNormalization):
    """A normalisation by given means and variances; before opset 14 training shows by further outputs."""

    op_domain = ""

    def _run(
        self,
        x: Any,
        scale: Any,
        bias: Any,
        mean: Any,
        var: Any,
        epsilon: float | None = None,
        momentum: float | None = None,
        training_mode: int | None = None,
        **_: Any,
    ) -> tuple[Any, ...]:
        training = int(bool(training_mode) or len(self.onnx_node.output) > 1)
        return super()._run(x, scale, bias, mean, var, epsilon, momentum, training)  # type: ignore[no-any-return,no-untyped-call]


class LRN(OpRun):
    """A division by what the squares of neighbouring channels add up to."""

    op_domain = ""

    def _run(
        self,
        x: Any,
        alpha: float = 1e-4,
        beta: float = 0.75,
        bias: float = 1.0,
        size: int = 1,
    ) -> tuple[Any]:
        around = [(0, 0), ((size - 1) // 2, size // 2), *[(0, 0)] * (x.ndim - 2)]
        squares = np.pad(np.square(x), around)
        total = sum(squares[:, place : place + x.shape[1]] for place in range(size))
        return (x / (bias + alpha / size * total) ** beta,)


class GlobalMaxPool(OpRun):
    """The largest element of each channel, over however many axes."""

    op_domain = ""

    def _run(self, x: Any) -> tuple[Any]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(OpRun):
    """The norm of each channel."""

    op_domain = ""

    def _run(self, x: Any, p: int = 2) -> tuple[Any]:
        powers = np.power(np.abs(x), p).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
        return (powers ** (1 / p),)


class LpNormalization(OpRun):
    """A division by the sum of absolute values, or by the root of that of squares; 0 by 0 is 0."""

    op_domain = ""

    def _run(self, x: Any, axis: int = -1, p: int = 2) -> tuple[Any]:
        norm = np.linalg.norm(x, p, axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)


class RoiAlign(ReferenceRoiAlign):
    """Means of regions, whose places were not moved by half of an element before opset 16."""

    op_domain = ""

    def _run(self, *inputs: Any, **attributes: Any) -> tuple[Any]:
        if self.run_params["opsets"][""] < 16:
            attributes["coordinate_transformation_mode"] = "output_half_pixel"
        return super()._run(*inputs, **attributes)  # type: ignore[no-any-return,no-untyped-call]


class ReduceLogSumExp(ReferenceReduceLogSumExp):
    """The logarithm of a sum of exponentials, which is -inf where all that is added up is -inf."""

    op_domain = ""

    def _run(
        self, data: Any, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> tuple[Any]:
        over = self.handle_axes(axes, noop_with_empty_axes)  # type: ignore[no-untyped-call]
        if data.dtype != np.float64 or not data.size or over == ():
            return super()._run(data, axes, keepdims, noop_with_empty_axes)  # type: ignore[no-any-return,no-untyped-call]
        over = tuple(range(data.ndim)) if over is None else over
        return (torch.logsumexp(_tensor(data), over, bool(keepdims)).numpy(),)


class DynamicQuantizeLinear(OpRun):
    """Codes from 0 to 255 for numbers between the smallest and the largest, in their own precision."""

    op_domain = ""

    def _run(self, x: Any) -> tuple[Any, ...]:
        low, high = np.minimum(x.min(), 0), np.maximum(x.max(), 0)
        scale = (high - low) / 255 if high > low else np.ones((), x.dtype)
        zero = np.clip(np.rint(-low / scale), 0, 255)
        codes = np.clip(np.rint(x / scale) + zero, 0, 255)
        return codes.astype(np.uint8), np.asarray(scale, x.dtype), np.asarray(zero, np.uint8)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


MENDED: tuple[type[OpRun], ...] = (
    BatchNormalization,
    LRN,
    GlobalMaxPool,
    GlobalLpPool,
    LpNormalization,
    RoiAlign,
    ReduceLogSumExp,
    DynamicQuantizeLinear,
)
"""Implementations for ``ReferenceEvaluator``'s ``new_ops``."""
