"""4-bit tensors: two elements a byte in ONNX Runtime, the first in the low half; one a byte in ml_dtypes."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = ["PACKED", "pack", "unpack"]

# What each of the 16 codes stands for (ONNX, TensorProto.DataType).
_CODES = np.arange(16)
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_VALUES: Mapping[int, NDArray[Any]] = {
    21: _CODES.astype(ml_dtypes.uint4),
    22: np.where(_CODES < 8, _CODES, _CODES - 16).astype(ml_dtypes.int4),
    23: np.concatenate([_E2M1, -_E2M1]).astype(ml_dtypes.float4_e2m1fn),
}
PACKED = frozenset(_VALUES)
"""The 4-bit element types, by ONNX's numbers."""


def unpack(packed: NDArray[np.uint8], shape: tuple[int, ...], element_type: int) -> NDArray[Any]:
    """Return an array of ``shape`` in ml_dtypes' type for one of the ONNX element types 21, 22 and 23."""
    codes = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
    count = int(np.prod(shape, dtype=np.int64))  # an odd one leaves the last half byte unused
    return _VALUES[element_type][codes[:count]].reshape(shape)


def pack(array: NDArray[Any], element_type: int) -> NDArray[np.uint8]:
    """Return the bytes of an array in ml_dtypes' type; the inverse of ``unpack``."""
    values = array.reshape(-1).astype(np.float32)  # holds every value of the three types
    codes = np.zeros(len(values) + len(values) % 2, np.uint8)
    if element_type == 23:
        codes[: len(values)] = np.searchsorted(_E2M1, np.abs(values)) | np.signbit(values) << 3
    else:
        codes[: len(values)] = values.astype(np.int8).view(np.uint8) & 15
    packed: NDArray[np.uint8] = codes[::2] | (codes[1::2] << np.uint8(4))
    return packed
