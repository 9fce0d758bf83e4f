"""Arithmetics: to what they round; and the certain bound on a sum of products.

Verdicts go by narrower ones (bounds.py). A sum of n products in unit round-off u is off by at most
γₙ·Σ|aᵢ||bᵢ|, γₙ = n·u / (1 - n·u), in whatever order it is summed, and with or without fused multiply-adds
(N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM 2002, section 3.1).
"""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ort_ops.errors import ParityError

__all__ = ["TF32", "Arithmetic", "arithmetic_of", "dot_error"]


@dataclass(frozen=True)
class Arithmetic:
    """How numbers are rounded: ``unit`` while products are summed, ``storage`` when a result is stored.

    Both are unit round-offs, half the distance from 1 to the next number. ``tiny`` is the smallest positive
    number that can be stored: below it results are off by more than their unit. ``operand`` is the unit
    round-off to which factors are rounded before they are multiplied, 0 where they are not.
    """

    name: str
    unit: float
    storage: float
    tiny: float
    operand: float = 0.0


def arithmetic_of(dtype: DTypeLike) -> Arithmetic:
    """Return the arithmetic of a floating-point dtype; 16-bit types are summed in float32."""
    dtype = np.dtype(dtype)
    if dtype not in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        raise ParityError(f"{dtype} has no rounding errors; expected float16, bfloat16, float32 or float64")
    info: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call] # ml_dtypes leaves it untyped
    storage = float(info.eps) / 2
    unit = min(storage, float(np.finfo(np.float32).eps) / 2)
    return Arithmetic(dtype.name, unit, storage, float(info.smallest_subnormal))


_SINGLE = arithmetic_of(np.float32)
TF32 = Arithmetic("TF32", _SINGLE.unit, _SINGLE.storage, _SINGLE.tiny, operand=2.0**-11)
"""NVIDIA's TensorFloat-32: factors rounded to 11 significant bits, products summed in float32."""


def dot_error(terms: int, magnitude: NDArray[Any], arithmetic: Arithmetic) -> NDArray[np.float64]:
    """Return the certain bound on the error of sums of ``terms`` products.

    magnitude: for each sum, the sum of its terms' absolute values. Where the arithmetic stores in fewer bits
    than it sums in, a product and a bias may each be rounded to them once more.
    """
    gamma = terms * arithmetic.unit
    if gamma >= 0.5:
        raise ParityError(f"{terms} terms in {arithmetic.name}: rounding alone may change every digit")
    relative = gamma / (1 - gamma) + 2 * arithmetic.operand + arithmetic.operand**2
    if arithmetic.storage > arithmetic.unit:
        relative += 2 * arithmetic.storage * (1 + arithmetic.storage)
    return magnitude.astype(np.float64) * relative + 2 * arithmetic.tiny
