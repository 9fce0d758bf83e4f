"""How far apart two arrays are: absolutely, in units in the last place, and where."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ort_ops.errors import ParityError

__all__ = [
    "Difference",
    "compare",
    "compare_exactly",
    "distance",
    "identical",
    "integer_distance",
    "largest",
    "same_but_rounding",
    "typical_size",
]

_SMALLER = 1e4  # times
_LAST_PLACES = 4  # by which two libraries' results of one operation may differ

_SOME, _MANY = 1024, 2**16  # elements that are looked at first, where there are more than so many
_INTEGER_OF_WIDTH = {2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(frozen=True)
class Difference:
    """Two arrays of one shape and dtype beside each other.

    ``elements`` is how many there were; ``exceeding`` how many are further apart than they may be, or hold
    NaN or an infinity in one of the two only. ``max_abs`` and ``max_ulp`` are the largest differences of
    all; ``index``, ``got``, ``expected`` and ``allowed`` belong to the element that comes nearest to, or
    furthest beyond, what it may differ by. All of these are 0 or None where there are no elements.
    """

    elements: int
    exceeding: int
    max_abs: float
    max_ulp: int
    index: tuple[int, ...] | None = None
    got: float | None = None
    expected: float | None = None
    allowed: float = 0.0

    @property
    def within(self) -> bool:
        """Tell whether no element is further from the other than it may be."""
        return self.exceeding == 0


def compare(got: NDArray[Any], expected: NDArray[Any], allowed: NDArray[np.float64]) -> Difference:
    """Compare two arrays element by element.

    got, expected: one shape and one of float16, bfloat16, float32, float64; allowed: float64 of that shape,
    how far apart each pair may be. NaN equals NaN, an infinity equals itself, and neither equals anything
    else, whatever is allowed. Raises ParityError where the dtypes or shapes differ: nothing is cast or
    broadcast.
    """
    if got.dtype != expected.dtype or got.shape != expected.shape:
        raise ParityError(
            f"got {got.dtype} {got.shape} but expected {expected.dtype} {expected.shape}; "
            "arrays to be compared have one dtype and one shape"
        )
    if got.size == 0:
        return Difference(0, 0, 0.0, 0)
    a, b = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    apart = distance(a, b)
    exceeding = apart > allowed
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        severity = np.where(apart == 0, 0.0, apart / allowed)
    worst = np.unravel_index(int(np.argmax(severity)), severity.shape)
    return Difference(
        elements=got.size,
        exceeding=int(exceeding.sum()),
        max_abs=float(apart.max()),
        max_ulp=_max_ulp(got, expected, finite),
        index=tuple(int(i) for i in worst),
        got=float(a[worst]),
        expected=float(b[worst]),
        allowed=float(allowed[worst]),
    )


def compare_exactly(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    """Compare integers, booleans or strings: ``exceeding`` are those that aren't the same.

    The first of them is shown; of strings no more than where it is.
    """
    different = a != b
    count = int(np.sum(different))
    index = tuple(int(i) for i in np.argwhere(different)[0]) if count else None
    numbers = a.dtype.kind in "iub"
    return Difference(
        elements=a.size,
        exceeding=count,
        max_abs=float(integer_distance(a, b).max(initial=0)) if numbers else float(count > 0),
        max_ulp=0,
        index=index,
        got=a[index].item() if index is not None and numbers else None,
        expected=b[index].item() if index is not None and numbers else None,
    )


def distance(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far apart elements are: NaN and infinities not at all from themselves, else infinitely."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    # inf - inf is what ``same`` has settled; two finite numbers may be further apart than the largest.
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(same, 0.0, np.where(finite, np.abs(a - b), np.inf))


def identical(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Tell whether two arrays are the same, NaN in the same places."""
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind in "fcV")


def largest(array: NDArray[Any]) -> float:
    """Return the largest size of the finite elements; 0 where there are none."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def typical_size(array: NDArray[Any]) -> NDArray[np.float64]:
    """Return for each element the size that its errors are a share of; 0 where it is 0 or isn't finite.

    Where most numbers are of one size their differences are as exact as they are; few are far smaller.
    """
    size = np.where(np.isfinite(array), np.abs(array), 0.0)
    median = np.median(size) if size.size else 0.0
    return np.maximum(size, np.minimum(median, _SMALLER * size))


def same_but_rounding(a: NDArray[Any], b: NDArray[Any], places: int = _LAST_PLACES) -> bool:
    """Tell whether two arrays are one result in its dtype, computed by different libraries.

    places: the units in the last place that their elements may differ by.
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    step = a.size // _SOME
    if a.size > _MANY and not same_but_rounding(a.reshape(-1)[::step], b.reshape(-1)[::step], places):
        return False
    finite = np.isfinite(a) & np.isfinite(b)
    others = distance(a[~finite].astype(np.float64), b[~finite].astype(np.float64))
    return not others.any() and _max_ulp(a, b, finite) <= places


def _max_ulp(a: NDArray[Any], b: NDArray[Any], finite: NDArray[np.bool_]) -> int:
    """Return how many representable numbers lie between the two, at most, over the finite pairs."""
    if not finite.any():
        return 0
    x, y = _ordered(a[finite]), _ordered(b[finite])
    # Unsigned: the two may be further apart than an int64 reaches, and modulo 2**64 the result is right.
    apart = np.maximum(x, y).astype(np.uint64) - np.minimum(x, y).astype(np.uint64)
    return int(apart.max())


def _ordered(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return each value's number in the row of representable values: neighbours differ by 1, -0 is 0."""
    if values.dtype not in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        raise ParityError(f"{values.dtype} has no units in the last place; expected a floating-point dtype")
    bits = values.view(_INTEGER_OF_WIDTH[values.dtype.itemsize]).astype(np.int64)
    lowest = -(1 << (8 * values.dtype.itemsize - 1))
    return np.where(bits < 0, lowest - bits, bits)


def integer_distance(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.uint64]:
    """Return how far apart integers or booleans of one dtype are, exactly."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    apart: NDArray[np.uint64] = high.astype(np.uint64) - low.astype(np.uint64)  # right modulo 2**64
    return apart
