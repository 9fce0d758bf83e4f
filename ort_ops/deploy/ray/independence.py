"""Whether rows that are put together influence one another's answers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ort_ops.errors import BundleError

from .batching import row_count, run_together
from .replica import Feed, Outputs, Replica

__all__ = ["Way", "ways_together"]

Way = Callable[[Sequence[Feed]], list[Outputs]]


def ways_together(replica: Replica) -> list[Way]:
    """Return ways of answering several requests that only rows of their own make give the same answers by.

    Each request put together with others, of other numbers, once before and once behind them; and with its
    first row run apart from the rest. Where the model fails over the others, a request is run alone. They
    raise BundleError for requests that can't be put together.
    """

    def together(feeds: Sequence[Feed]) -> list[Outputs]:
        found = run_together(feeds, replica.names, replica.run, sum(map(_rows, feeds)) + 1)
        for answer in found:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in found if not isinstance(answer, Exception)]

    def before(feeds: Sequence[Feed]) -> list[Outputs]:
        return together([*feeds, *_others(feeds)])[: len(feeds)]

    def behind(feeds: Sequence[Feed]) -> list[Outputs]:
        return together([*_others(feeds), *feeds])[-len(feeds) :]

    def apart(feeds: Sequence[Feed]) -> list[Outputs]:
        return [_joined([replica.run(part) for part in _split(feed)]) for feed in feeds]

    return [before, behind, apart]


def _rows(feed: Feed) -> int:
    rows = row_count(feed)
    if rows is None:
        raise BundleError(
            "the golden answers have inputs of different first dimensions; expected one along which "
            "requests can be put together"
        )
    return rows


def _others(feeds: Sequence[Feed]) -> list[Feed]:
    """Return requests of other rows: larger and smaller fractions, the rest moved along their last axis."""
    return [_another(feed, sign) for feed in reversed(feeds) for sign in (1, -1)]


def _another(feed: Feed, sign: int) -> Feed:
    return {
        name: sign * (2 * np.abs(array) + 1)
        if array.dtype.kind == "f"
        else np.roll(array, sign, -1 if array.ndim > 1 else 0)
        for name, array in feed.items()
    }


def _split(feed: Feed) -> list[Feed]:
    """Return a request's first row and the others; the request itself where it has one row."""
    if _rows(feed) < 2:
        return [feed]
    parts = (slice(1), slice(1, None))
    return [{name: array[part] for name, array in feed.items()} for part in parts]


def _joined(parts: Sequence[Outputs]) -> list[Any]:
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]
