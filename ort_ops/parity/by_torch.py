"""Operators in torch's float64 that onnx's reference evaluator computes slowly, or in float32."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_cum_sum import CumSum as ReferenceCumSum
from onnx.reference.ops.op_gather_elements import GatherElements as ReferenceGatherElements
from onnx.reference.ops.op_grid_sample import GridSample as ReferenceGridSample
from onnx.reference.ops.op_log_softmax import LogSoftmax as ReferenceLogSoftmax
from onnx.reference.ops.op_resize import Resize as ReferenceResize
from onnx.reference.ops.op_scatter_elements import ScatterElements as ReferenceScatterElements
from torch import Tensor
from torch.nn import functional

from .windows import WINDOWS

__all__ = ["BY_TORCH"]

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


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
        if scales is None and sizes is None:  # opset 10, whose second input are the scales
            return _from_the_left(self, x, roi, attributes["mode"])
        corners = attributes.get("coordinate_transformation_mode") == "align_corners"
        if corners and scales is not None and scales.size and not attributes.get("axes"):
            sizes, scales = np.floor(np.array(x.shape) * scales).astype(np.int64), None
        return super()._run(x, roi, scales, sizes, **attributes)  # type: ignore[no-any-return]


class Upsample(ReferenceResize):
    """Interpolation as it was before opset 10."""

    op_domain = ""

    def _run(self, x: Any, scales: Any, mode: str = "nearest", **_: Any) -> tuple[Any]:  # type: ignore[override]
        return _from_the_left(self, x, np.asarray(scales), mode)


def _from_the_left(node: ReferenceResize, x: Any, scales: Any, mode: str) -> tuple[Any]:
    """Interpolate between the elements at and behind each place, as ONNX Runtime does below opset 11."""
    places = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return ReferenceResize._run(  # type: ignore[no-any-return]
        node, x, None, scales, mode=mode, keep_aspect_ratio_policy="stretch", **places
    )


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


class LogSoftmax(ReferenceLogSoftmax):
    """Logarithms of shares, of those too that are too small for a number of their own."""

    op_domain = ""

    def _run(self, x: Any, axis: int | None = None) -> tuple[Any]:
        own: Any = self  # whose attributes OpRun reads off the node
        y = functional.log_softmax(_tensor(x), own.axis if axis is None else axis)
        return (y.numpy().reshape(x.shape),)


class GatherElements(ReferenceGatherElements):
    """Elements at places along one axis, without a step of Python for each."""

    op_domain = ""

    def _run(self, data: Any, indices: Any, axis: int | None = None) -> tuple[Any]:
        axis = (axis or 0) % data.ndim
        part = tuple(slice(None if place == axis else size) for place, size in enumerate(indices.shape))
        return (np.take_along_axis(data[part], indices, axis),)


class ScatterElements(ReferenceScatterElements):
    """Elements put at places along one axis, or added to what is there, in the order in which they come."""

    op_domain = ""

    def _run(
        self, data: Any, indices: Any, updates: Any, axis: int | None = None, reduction: str | None = None
    ) -> tuple[Any]:
        if data.dtype not in (np.float64, np.int64, np.int32) or not data.ndim:
            return super()._run(data, indices, updates, axis, reduction)  # type: ignore[no-any-return,no-untyped-call]
        axis = (axis or 0) % data.ndim
        places = _tensor(np.where(indices < 0, indices + data.shape[axis], indices).astype(np.int64))
        kind = _REDUCTIONS.get(reduction or "none")
        if kind is None:
            return (_tensor(data).scatter(axis, places, _tensor(updates)).numpy(),)
        return (_tensor(data).scatter_reduce(axis, places, _tensor(updates), kind).numpy(),)


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
    *WINDOWS,
    *(Resize, Upsample, CumSum, Erf, Gelu, Selu, LogSoftmax, GridSample, AffineGrid, SequenceMap),
    *(GatherElements, ScatterElements),
)
"""Implementations for ``ReferenceEvaluator``'s ``new_ops``."""
