"""The tensors that a model computes on its way, found again among those of its file by what is in them.

Names match nothing in a TorchScript file. Two tensors are the same if they hold the same numbers, in whatever
shape or order of the axes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils import _pytree as pytree

from .compare import distance, largest
from .modes import Mode

__all__ = ["Counterparts"]

Array = NDArray[Any]

# What the exporters write as several nodes, and torch computes as one operation: its steps are looked at,
# too. None that adds a bias at its end: without that the result would look like a step on the way to it.
_COMPOSED = (
    *("gelu", "silu", "_softmax", "_log_softmax", "hardswish", "hardsigmoid", "mish", "elu", "softplus"),
    *("logsumexp", "std", "var", "log1p", "expm1", "leaky_relu", "norm", "linalg_vector_norm", "rsub"),
)


class _Seen:
    """A result of an operation: its values, or no more than their moments."""

    def __init__(self, operation: str, values: Array, *, keep: bool) -> None:
        self.operation = operation
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

    def see(self, operation: Any, arguments: tuple[Any, ...], results: Sequence[Tensor]) -> None:
        """Take in what an operation gave, and the steps of it where an exporter writes these."""
        for tensor in results:
            self._add(str(operation), tensor)
        name = getattr(operation, "_schema", None)
        if name is None or name.name.removeprefix("aten::") not in _COMPOSED:
            return
        steps = decomposition_table.get(operation)
        if steps is None:
            return
        with torch.no_grad(), _Steps(self, str(operation)):
            steps(*arguments[0], **arguments[1])

    def _add(self, operation: str, tensor: Tensor) -> None:
        if tensor.is_complex() or tensor.is_sparse or tensor.is_quantized:
            return
        values = _as_array(tensor.detach().cpu())
        keep = tensor.is_cpu and tensor.untyped_storage().data_ptr() in self._weights
        if not keep and values.nbytes <= self._left:
            values, keep = values.copy(), True
            self._left -= values.nbytes
        self._by_size.setdefault(values.size, []).append(_Seen(operation, values, keep=keep))

    def find(self, values: Array, tolerance: float) -> str | None:
        """Return the operation that gave these values, to a share of the largest of them, or None."""
        if values.dtype.kind == "V":  # of ml_dtypes
            values = values.astype(np.float64)
        if values.dtype.kind not in "fiub":
            return None
        moments = _moments(values)
        # Sums of many numbers differ by more than these do; what is kept is compared number by number.
        scale = max(tolerance, 1e-12) * (moments[1] + np.finfo(np.float64).tiny)
        for seen in self._by_size.get(values.size, ()):
            near = np.abs(seen.moments[:2] - moments[:2]) <= scale
            if bool(near.all()) and (seen.values is None or _same(values, seen.values, tolerance)):
                return seen.operation
        return None


class _Steps(Mode):
    """Take in what the steps of an operation give."""

    supports_higher_order_operators = True

    def __init__(self, counterparts: Counterparts, operation: str) -> None:
        super().__init__()
        self._counterparts, self._operation = counterparts, operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._counterparts._add(f"{self._operation}, {func}", leaf)
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


def _same(a: Array, b: Array, tolerance: float) -> bool:
    if a.shape != b.shape or not _near(a, b, tolerance):
        return _near(np.sort(a, axis=None), np.sort(b, axis=None), tolerance)
    return True


def _near(a: Array, b: Array, tolerance: float) -> bool:
    if a.dtype.kind in "iub" and b.dtype.kind in "iub":
        return bool(np.array_equal(a, b))
    x, y = a.astype(np.float64), b.astype(np.float64)
    return bool((distance(x, y) <= tolerance * largest(x)).all())
