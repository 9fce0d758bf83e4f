"""Tensors as arrays, and arrays as tensors."""

from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["NARROW", "to_numpy", "to_torch"]

NARROW = frozenset({torch.float32, torch.float16, torch.bfloat16})
"""The dtypes that are computed in float64 instead."""


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array on the CPU, bfloat16 in ml_dtypes' type."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_torch(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor on the CPU; ml_dtypes' bfloat16 is torch's."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
