"""Which constants of a file are the model's own weights, bit by bit, and which are but for some elements."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = ["ChangedWeight", "is_uniform", "match_weights", "print_of"]

_LAST_PLACES = 4  # what folding a factor into a weight may cost
_BLOCK = 2**15  # elements that are mixed at a time, and stay in the processor's cache meanwhile
_ENOUGH = 8  # elements of which most can't be the same by chance
_NEAR = 1e-3  # of an element's size: what it was changed by, and not replaced
_SOME = 1024  # elements that are looked at first
_FEW = 24  # channels that are, or a few more, and of each as many elements
_MAYBE = 0.3  # of these, where most of all may be the same
_KEPT = 0.05  # of the elements of a weight of a parameter's name, where others were replaced
_CHANGED = 0.05  # of the elements of one of another name, at most, that is that weight beyond doubt
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class ChangedWeight:
    """An initializer that is a weight of the model but for some elements.

    ``elements`` of ``size`` differ, by ``relative`` of the largest of them at most. ``rounded``: it is the
    weight in a narrower dtype.
    """

    initializer: str
    parameter: str
    elements: int
    size: int
    relative: float
    rounded: bool = False

    def stands_for(self, state: Container[str]) -> bool:
        """Tell whether it is a weight of the model beyond doubt: by its name, or as few elements differ.

        state: names of the model's weights.
        """
        if self.rounded:
            return False
        few = self.elements <= _CHANGED * self.size
        return self.initializer == self.parameter or (few and self.parameter in state)

    def __str__(self) -> str:
        far = f", by up to {self.relative:.2g} of their size" if self.relative == self.relative else ""
        return (
            f"{self.initializer} differs from the model's {self.parameter} in {self.elements} of {self.size} "
            f"elements{far}"
        )


def match_weights(
    initializers: Iterable[tuple[str, NDArray[Any]]], state: Mapping[str, NDArray[Any]]
) -> tuple[set[str], list[ChangedWeight]]:
    """Say which initializers hold a parameter or buffer, its elements in any order, and which nearly do.

    One may also be put together out of elements of several. An initializer nearly holds one if most of its
    elements are the same, or the same multiple of it in each channel, as where an exporter folds a
    normalisation into a convolution.
    """
    prints = {print_of(array): name for name, array in state.items()}
    exact: set[str] = set()
    changed: list[ChangedWeight] = []
    others: list[tuple[str, NDArray[Any]]] = []
    found: set[str] = set()
    for name, array in initializers:
        if not _is_float(array):
            continue
        # One number may be a weight's by chance.
        seen = prints.get(print_of(array)) if array.size > 1 or name in state else None
        if _is_another(name, array, state, known=seen is not None):
            exact.add(name)
            changed.append(_changed(name, array, name, state[name]))
        elif seen is not None:
            exact.add(name)
            found.add(seen)
        else:
            others.append((name, array))
    missing = {name: array for name, array in state.items() if name not in found}
    pool = _Pool(missing)
    rounded = _Rounded(state)
    unfound = {name for name, _ in others}
    for name, array in others:
        narrow = rounded.find(name, array)
        if narrow is not None and narrow.elements:  # which the model may have cast itself
            changed.append(narrow)
            continue
        nearest = narrow or next(_nearly(name, array, state), None)
        nearest = nearest or _nearly_by_name(name, array, state, unfound)
        scaled = next(_scaled(name, array, missing), None) if nearest is None else None
        if nearest is None and scaled is None:
            nearest = pool.put_together(name, array)
        if nearest is not None:
            exact.add(name)
        if (each := nearest or scaled) is not None and each.elements:
            changed.append(each)
    return exact, changed


def _is_another(name: str, array: NDArray[Any], state: Mapping[str, NDArray[Any]], *, known: bool) -> bool:
    """Tell whether another weight, or its own in another order, or one number, stands by a weight's name.

    An exporter that folds something into a weight makes other numbers of it.
    """
    values = state.get(name)
    if values is None or values.dtype != array.dtype or values.shape != array.shape or array.size < _ENOUGH:
        return False
    if np.array_equal(_bits(array), _bits(values)):
        return False
    return known or (is_uniform(array) and not is_uniform(values))


def is_uniform(array: Any) -> bool:
    """Tell whether all elements of an array or a tensor are one number, or there are none."""
    elements = array.reshape(-1)
    first = elements[:1]
    return all(bool((each == first).all()) for each in (elements[:_SOME], elements[_SOME:]))


class _Rounded:
    """Parameters rounded to narrower dtypes, for each dtype when it is first asked for."""

    def __init__(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._state = state
        self._prints: dict[Any, dict[tuple[str, int, int, int], str]] = {}

    def find(self, name: str, array: NDArray[Any]) -> ChangedWeight | None:
        """Return how many elements of a parameter rounding changed; None for what is none of these."""
        if array.dtype not in self._prints:
            self._prints[array.dtype] = {
                print_of(values.astype(array.dtype)): parameter
                for parameter, values in self._state.items()
                if _is_float(values) and values.dtype.itemsize > array.dtype.itemsize
            }
        parameter = self._prints[array.dtype].get(print_of(array))
        if parameter is None or (array.size == 1 and name not in self._state):
            return None
        values = self._state[parameter]
        found = _changed(name, values.astype(array.dtype), f"{parameter}, rounded to {array.dtype},", values)
        return replace(found, rounded=True)


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.name.startswith(("float", "bfloat"))  # those of ml_dtypes are of no kind


class _Pool:
    """The elements of parameters, of which arrays may be put together, sorted when they are asked for."""

    def __init__(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._state = state
        self._sorted: dict[Any, NDArray[Any]] = {}

    def put_together(self, name: str, array: NDArray[Any]) -> ChangedWeight | None:
        """Return how many of an array's elements are of no parameter, where most are."""
        if array.size < _ENOUGH:
            return None
        elements = _bits(array)
        some = _some(elements)
        known, by_chance = (int(self._holds(array.dtype, each).sum()) for each in (some, some ^ 1))
        if known - by_chance < _MAYBE * some.size:  # of many million there are most numbers, and neighbours
            return None
        strange = int((~self._holds(array.dtype, elements)).sum())
        if 2 * strange >= array.size:
            return None
        return ChangedWeight(name, "weights put together", strange, array.size, float("nan"))

    def _holds(self, dtype: Any, elements: NDArray[Any]) -> NDArray[np.bool_]:
        if dtype not in self._sorted:
            parts = [_bits(values) for values in self._state.values() if values.dtype == dtype]
            self._sorted[dtype] = np.sort(np.concatenate([elements[:0], *parts]))
        known = self._sorted[dtype]
        if not known.size:
            return np.zeros(elements.shape, bool)
        found: NDArray[np.bool_] = known[np.searchsorted(known[:-1], elements)] == elements
        return found


def _some(array: NDArray[Any]) -> NDArray[Any]:
    """Return some elements of an array at random places, of one of this shape the same."""
    if array.size <= _SOME:
        return array.reshape(-1)
    places = np.random.default_rng(0).integers(array.size, size=_SOME)
    chosen: NDArray[Any] = array[np.unravel_index(places, array.shape)]
    return chosen


def _most(same: NDArray[np.bool_], share: float = 0.5) -> bool:
    return int(np.count_nonzero(same)) > share * same.size


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array).reshape(-1).view(_UNSIGNED[array.dtype.itemsize])


def print_of(array: NDArray[Any]) -> tuple[str, int, int, int]:
    """Return what identifies an array's elements whatever their order."""
    bits = _bits(array)
    total = squares = 0
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK].astype(np.uint64)
        mixed = (block ^ (block >> np.uint64(15))) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        total += int(mixed.sum())
        squares += int((mixed * mixed).sum())
    return array.dtype.name, array.size, total % 2**64, squares % 2**64


def _nearly(name: str, array: NDArray[Any], state: Mapping[str, NDArray[Any]]) -> Iterator[ChangedWeight]:
    for parameter, values in state.items():
        if values.dtype != array.dtype or values.size != array.size or values.size < _ENOUGH:
            continue
        for turned in (values, values.T):
            if turned.shape != array.shape or not _most(_some(turned) == _some(array), _MAYBE):
                continue
            if _most(turned == array):
                yield _changed(name, array, parameter, turned)


def _nearly_by_name(
    name: str, array: NDArray[Any], state: Mapping[str, NDArray[Any]], unfound: set[str]
) -> ChangedWeight | None:
    """Return what differs from the parameter of its name, by too many elements to be known by the others.

    None for one that an exporter folded something into: that leaves no element as it was, and changes the
    larger weights of a module, too.
    """
    values = state.get(name)
    if values is None or values.dtype != array.dtype or values.shape != array.shape:
        return None
    if array.size >= _ENOUGH:
        same = (array == values) & (values != 0)
        return _changed(name, array, name, values) if _most(same, _KEPT) else None
    module = name.rpartition(".")[0]
    larger = {each for each in unfound if each.rpartition(".")[0] == module and _rank(state, each) > 1}
    a, b = array.astype(np.float64), values.astype(np.float64)
    kept = bool(((a == b) & (b != 0)).any())
    near = bool((np.abs(a - b) <= _NEAR * np.abs(b)).all())
    if not near or not (kept or (not larger and array.ndim < 2)):
        return None
    return _changed(name, array, name, values)


def _rank(state: Mapping[str, NDArray[Any]], name: str) -> int:
    return state[name].ndim if name in state else 0


def _scaled(name: str, array: NDArray[Any], state: Mapping[str, NDArray[Any]]) -> Iterator[ChangedWeight]:
    """Give what differs from a parameter by more than one factor a channel, where most elements don't.

    Where channels are too small for that to be no chance, what doesn't differ at all isn't given.
    """
    if array.size < _ENOUGH:
        return
    for parameter, values in state.items():
        if values.dtype != array.dtype or values.shape != array.shape or values.ndim < 2:
            continue
        for axis in (0, 1):  # a transposed convolution has its channels second
            channels = [np.moveaxis(each, axis, 0).reshape(array.shape[axis], -1) for each in (array, values)]
            apart = tuple(slice(None, None, max(1, size // _FEW)) for size in channels[0].shape)
            if not _most(~_by_factor(*(each[apart] for each in channels))[1], _MAYBE):
                continue
            factor, differing = _by_factor(*channels)
            count = int(np.count_nonzero(differing))
            if 4 * count < array.size and (count or channels[0].shape[1] >= _ENOUGH):
                scaled = (factor * channels[1]).astype(array.dtype)
                yield _changed(name, channels[0], f"{parameter} times a factor a channel", scaled, differing)


def _by_factor(array: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return each row's usual factor, and which elements of an array are not this multiple of some values."""
    a, b = array.astype(np.float64), values.astype(np.float64)
    last = _LAST_PLACES * float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]
    with np.errstate(all="ignore"):
        factor = np.median(np.where(b == 0, 1.0, a / b), axis=1, keepdims=True)
        return factor, ~((np.abs(a - factor * b) <= last * np.abs(a)) | ((a == 0) & (b == 0)))


def _changed(
    name: str,
    array: NDArray[Any],
    parameter: str,
    values: NDArray[Any],
    differing: NDArray[np.bool_] | None = None,
) -> ChangedWeight:
    a, b = array.astype(np.float64), values.astype(np.float64)
    with np.errstate(all="ignore"):
        apart = np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))
    if differing is None:
        differing = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    furthest = float(np.nanmax(apart[differing], initial=0.0))
    return ChangedWeight(name, parameter, int(differing.sum()), array.size, furthest)
