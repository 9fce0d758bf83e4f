"""MYLINEAR for ONNX Runtime: Y = X·Wᵀ + B with NumPy on the CPU and with torch on CUDA.

Importing this module registers both. They serve the domains ``mylinear`` and "" (files without domains), and
``ai.onnx.contrib`` where a model asks for it.
"""

import math
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import ort_ops

from .errors import OperandError

__all__ = ["mylinear", "mylinear_cuda"]

NAMES = ("mylinear::MYLINEAR", "::MYLINEAR", "ai.onnx.contrib::MYLINEAR")

T = TypeVar("T", np.float16, ml_dtypes.bfloat16, np.float32, np.float64)


def _check(x: tuple[Any, ...], weight: tuple[Any, ...], bias: tuple[Any, ...] | None) -> None:
    """Raise OperandError unless the shapes are (..., in), (out, in) and (out,)."""
    if not x:
        raise OperandError("MYLINEAR: input is a scalar; expected (..., in)")
    if len(weight) != 2 or weight[1] != x[-1]:
        raise OperandError(
            f"MYLINEAR: weight is {weight} but input has {x[-1]} features; expected weight (out, {x[-1]})"
        )
    if bias is not None and bias != (weight[0],):
        raise OperandError(f"MYLINEAR: bias is {bias} but weight is {weight}; expected bias ({weight[0]},)")


@ort_ops.onnx_op(*NAMES)
def mylinear(x: NDArray[T], weight: NDArray[T], bias: NDArray[T] | None = None) -> NDArray[T]:
    """Return x·weightᵀ + bias, shape (..., out); x: (..., in), weight: (out, in), bias: (out,).

    16-bit types are multiplied and summed in float32 and rounded once.
    """
    _check(x.shape, weight.shape, None if bias is None else bias.shape)
    dtype = x.dtype
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # one product instead of one a leading index
    if dtype.itemsize == 2:
        rows, weight = rows.astype(np.float32), weight.astype(np.float32)
    y = rows @ weight.T
    if bias is not None:
        y += bias  # in place: y is ours
    result: NDArray[T] = y.reshape(*x.shape[:-1], weight.shape[0]).astype(dtype, copy=False)
    return result


@ort_ops.onnx_op(*NAMES, providers=["CUDAExecutionProvider"], array="torch", inputs=[T, T, T], outputs=[T])
def mylinear_cuda(x: Any, weight: Any, bias: Any = None, *, out: Any) -> None:
    """Write x·weightᵀ + bias into ``out``, (..., out), for torch tensors on the GPU; else as ``mylinear``."""
    import torch  # noqa: PLC0415 # only where ONNX Runtime has a GPU and hands tensors over

    _check(tuple(x.shape), tuple(weight.shape), None if bias is None else tuple(bias.shape))
    count = math.prod(x.shape[:-1])
    rows, y = x.reshape(count, x.shape[-1]), out.view(count, weight.shape[0])
    if bias is None:
        torch.mm(rows, weight.T, out=y)
    else:
        torch.addmm(bias, rows, weight.T, out=y)


@mylinear.infer
@mylinear_cuda.infer
def _shape(
    x: ort_ops.TensorType, weight: ort_ops.TensorType, bias: ort_ops.TensorType | None = None
) -> ort_ops.TensorType:
    if x.shape is None or weight.shape is None:
        return ort_ops.TensorType(x.dtype, None)
    if not isinstance(x.shape[-1], str | None) and not isinstance(weight.shape[-1], str | None):
        _check(x.shape, weight.shape, None)
    return ort_ops.TensorType(x.dtype, (*x.shape[:-1], weight.shape[0]))
