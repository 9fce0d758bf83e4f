"""The number that somebody meant by a constant which a file holds in few bits.

A model that divides by the square root of 2 does so in float64 when it is computed in float64; its file has
0.70710677. Any number that rounds to the one in the file is a right reading of it, so the simplest is taken:
a decimal of two digits, a small fraction, a root of one, a small multiple of a well-known constant, a short
decimal.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = ["NOTHING_KNOWN", "Known", "meant", "meant_all"]

_SMALL, _LARGE = 48, 65536  # the largest denominator and numerator of a fraction
_WHOLE = 2.0**24  # the first size at which not all whole numbers are in float32
_KNOWN = (math.pi, math.e, math.log(2), math.log(10), math.sqrt(2 / math.pi), math.sqrt(2 * math.pi))


class Known:
    """Numbers that a model computes with."""

    def __init__(self) -> None:
        self._numbers: list[float] = []
        self._rounded: dict[Any, dict[float, float]] = {}

    def add(self, numbers: Iterable[float]) -> None:
        """Add numbers to those that are known."""
        self._numbers = sorted({*self._numbers, *(each for each in numbers if math.isfinite(each))})
        self._rounded.clear()

    def find(self, value: Any) -> float | None:
        """Return the number that rounds to ``value``, a NumPy scalar; None where none does, or several do."""
        kind = type(value)
        if kind not in self._rounded:
            with np.errstate(over="ignore", under="ignore"):
                rounded = [(float(kind(each)), each) for each in self._numbers]
            counts = Counter(each for each, _ in rounded)
            self._rounded[kind] = {each: number for each, number in rounded if counts[each] == 1}
        return self._rounded[kind].get(float(value))


NOTHING_KNOWN = Known()


def meant(value: Any, known: Known = NOTHING_KNOWN) -> float | None:
    """Return the simplest number that rounds to ``value``, a NumPy scalar of a floating-point type.

    A known number goes before all others. None where there is none that is simple.
    """
    exact = float(value)
    own = known.find(value)
    if own is not None:
        return own
    if not math.isfinite(exact) or (exact == int(exact) and abs(exact) < _WHOLE):
        return exact
    found = [
        (complexity, candidate)
        for complexity, candidate in _candidates(str(value), exact, _digits(type(value)))
        if type(value)(candidate) == value
    ]
    if not found and exact == int(exact):
        return exact
    return min(found)[1] if found else None


def meant_all(values: NDArray[Any], known: Known = NOTHING_KNOWN) -> NDArray[np.float64] | None:
    """Return an array with ``meant`` of each element; None where one of them is not simple."""
    flat = [meant(value, known) for value in values.reshape(-1)]
    if any(each is None for each in flat):
        return None
    return np.array(flat, np.float64).reshape(values.shape)


def _digits(kind: Any) -> int:
    """Return how many digits a decimal may have: with more it is what is left of another number."""
    info: Any = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call] # ml_dtypes leaves it untyped
    return int(info.precision) - 1


def _candidates(text: str, exact: float, digits: int) -> Iterator[tuple[float, float]]:
    """Give numbers near one, each with how complex it is."""
    length = len(text.lstrip("-0.").partition("e")[0].replace(".", ""))
    if length <= 2:
        yield 0, float(text)
    elif length <= digits:
        yield math.inf, float(text)
    sign, size = math.copysign(1.0, exact), abs(exact)
    if not 1e-30 < size < 1e30:
        return
    for power in (1, 2, -2, 4, -4):  # 1/3, the roots of a size and their inverses
        fraction = Fraction(size**power).limit_denominator(_SMALL)
        if 0 < fraction.numerator <= _LARGE:
            yield _complexity(fraction) + abs(power), sign * float(fraction) ** (1 / power)
    for known in (*_KNOWN, *(1 / known for known in _KNOWN)):
        fraction = Fraction(size / known).limit_denominator(_SMALL)
        if 0 < fraction.numerator <= _SMALL:
            yield _complexity(fraction) + 3, sign * known * float(fraction)


def _complexity(fraction: Fraction) -> int:
    return fraction.numerator + fraction.denominator
