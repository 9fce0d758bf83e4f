"""The tensors that a model computes on its way, found again among those of its file by what is in them.

Names match nothing in a TorchScript file. Two tensors are counterparts if they hold the same numbers, in
whatever shape or order of the axes.
"""

import itertools
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils import _pytree as pytree

from .compare import distance, largest
from .modes import Mode
from .weights import is_uniform

__all__ = ["Counterpart", "Counterparts", "same"]

Array = NDArray[Any]

# What the exporters write as several nodes, and torch computes as one operation: its steps are looked at,
# too. None that adds a bias at its end: without that the result would look like a step on the way to it.
_COMPOSED = frozenset(
    (
        *("gelu", "silu", "_softmax", "_log_softmax", "hardswish", "hardsigmoid", "mish", "elu", "softplus"),
        *(
            "logsumexp",
            "std",
            "var",
            "log1p",
            "expm1",
            "leaky_relu",
            "norm",
            "linalg_vector_norm",
            "rsub",
        ),
    )
)
_BIASED = frozenset(("addmm", "addmv", "baddbmm"))
_NORMS = frozenset(("native_group_norm", "native_layer_norm"))


_MASKED, _MASKED_ALIKE = 1e4, 1e-3  # times what isn't masked, all of about one size
_AXES = 5  # of more, which have too many orders, the numbers alone are compared


@dataclass(frozen=True)
class Counterpart:
    """What in the model has the numbers of a tensor.

    operation: of the model. exact: the number of its result, where that has shape and order of the tensor.
    uniform: whether it is one number everywhere, as many others are. step: whether it is one of an operation,
    which an exporter may have written.
    """

    operation: str
    exact: int | None
    uniform: bool = False
    step: bool = False

    @property
    def certain(self) -> bool:
        """Tell whether it is one result of the model's, and no other is meant."""
        return self.exact is not None and not self.uniform and not self.step


class _Seen:
    """A result of an operation: its values, or no more than their moments."""

    def __init__(self, number: int, operation: str, values: Array, *, keep: bool, is_step: bool) -> None:
        self.number, self.operation, self.is_step = number, operation, is_step
        self.values = values if keep else None
        self._moments = None if keep else _moments(values)

    @property
    def moments(self) -> NDArray[np.float64]:
        if self._moments is None:
            assert self.values is not None
            self._moments = _moments(self.values)
        return self._moments


class Counterparts:
    """Takes in what a model computes.

    ``memory`` is how many bytes of it are kept; beyond that sums must do. Views of ``weights``, which stay as
    they are, take none of it.
    """

    def __init__(self, memory: int, weights: Iterable[Tensor] = ()) -> None:
        self._left = memory
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self._by_size: dict[int, list[_Seen]] = {}
        self._numbers = itertools.count()

    def see(self, operation: Any, arguments: tuple[Any, ...], results: Sequence[Tensor]) -> None:
        """Take in what an operation gave, and the steps of it where an exporter writes these."""
        for tensor in results:
            self._add(str(operation), tensor)
        self._see_steps(operation, arguments, _COMPOSED)

    def see_before_bias(self, operation: Any, arguments: tuple[Any, ...], results: Sequence[Tensor]) -> None:
        """Take in nothing but what an operation gives before it adds its bias, and before it weighs that."""
        self._see_steps(operation, arguments, _BIASED)
        if _name(operation) not in _NORMS:
            return
        names = (each.name for each in operation._schema.arguments)
        given = dict(zip(names, arguments[0], strict=False))
        for left_out in ({"bias": None}, {"bias": None, "weight": None}):
            self._add(str(operation), operation(**{**given, **arguments[1], **left_out})[0])

    def _see_steps(self, operation: Any, arguments: tuple[Any, ...], composed: frozenset[str]) -> None:
        if _name(operation) == "rsqrt":
            self._add(f"{operation}, aten.sqrt.default", arguments[0][0].sqrt(), is_step=True)
        if _name(operation) not in composed:
            return
        steps = decomposition_table.get(operation)
        if steps is None:
            return
        with torch.no_grad(), _Steps(self, str(operation)):
            steps(*arguments[0], **arguments[1])

    def _add(self, operation: str, tensor: Tensor, *, is_step: bool = False) -> None:
        if tensor.is_complex() or tensor.is_sparse or tensor.is_quantized:
            return
        values = _as_array(tensor.detach().cpu())
        keep = tensor.is_cpu and tensor.untyped_storage().data_ptr() in self._weights
        if not keep and values.nbytes <= self._left:
            values, keep = values.copy(), True
            self._left -= values.nbytes
        self._by_size.setdefault(values.size, []).append(
            _Seen(next(self._numbers), operation, values, keep=keep, is_step=is_step)
        )

    def find(self, values: Array, tolerance: float) -> Counterpart | None:
        """Return what has these values, to a share of the largest of them, or None.

        What has them in their shape and order comes first.
        """
        alike = self._alike(values, tolerance)
        for seen in alike:
            if seen.values is not None and same(values, seen.values, tolerance):
                return Counterpart(seen.operation, seen.number, is_uniform(values), seen.is_step)
        for seen in alike:
            if seen.values is None or _transposed(values, seen.values, tolerance):
                return Counterpart(seen.operation, None)
        return None

    def reordered(self, values: Array, tolerance: float) -> Iterator[Array]:
        """Give what has the numbers of these values in another shape or order, as far as it is kept."""
        for seen in self._alike(values, tolerance):
            kept = seen.values
            if kept is None or same(values, kept, tolerance):
                continue
            if _near(np.sort(values, axis=None), np.sort(kept, axis=None), tolerance):
                yield kept

    def others(self, values: Array, taken: Container[int]) -> list[tuple[float, Array]]:
        """Return what has the shape of these values, as far as it is kept, and how far off it is.

        taken: the numbers of results that the file has, which are left out, and all that are as they.
        """
        if values.dtype.kind not in "fiub":
            return []
        known: set[tuple[float, ...]] = set()
        free: dict[tuple[float, ...], Array] = {}
        for seen in self._by_size.get(values.size, ()):
            moments = tuple(seen.moments)
            if seen.number in taken:
                known.add(moments)
            elif seen.values is not None and _is_like(seen.values, values):
                free.setdefault(moments, seen.values)
        own = values.astype(np.float64)
        size = largest(own) or 1.0
        return [
            (largest(distance(own, each.astype(np.float64))) / size, each)
            for moments, each in free.items()
            if moments not in known
        ]

    def _alike(self, values: Array, tolerance: float) -> list[_Seen]:
        """Return what may have the numbers of these values: as many, of the same sums."""
        if values.dtype.kind == "V":  # of ml_dtypes
            values = values.astype(np.float64)
        if values.dtype.kind not in "fiub":
            return []
        moments = _moments(values)
        # Sums of many numbers differ by more than these do; what is kept is compared number by number.
        scale = max(tolerance, 1e-12) * (moments[1] + np.finfo(np.float64).tiny)
        there = self._by_size.get(values.size, ())
        return [seen for seen in there if bool((np.abs(seen.moments - moments) <= scale).all())]


def _name(operation: Any) -> str:
    """Return the name of one of torch's own operations, without overload; "" for what is none."""
    schema = getattr(operation, "_schema", None)
    return "" if schema is None else str(schema.name.removeprefix("aten::"))


def _is_like(one: Array, other: Array) -> bool:
    """Tell whether two arrays have one shape, and both hold fractions or both none."""
    return one.shape == other.shape and (one.dtype.kind == "f") == (other.dtype.kind == "f")


class _Steps(Mode):
    """Take in what the steps of an operation give."""

    def __init__(self, counterparts: Counterparts, operation: str) -> None:
        super().__init__()
        self._counterparts, self._operation = counterparts, operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._counterparts._add(f"{self._operation}, {func}", leaf, is_step=True)
        return result


def _as_array(tensor: Tensor) -> Array:
    """Return a tensor as an array; of the dtypes that NumPy doesn't have (float8, bfloat16) in float64."""
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.double().numpy()


def _moments(values: Array) -> NDArray[np.float64]:
    """Return what identifies an array's numbers whatever their order."""
    flat = values.reshape(-1).astype(np.float64)
    flat = np.where(np.isfinite(flat), flat, 0.0)
    return np.array([flat.sum(), np.abs(flat).sum()])


def same(a: Array, b: Array, tolerance: float) -> bool:
    """Tell whether two arrays have one shape and the same numbers, to a share of the largest of them."""
    return a.shape == b.shape and _near(a, b, tolerance)


def _transposed(a: Array, b: Array, tolerance: float) -> bool:
    """Tell whether one of two arrays has the other's numbers in their order once its axes are in another."""
    if max(a.squeeze().ndim, b.squeeze().ndim) > _AXES:
        return _near(np.sort(a, axis=None), np.sort(b, axis=None), tolerance)
    return any(
        _near(flat, other.reshape(-1), tolerance) for one, other in ((a, b), (b, a)) for flat in _orders(one)
    )


def _orders(array: Array) -> Iterator[Array]:
    """Give an array's numbers in a row, for each order of its axes."""
    bare = array.squeeze()
    return (bare.transpose(axes).reshape(-1) for axes in itertools.permutations(range(bare.ndim)))


def _near(a: Array, b: Array, tolerance: float) -> bool:
    if a.dtype.kind in "iub" and b.dtype.kind in "iub":
        return bool(np.array_equal(a, b))
    x, y = a.astype(np.float64), b.astype(np.float64)
    return bool((distance(x, y) <= tolerance * _scale(x)).all())


def _scale(array: Array) -> Array | float:
    """Return what errors of elements are a share of: the largest, but for what a mask has put aside."""
    most = largest(array)
    size = np.abs(array)
    masked = size > (1 - _MASKED_ALIKE) * most
    others = largest(array[~masked])
    if int(masked.sum()) > 1 and others * _MASKED < most:
        return np.where(masked, most, others)
    return most
