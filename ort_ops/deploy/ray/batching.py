"""Several requests as one run: put together along the first dimension, and taken apart again."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ort_ops.errors import BundleError

from .replica import Feed, Outputs

__all__ = ["row_count", "run_together"]


def row_count(feed: Feed) -> int | None:
    """Return the first dimension that all arrays of a request have; None where they have none in common."""
    counts = {array.shape[0] if getattr(array, "ndim", 0) else None for array in feed.values()}
    return counts.pop() if len(counts) == 1 else None


def run_together(
    feeds: Sequence[Feed], names: Sequence[str], run: Callable[[Feed], Outputs], most: int
) -> list[Outputs | Exception]:
    """Run requests in as few runs of at most ``most`` rows as their shapes and dtypes allow.

    names: of the outputs. Returns outputs or an error for each request. Where a run fails, each of its
    requests runs alone, so that none fails for another's sake. Raises BundleError where an output hasn't a
    row for each of the input's: such a model can't be batched.
    """
    answers: dict[int, Outputs | Exception] = {}
    for group in _groups(feeds, most):
        together = [feeds[index] for index in group]
        try:
            answers.update(zip(group, _run_group(together, names, run), strict=True))
        except BundleError:
            raise
        except Exception as error:
            if len(group) == 1:
                answers[group[0]] = error
            else:
                alone = (run_together([feed], names, run, 0) for feed in together)
                answers.update((index, answer) for index, (answer,) in zip(group, alone, strict=True))
    return [answers[index] for index in range(len(feeds))]


def _groups(feeds: Sequence[Feed], most: int) -> Iterator[list[int]]:
    """Give the places of the requests that run together."""
    waiting: dict[Any, tuple[list[int], int]] = {}
    for index, feed in enumerate(feeds):
        rows = row_count(feed)
        if rows is None or rows >= most:
            yield [index]
            continue
        signature = frozenset((name, array.dtype, array.shape[1:]) for name, array in feed.items())
        group, taken = waiting.get(signature, ([], 0))
        if taken + rows > most:
            yield group
            group, taken = [], 0
        waiting[signature] = [*group, index], taken + rows
    yield from (group for group, _ in waiting.values())


def _run_group(feeds: Sequence[Feed], names: Sequence[str], run: Callable[[Feed], Outputs]) -> list[Outputs]:
    if len(feeds) == 1:
        return [run(feeds[0])]
    ends = [*accumulate(row_count(feed) or 0 for feed in feeds)]
    whole = run({name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
    for name, array in zip(names, whole, strict=True):
        if array.shape[:1] != (ends[-1],):
            raise BundleError(
                f"output {name!r} is {array.shape} for {ends[-1]} rows; this model can't be batched"
            )
    parts = [np.split(array, ends[:-1]) for array in whole]
    return [list(outputs) for outputs in zip(*parts, strict=True)]
