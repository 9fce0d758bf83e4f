"""What an exporter computed beforehand, which a model in float64 takes from the file.

An exporter writes the result of operations that depend on no input as a constant, computed in the model's own
dtype: tables of sines, normalised weights. Such a constant is right where the model computes the same in that
dtype, but for the last places, and for what these become in the operations after them. The same operations in
float64 give something else, as sines of large angles do, which is no fault of the file.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from .compare import distance, same_but_rounding
from .fake_quantized import EXACT
from .modes import default_dtype
from .rounding import MARGIN
from .tensors import NARROW, to_numpy, to_torch
from .tolerance import arithmetic_of

__all__ = ["Constant", "Folded"]


@dataclass(frozen=True)
class Constant:
    """A constant of a file.

    load: gives it as the file has it, and as it is read in float64. is_weight: that it holds what a weight of
    the model does, which what is computed from weights may do, too: a weight over its norm that is one.
    joinable: that a normalisation may have gone into it (see ``joined``).
    """

    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], tuple[NDArray[Any], NDArray[Any]]]
    is_weight: bool = False
    joinable: bool = False


@dataclass(frozen=True)
class _Made:
    """How a result came about: its place among those of an operation, and whether that rounds."""

    func: Callable[..., Any]
    given: tuple[Any, ...]
    place: int
    rounds: bool


_SOME = 1024  # elements of a constant that are looked at first
_SAMPLES = 8  # that an element is unmoved in all of them by chance doesn't happen
_INTERPOLATE = ("upsample", "grid_sampler")
_COPIES = frozenset({"clone", "detach", "lift_fresh", "lift_fresh_copy", "_to_copy", "contiguous"})


_Constants: TypeAlias = Sequence[tuple[str, Constant]]


class Folded:
    """Computes what depends on no input in the model's own dtype, beside float64.

    constants: what a file holds that may be computed from weights, by name.
    own: for the tensors of the model in float64 those of the model as it is.
    dtype: the model's.
    taken: is given the names of constants that the model computes.
    """

    def __init__(
        self,
        constants: Mapping[str, Constant],
        own: Mapping[Tensor, Tensor],
        dtype: torch.dtype,
        taken: set[str],
    ) -> None:
        self._constants: dict[tuple[str, tuple[int, ...]], list[tuple[str, Constant]]] = {}
        for name, each in constants.items():
            self._constants.setdefault((each.dtype, each.shape), []).append((name, each))
        self._dtype, self._names = dtype, taken
        self._own: Any = WeakIdKeyDictionary(dict(own))
        self._dependent: Any = WeakIdKeyDictionary()
        self._computed: Any = WeakIdKeyDictionary()
        self._made: Any = WeakIdKeyDictionary()

    def depend(self, tree: Any) -> None:
        """Remember the tensors that depend on inputs."""
        _remember(self._dependent, tree)

    def read(self, tensor: Tensor) -> Tensor | None:
        """Return the file's constant that is this tensor, which is held by the model as it is."""
        return None if tensor in self._dependent else self._held(tensor, computed=False)

    def find(
        self, func: Callable[..., Tensor], plain: Callable[..., Tensor], given: Sequence[Any], places: int
    ) -> Tensor | None:
        """Return the file's constant that a function gives in the model's own dtype.

        plain: gives what a normalisation went into by ``func``. Where that is the same, the constant is a
            joinable one.
        places: how many units in the last place it may be off.

        None where there is no such constant, and where what the functions are given depends on inputs.
        """
        if any(isinstance(each, Tensor) and each in self._dependent for each in given):
            return None
        own, before = (self._compute(each, (tuple(given), {})) for each in (func, plain))
        alike = self._alike(own)
        if not alike:
            return None
        array = to_numpy(own)
        either = same_but_rounding(array, to_numpy(before), places)
        for name, each, written in _written(alike, array.dtype):
            if (each.joinable or not either) and same_but_rounding(array, written, places):
                return self._give(name, each, own.device)
        return None

    def take(self, func: Callable[..., Any], given: tuple[Any, ...], result: Any) -> Any:
        """Return what an operation gave in float64, with results that the file holds taken from it.

        ``given`` are its arguments and keyword arguments as the model passed them.
        """
        tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, Tensor)]
        if any(tensor in self._dependent for tensor in tensors) or not _repeats(func):
            self.depend((result, tensors if _writes(func) else ()))
            return result
        try:
            own = self._compute(func, given)
        except Exception:  # not to be had in the model's own dtype: then it is no constant that was folded
            self.depend(result)
            return result
        # A weight as it is, however it is laid out, is not computed: it is in the file bit by bit.
        computed = any(tensor in self._computed for tensor in tensors) or not _copies(func)
        leaves, tree = pytree.tree_flatten(result)
        for place, each in enumerate(pytree.tree_leaves(own)):
            if isinstance(each, Tensor):
                wide = leaves[place]
                rounds = computed and not torch.equal(wide, each.to(wide.dtype))
                if wide.dtype == torch.float64 and not any(wide is tensor for tensor in tensors):
                    self._made[wide] = _Made(func, given, place, rounds)
                # What torch.tensor makes of numbers is given as what it is.
                held = () if func is torch.ops.aten.lift_fresh.default else tensors
                leaves[place] = self._taken(wide, each, held, computed=computed)
                self._own[leaves[place]] = each
        if computed:
            _remember(self._computed, leaves)
        return pytree.tree_unflatten(leaves, tree)

    def _compute(self, func: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        args, kwargs = pytree.tree_map(self._narrowed, given)
        with default_dtype(self._dtype):
            return func(*args, **kwargs)

    def _narrowed(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            if leaf in self._own:
                return self._own[leaf]
            return leaf.to(self._dtype) if leaf.dtype == torch.float64 else leaf
        return self._dtype if leaf is torch.float64 else leaf

    def _taken(self, wide: Tensor, own: Tensor, given: Sequence[Tensor], *, computed: bool) -> Tensor:
        """Return a result in float64, or the file's constant that is this result."""
        if own.dtype not in NARROW or any(wide is each for each in given):
            return wide
        # In float64 a cast back from 16 bits, which the file has behind it, is no operation.
        for cast in dict.fromkeys((own, own.to(self._dtype))):
            held = self._held(cast, computed=computed, wide=wide)
            if held is not None:
                return held
        return wide

    def _held(self, own: Tensor, *, computed: bool, wide: Tensor | None = None) -> Tensor | None:
        alike = self._alike(own, computed=computed)
        if not alike:
            return None
        array = to_numpy(own)
        written_ones = _written(alike, array.dtype)
        same = ((name, each) for name, each, written in written_ones if np.array_equal(array, written))
        found = next(same, None)
        if found is None and computed:
            found = _nearest(alike, array, lambda written: same_but_rounding(array, written))
            if found is None and wide is not None:
                found = _nearest(alike, array, self._explained(wide, array))
        return None if found is None else self._give(*found, own.device)

    def _alike(self, own: Tensor, *, computed: bool = True) -> _Constants:
        """Return the file's constants that may be a tensor, by shape and dtype; float32 where it may be cast.

        computed: whether the tensor is, so that what holds a weight of the model may be it, too.
        """
        dtypes = dict.fromkeys((str(own.dtype).removeprefix("torch."), "float32"))
        named = (pair for dtype in dtypes for pair in self._constants.get((dtype, tuple(own.shape)), ()))
        return [(name, each) for name, each in named if computed or not each.is_weight]

    def _give(self, name: str, constant: Constant, device: torch.device) -> Tensor:
        """Return a constant of the file as it is read, which the model computes."""
        self._names.add(name)
        return to_torch(constant.load()[1].copy()).to(device)

    def _explained(self, wide: Tensor, own: NDArray[Any]) -> Callable[[NDArray[Any]], bool]:
        """Return what tells whether a constant is a result with other roundings in what made it.

        own: the result in the model's own dtype.
        """
        exact = to_numpy(wide)

        @functools.cache
        def allowed(dtype: Any) -> NDArray[Any]:
            most = MARGIN * self._carried(wide, own, exact) + arithmetic_of(dtype).storage * np.abs(exact)
            return np.where(np.isfinite(most), most, 0.0)  # an infinity is another's by nothing

        def explains(written: NDArray[Any]) -> bool:
            ways = (written, exact, allowed(written.dtype))
            some = (each.reshape(-1)[:: max(1, exact.size // _SOME)] for each in ways)  # of many, soon seen
            return all(
                bool((distance(one.astype(np.float64), other) <= limit).all())
                for one, other, limit in (some, ways)
            )

        return explains

    def _carried(self, wide: Tensor, own: NDArray[Any], exact: NDArray[Any]) -> NDArray[Any]:
        """Return how far roundings in the operations that made a result carry each of its elements.

        Roundings inside of an operation, as of the places between which it interpolates, show in that alone.
        """
        made: _Made | None = self._made.get(wide)
        inside = 0.0
        if made is not None and any(part in str(made.func) for part in _INTERPOLATE):
            inside = float(distance(own.astype(np.float64), exact).max(initial=0.0))
        carried = np.full(exact.shape, inside)
        for sample in range(_SAMPLES):
            moved = self._moved(wide, torch.Generator().manual_seed(sample), {})
            carried = np.maximum(carried, distance(to_numpy(moved), exact))
        return carried

    def _moved(self, wide: Tensor, generator: torch.Generator, done: dict[int, Tensor]) -> Tensor:
        """Return a result with each operation that it is made of off by about a unit in the last place."""
        made: _Made | None = self._made.get(wide)
        if made is None:
            return wide.double() if wide.dtype in NARROW else wide
        if id(wide) not in done:
            args, kwargs = pytree.tree_map(
                lambda leaf: (
                    self._moved(leaf, generator, done) if isinstance(leaf, Tensor) else _widest(leaf)
                ),
                made.given,
            )
            compute: Callable[..., Any] = EXACT.get(made.func, made.func)
            result = pytree.tree_leaves(compute(*args, **kwargs))[made.place]
            if made.rounds:
                # No two of one size, which would cancel now and then.
                off = torch.randn(result.shape, generator=generator, dtype=torch.float64)
                # What starts or ends at 0 is off by a share of the largest there.
                ranges = any(each in str(made.func) for each in ("linspace", "_window"))
                size = result.abs().amax() if ranges else result
                result = result + size * torch.finfo(self._dtype).eps * off.to(result.device)
            done[id(wide)] = result
        return done[id(wide)]


def _nearest(
    alike: _Constants, array: NDArray[Any], fits: Callable[[NDArray[Any]], bool]
) -> tuple[str, Constant] | None:
    """Return the constant that fits, the nearest to an array where several do."""
    found = []
    for name, each, written in _written(alike, array.dtype):
        if fits(written):
            apart = distance(written.astype(np.float64), array.astype(np.float64))
            found.append((float(apart.sum()), name, each))
    return min(found, key=lambda each: each[:2])[1:] if found else None


def _written(constants: _Constants, dtype: Any) -> Iterator[tuple[str, Constant, NDArray[Any]]]:
    """Give constants as the file has them, those that were cast from a dtype in that dtype."""
    for name, each in constants:
        written = each.load()[0]
        narrow = written.astype(dtype, copy=False)
        if narrow is written or np.array_equal(narrow.astype(written.dtype), written, equal_nan=True):
            yield name, each, narrow


def _widest(leaf: Any) -> Any:
    return torch.float64 if isinstance(leaf, torch.dtype) and leaf in NARROW else leaf


def _remember(kept: Any, tree: Any) -> None:
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            kept[leaf] = True


def _repeats(func: Any) -> bool:
    """Tell whether an operation gives the same each time, writes into nothing, and is one of torch's own."""
    tags = getattr(func, "tags", None)
    return tags is not None and torch.Tag.nondeterministic_seeded not in tags and not _writes(func)


def _writes(func: Any) -> bool:
    """Tell whether an operation writes into what it is given, which may be the model's own."""
    schema = getattr(func, "_schema", None)
    return schema is None or bool(schema.is_mutable)


def _copies(func: Any) -> bool:
    """Tell whether an operation gives elements of its input as they are."""
    return bool(func.is_view) or func.overloadpacket.__name__ in _COPIES
