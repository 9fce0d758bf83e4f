"""The loss curve as a picture; the one module here that loads matplotlib."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .errors import DataError

__all__ = ["plot_losses"]

_INK, _QUIET, _GRID, _LINE = "#1f2933", "#616e7c", "#e4e7eb", "#0b69a3"
_WINDOW = 20  # the trend is a running median over steps / _WINDOW steps
_BELOW = 100  # how far under the lowest median the picture goes


def plot_losses(losses: ArrayLike, path: str | Path, *, title: str = "Training loss") -> None:
    """Draw losses (steps,) over the steps, on a log scale, as a PNG of 1280 by 720 pixels.

    Pale: every step; dark: the running median, which one lucky batch does not move. Such a batch, far below
    the median, runs out of the picture, and a loss of exactly 0, which has no logarithm, is left out. Uses
    matplotlib's objects only: no pyplot, no state shared with the caller's own figures.

    Raises DataError for losses that are not one row of finite numbers with one above 0 among them.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or not (values > 0).any():
        raise DataError(
            f"plot_losses: losses is {values.shape}; expected one row of finite numbers, one above 0 or more"
        )
    steps, values = np.arange(1, len(values) + 1)[values > 0], values[values > 0]
    figure = Figure(figsize=(8, 4.5), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    single = len(values) == 1  # a line through one point is invisible
    marker = "o" if single else None
    axes.plot(steps, values, color=_LINE, alpha=0.28, linewidth=0.9, marker=marker, label="each step")
    trend = _running_median(values)
    axes.plot(steps, trend, color=_LINE, linewidth=2.0, solid_capstyle="round", label="running median")
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], min(trend) / _BELOW))
    axes.legend(loc="upper right", frameon=False, labelcolor=_QUIET)
    axes.margins(x=0.01)
    axes.set_xlabel("step", color=_QUIET)
    axes.set_ylabel("loss (log scale)", color=_QUIET)
    axes.set_title(title, loc="left", color=_INK, fontsize=13, fontweight="bold", pad=12)
    axes.grid(True, which="major", color=_GRID, linewidth=0.8)
    axes.tick_params(which="both", colors=_QUIET, length=0)
    axes.spines[:].set_visible(False)
    figure.savefig(path, format="png")


def _running_median(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    """Return at each step the median of its neighbourhood, which is cut off at both ends."""
    half = len(values) // _WINDOW // 2
    return [float(np.median(values[max(0, at - half) : at + half + 1])) for at in range(len(values))]
