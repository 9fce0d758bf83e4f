"""How the errors of an output are spread: over their sizes, and over the sizes of the numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Profile", "profile"]

_POINTS = 400  # that are kept of all elements
_BINS = 24
_NARROW = 1e-6  # of a logarithm: no room for bins


@dataclass(frozen=True)
class Profile:
    """Errors of the elements of an output.

    exact: how many have none. edges, counts: a histogram of the others by the logarithm (base 10) of the
    error; there is one edge more than there are counts. points: magnitude and error of some elements, the
    largest errors among them.
    """

    exact: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    points: tuple[tuple[float, float], ...]


def profile(apart: NDArray[Any], magnitude: NDArray[Any]) -> Profile:
    """Return the profile of errors, beside the numbers that they are of; what isn't finite is left out."""
    error, size = np.abs(apart).reshape(-1), np.abs(magnitude).reshape(-1)
    finite = np.isfinite(error) & np.isfinite(size)
    some = finite & (error > 0)
    exact = int(finite.sum() - some.sum())
    error, size = error[some], size[some]
    counts, edges = _histogram(np.log10(error))
    order = np.argsort(-error, kind="stable")
    # The largest, and the rest evenly.
    chosen = np.concatenate([order[: _POINTS // 4], order[:: max(1, order.size // _POINTS)]])[:_POINTS]
    points = tuple((float(size[i]), float(error[i])) for i in dict.fromkeys(chosen.tolist()))
    return Profile(exact, tuple(edges.tolist()), tuple(map(int, counts)), points)


def _histogram(logs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if not logs.size:
        return np.zeros(0, int), np.zeros(0)
    low, high = float(logs.min()), float(logs.max())
    if high - low < _NARROW:  # NumPy makes room for one number only
        low, high = low - 0.5, high + 0.5
    return np.histogram(logs, _BINS, (low, high))
