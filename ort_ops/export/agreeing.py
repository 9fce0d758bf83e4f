"""Whether two ways to compute gave one result, but for rounding errors."""

from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["agree"]


def agree(one: Any, two: Any, roundings: float) -> bool:
    """Tell whether two arrays differ by no more than so many roundings of the largest element of the second.

    Of a type that isn't rounded each element has to be the same.
    """
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.dtype.kind not in "fcV":  # V: bfloat16 and float8
        return bool(np.array_equal(one, two))
    a, b = (each if each.dtype.kind == "c" else each.astype(np.float64) for each in (one, two))
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    info: Any = ml_dtypes.finfo(one.dtype)  # type: ignore[no-untyped-call]  # ml_dtypes leaves it untyped
    limit = roundings * float(info.eps) * largest
    return bool(np.allclose(a, b, rtol=0.0, atol=limit, equal_nan=True))
