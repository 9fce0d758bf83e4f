"""Tensors as arrays, and arrays as tensors."""

from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ort_ops.errors import ParityError

__all__ = ["NARROW", "to_numpy", "to_torch"]

NARROW = frozenset({torch.float32, torch.float16, torch.bfloat16})
"""The dtypes that are computed in float64 instead."""


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array on the CPU, bfloat16 in ml_dtypes' type.

    Raises ParityError for one without values, which a model keeps from when it was captured.
    """
    if isinstance(tensor, FakeTensor):
        raise ParityError(
            "the model computes with a tensor without values, which torch.export.export left in a cache of "
            "its code (functools.lru_cache); expected the cache to be cleared, or the model made anew"
        )
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_torch(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor on the CPU; ml_dtypes' bfloat16 is torch's."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
