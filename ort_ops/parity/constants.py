"""The number that somebody meant by a constant which a file holds in few bits.

A model that divides by the square root of 2 does so in float64 when it is computed in float64; its file has
0.70710677. Any number that rounds to the one in the file is a right reading of it, so the simplest is taken:
a short decimal, a root of a small fraction, or a small multiple of a well-known constant.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["meant", "meant_all"]

_SHORT = 6  # digits of a decimal that is taken as it is written
_SMALL, _LARGE = 48, 65536  # the largest denominator and numerator of a fraction
_KNOWN = (math.pi, math.e, math.log(2), math.log(10), math.sqrt(2 / math.pi), math.sqrt(2 * math.pi))


def meant(value: Any) -> float:
    """Return the simplest number that rounds to ``value``, a NumPy scalar of a floating-point type."""
    exact = float(value)
    if not math.isfinite(exact) or exact == int(exact):
        return exact
    for candidate in _candidates(str(value), exact):
        if type(value)(candidate) == value:
            return candidate
    return exact


def meant_all(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return an array with ``meant`` of each element."""
    flat = [meant(value) for value in values.reshape(-1)]
    return np.array(flat, np.float64).reshape(values.shape)


def _candidates(text: str, exact: float) -> Iterator[float]:
    decimal = float(text)
    if len(text.lstrip("-0.").partition("e")[0].replace(".", "")) <= _SHORT:
        yield decimal
    sign, size = math.copysign(1.0, exact), abs(exact)
    if not 1e-30 < size < 1e30:
        return
    for power in (1, 2, -2, 4, -4):  # 1/3, the roots of a size and their inverses
        fraction = Fraction(size**power).limit_denominator(_SMALL)
        if 0 < fraction.numerator <= _LARGE:
            yield sign * float(fraction) ** (1 / power)
    for known in (*_KNOWN, *(1 / known for known in _KNOWN)):
        fraction = Fraction(size / known).limit_denominator(_SMALL)
        if 0 < fraction.numerator <= _SMALL:
            yield sign * known * float(fraction)
