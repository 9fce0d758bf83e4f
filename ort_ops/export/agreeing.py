"""Whether two ways to compute gave one result, but for rounding errors."""

from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["agree", "unit_of"]


def agree(one: Any, two: Any, share: float) -> bool:
    """Tell whether two arrays differ by no more than this share of the largest element of the second.

    Of a type that isn't rounded each element has to be the same.
    """
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.dtype.kind not in "fcV":  # V: bfloat16 and float8
        return bool(np.array_equal(one, two))
    a, b = (each if each.dtype.kind == "c" else each.astype(np.float64) for each in (one, two))
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=0.0, atol=share * largest, equal_nan=True))


def unit_of(dtype: Any) -> float:
    """Return the distance from 1 to the next number of a type, 0 for one that isn't rounded."""
    if np.dtype(dtype).kind not in "fcV":
        return 0.0
    info: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # ml_dtypes leaves it untyped
    return float(info.eps)
