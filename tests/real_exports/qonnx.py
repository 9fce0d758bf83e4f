"""QONNX's operators in NumPy, from their specification: fastmachinelearning/qonnx, docs/qonnx-custom-ops.

They are here and not taken from the package of that name, so that two readings of the text are compared.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import ort_ops

DOMAIN = "qonnx.custom_op.general"
F32 = NDArray[np.float32]

ROUND = {
    "ROUND": np.round,  # half to even
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "ROUND_TO_ZERO": np.trunc,
}


def register() -> None:
    """Register a kernel for each of the operators."""
    for name, kernel in (
        ("Quant", quant),
        ("BipolarQuant", bipolar_quant),
        ("Trunc", trunc),
        ("FloatQuant", float_quant),
    ):
        ort_ops.onnx_op(f"{DOMAIN}::{name}", version=2)(kernel)


def limits(bit_width: Any, signed: int, narrow: int) -> tuple[np.float32, np.float32]:
    """Return the least and the greatest integer of a width."""
    steps = np.float32(2.0) ** (bit_width - np.float32(signed))
    low = -steps + np.float32(narrow) if signed else np.float32(0)
    high = steps - 1 if signed else steps - 1 - np.float32(narrow)
    return np.float32(low), np.float32(high)


def quant(
    x: F32,
    scale: F32,
    zero_point: F32,
    bit_width: F32,
    *,
    signed: int = 1,
    narrow: int = 0,
    rounding_mode: str = "ROUND",
) -> F32:
    low, high = limits(bit_width, signed, narrow)
    whole = np.clip(ROUND[rounding_mode.upper()](x / scale + zero_point), low, high)
    return np.asarray((whole - zero_point) * scale, np.float32)


def bipolar_quant(x: F32, scale: F32) -> F32:
    return np.asarray(np.where(x >= 0, scale, -scale), np.float32)


def trunc(
    x: F32,
    scale: F32,
    zero_point: F32,
    in_bit_width: F32,
    out_scale: F32,
    out_bit_width: F32,
    *,
    signed: int = 1,
    narrow: int = 0,
    rounding_mode: str = "FLOOR",
) -> F32:
    low, high = limits(out_bit_width, signed, narrow)
    step = np.float32(2.0) ** np.round(np.log2(out_scale / scale))
    whole = ROUND[rounding_mode.upper()](np.clip(np.round(x / scale + zero_point) / step, low, high))
    return np.asarray((whole - zero_point / step) * out_scale, np.float32)


def float_quant(
    x: F32,
    scale: F32,
    exponent_bit_width: F32,
    mantissa_bit_width: F32,
    exponent_bias: F32,
    max_val: F32,
    *,
    has_inf: int = 0,
    has_nan: int = 0,
    has_subnormal: int = 0,
    rounding_mode: str = "ROUND",
    saturation: int = 1,
) -> F32:
    if not (has_subnormal and saturation):
        raise NotImplementedError("FloatQuant without subnormals or without saturation")
    x = x / scale
    _, exponent = np.frexp(x)  # |x| = m * 2**exponent with m in [0.5, 1)
    least = 1 - exponent_bias - mantissa_bit_width
    step = np.exp2(np.maximum(exponent - 1 - mantissa_bit_width, least)).astype(np.float32)
    return np.asarray(
        np.clip(ROUND[rounding_mode.upper()](x / step) * step, -max_val, max_val) * scale, np.float32
    )
