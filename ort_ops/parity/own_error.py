"""How far off PyTorch's own results are, which is what a run of its file may be off a few times over."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compare import largest, typical_size
from .tolerance import arithmetic_of

__all__ = ["largest_error", "own_error", "rounding_of"]

Array = NDArray[Any]

_USUAL = 0.25  # the share of elements that are less far off than usual: those that turn at a step may be most
_LARGER = 16.0  # than most elements: what is larger still says nothing of them
_NOTHING = 1e-6  # of the largest error: what is left of numbers that cancel
_FAR = 64.0  # times what is usual: no smooth errors are spread as wide


def largest_error(got: Array, exact: Array) -> float:
    """Return how far off an array is at most, where both are numbers."""
    wide = got.astype(np.float64)
    finite = np.isfinite(wide) & np.isfinite(exact)
    return float(np.abs(wide[finite] - exact[finite]).max(initial=0.0))


def own_error(own: Array, exact: Array, dtype: Any) -> Array:
    """Return how far off PyTorch is at most, absolutely or as a share of an element's size, as is less.

    Where it is far further off than usual, as at a step that it turned at, that is an element's own.
    """
    with np.errstate(invalid="ignore"):
        apart = np.abs(own.astype(np.float64) - exact)
    apart = np.where(np.isfinite(apart), apart, 0.0)
    size = typical_size(exact)
    some = size > _NOTHING * apart.max(initial=0.0)
    if not some.any():
        return np.full(exact.shape, apart.max(initial=0.0))
    share = apart / np.where(some, size, np.median(size[some]))  # what has cancelled has none
    usual = max(float(np.quantile(share[some], _USUAL)), arithmetic_of(dtype).storage)
    turned = share > _FAR * usual
    found = np.where(turned, apart, 0.0)
    most = np.max(apart, where=~turned, initial=0.0)
    for these in (some, ~some):  # of nothing most is exact
        limit = np.max(share, where=these & ~turned, initial=0.0)
        by_size = limit * np.where(some, size, np.median(size[some]))
        found = np.where(these, np.maximum(found, np.minimum(most, by_size)), found)
    return found


def rounding_of(expected: Array) -> Array:
    """Return how far off elements are if nothing but storing them has rounded them, at most.

    A small one may be what is left of terms of the largest size, or of a usual one if few are as large.
    """
    size = np.abs(np.nan_to_num(expected.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0))
    some = size[size > 0]
    usual = _LARGER * float(np.median(some)) if some.size else 0.0
    return arithmetic_of(expected.dtype).storage * np.maximum(size, min(largest(size), usual))
