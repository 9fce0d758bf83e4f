"""Which rows, and which random numbers, belong to a step: pure functions of a seed and a count.

Philox is a counter-based generator: its state is a key, here the seed, and a counter, here the count (Salmon
et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Seeds are 0 or more, below 2^128.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["fresh", "minibatch", "split"]

# The high word of Philox's counter keeps the draws of one purpose apart from those of another.
_FRESH, _EPOCH, _SPLIT = 0, 1, 2
_HELD_OUT = 5  # one row in five


def fresh(seed: int, step: int) -> np.random.Generator:
    """Return a generator that no other (seed, step) shares a draw with."""
    return _generator(seed, _FRESH, step)


def split(rows: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to train on and the fifth held out, sorted: the same ones for every seed of a run."""
    order = _generator(0, _SPLIT, 0).permutation(rows)
    held_out = rows // _HELD_OUT
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def minibatch(rows: int, size: int, seed: int, step: int) -> NDArray[np.intp]:
    """Return the rows of one step: a slice of its epoch's permutation, so that each comes once an epoch."""
    epoch, index = divmod(step, -(-rows // size))
    order = _generator(seed, _EPOCH, epoch).permutation(rows)
    return order[index * size : (index + 1) * size]


def _generator(seed: int, purpose: int, count: int) -> np.random.Generator:
    """Return a generator for one purpose at one count; 2^128 draws lie between it and the next."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, count, purpose]))
