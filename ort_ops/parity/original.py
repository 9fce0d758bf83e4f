"""A PyTorch model as it is, and in float64 with the casts in it lifted."""

import contextlib
import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._decomp import decomposition_table
from torch.autograd import Function
from torch.export import ExportedProgram
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ort_ops.errors import ParityError

from .fake_quantized import EXACT
from .folded import Constant, Folded
from .held import computed_tensors, put_back
from .joined import NORMS, Joined
from .modes import HigherOrderOperator, Mode, default_dtype, nothing_compiled
from .tensors import NARROW, to_numpy

__all__ = ["Arguments", "ExactModel", "Nudge", "as_arrays", "check_mode", "lifted", "own_dtype", "run_model"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Nudge = Callable[[Any, Arguments], Arguments]


def run_model(model: nn.Module, arguments: Arguments) -> list[Any]:
    """Run a model as it is; returns the leaves of what it returns."""
    positional, keywords = pytree.tree_map_only(Tensor, torch.clone, arguments)  # a model may write into them
    with _left_as_it_is(model) as apart:
        return apart(_leaves(model(*positional, **keywords)))


class ExactModel:
    """A model that computes in float64, whatever dtypes are written in it.

    Its parameters and buffers are copies. Where an operation has no float64 form it is computed in the dtype
    that it has one for, and noted in ``notes``. ``numbers`` has the Python numbers that it computed with,
    ``unordered`` operations that give elements in whatever order.

    constants: what its file holds besides its weights, by name: results of operations that depend on no
        input are taken from there where they are in it (see ``Folded``); ``taken`` has the names of those.
    """

    def __init__(
        self,
        model: nn.Module,
        constants: Mapping[str, Constant] | None = None,
    ) -> None:
        check_mode(model)
        try:  # a module that copies itself may give a new one, which is in training mode
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, of what captured programs are made of
                self._model = copy.deepcopy(model, computed_tensors(model)).double()
            if _has_modes(self._model):
                self._model.eval()
        except Exception as error:
            raise ParityError(f"the model can't be copied to be computed in float64: {error}") from error
        self.notes: dict[str, str] = {}
        self._own = dict(zip(_tensors(self._model, again=True), _tensors(model, again=True), strict=True))
        self.numbers: set[float] = set()
        self.unordered: list[str] = []
        self._constants = constants or {}
        self.taken: set[str] = set()

    def parameters(self) -> Iterator[Tensor]:
        """Give the copies of the model's parameters."""
        return self._model.parameters()

    def draws(self, arguments: Arguments) -> bool:
        """Tell whether the model computes something else each time it is called."""
        results = []
        for seed in (0, 1):
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed)
                results.append(self.run(arguments))
        return not all(
            torch.equal(a, b) or torch.allclose(a, b, equal_nan=True) if isinstance(a, Tensor) else a == b
            for a, b in zip(*results, strict=True)
        )

    def run(
        self,
        arguments: Arguments,
        seen: Callable[[Any, tuple[Any, ...], Sequence[Tensor]], None] | None = None,
        nudge: Nudge | None = None,
    ) -> list[Any]:
        """Compute in float64; returns the leaves of what the model returns.

        ``seen`` is called with each operation of torch, what it was given, and the tensors that it gave;
        ``nudge`` before each, and returns what it is given instead.
        """
        positional, keywords = pytree.tree_map_only(Tensor, lambda t: _wide(t.clone()), arguments)
        constants, own = self._constants, self._own
        dtype = own_dtype(list(own.values()), arguments)
        folded = Folded(constants, own, dtype, self.taken) if constants else None
        if folded is not None:
            folded.depend((positional, keywords))
        wide = _Wide(self.notes, self.numbers, seen, folded, self.unordered, nudge)
        with _left_as_it_is(self._model) as apart:
            with _all_in_float64(dtype, wide):
                returned = self._model(*positional, **keywords)
            return apart(_leaves(returned))


@functools.cache
def lifted(function: type[Function], dtype: torch.dtype) -> type[Function]:
    """Return a Function that computes what another does, with casts in it lifted where it is given float64.

    dtype: the model's. The same one each time, since what runs a node's call is kept for good.
    """
    own: Callable[..., Any] = function.apply

    def apply(*arguments: Any, **keywords: Any) -> Any:
        given = pytree.tree_leaves((arguments, keywords))
        if not any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in given):
            return own(*arguments, **keywords)
        with _all_in_float64(dtype, _Wide({}, set(), None, None)):
            return own(*arguments, **keywords)

    names = {"__module__": function.__module__, "__qualname__": function.__qualname__}
    return type(function.__name__, (function,), {**names, "apply": staticmethod(apply)})


@contextlib.contextmanager
def _all_in_float64(dtype: torch.dtype, wide: "_Wide") -> Iterator[None]:
    """Compute in float64 what is written for a dtype."""
    with (
        _answers(dtype),
        default_dtype(torch.float64),
        nothing_compiled(),
        sdpa_kernel(SDPBackend.MATH),  # attention in the steps that an exporter writes, not in one kernel
        _Told(dtype),
        wide,
    ):
        yield


def own_dtype(*trees: Any) -> torch.dtype:
    """Return the floating-point dtype that a model is written for: of what it holds, or else is given."""
    for tree in trees:
        leaves = pytree.tree_leaves(_tensors(tree) if isinstance(tree, nn.Module) else tree)
        found = [leaf.dtype for leaf in leaves if isinstance(leaf, Tensor)]
        narrow = next((dtype for dtype in found if dtype in NARROW), None)
        if narrow is not None or torch.float64 in found:
            return narrow or torch.float64
    return torch.float32


def check_mode(model: nn.Module) -> None:
    """Raise ParityError for a model in training mode, whose results are not those that are to be compared.

    Or for what is no model. The module of a captured program has no modes: it is what was captured.
    """
    if not isinstance(model, nn.Module):
        remedy = " (program.module())" if isinstance(model, ExportedProgram) else ""
        raise ParityError(f"model: got {type(model).__name__}; expected a torch.nn.Module{remedy}")
    if not _has_modes(model):
        return
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise ParityError(f"{training[0]} is in training mode; expected evaluation mode: call model.eval()")


def _has_modes(model: nn.Module) -> bool:
    """Tell whether a model can be put in evaluation mode: the module of a captured program can't."""
    return not (isinstance(model, torch.fx.GraphModule) and "eval" in vars(model))


@contextlib.contextmanager
def _left_as_it_is(model: nn.Module) -> Iterator[Callable[[list[Any]], list[Any]]]:
    """Run without gradients, and put what the model holds and random numbers back as they were."""
    check_mode(model)
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if used else ()
    with torch.random.fork_rng(devices=devices), torch.no_grad(), put_back(model) as apart:
        yield apart


def _tensors(model: nn.Module, *, again: bool = False) -> list[Tensor]:
    """Return what a model holds; ``again``: under each name, since a buffer of two is two in a copy."""
    once = not again
    named = *model.named_parameters(remove_duplicate=once), *model.named_buffers(remove_duplicate=once)
    return [tensor for _, tensor in named]


def _leaves(returned: Any) -> list[Any]:
    return [leaf for leaf in pytree.tree_leaves(returned) if leaf is not None]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.dtype in NARROW else tensor


@contextlib.contextmanager
def _answers(dtype: torch.dtype) -> Iterator[None]:
    """Have torch answer as for the model's dtype where it is asked for limits or for the dtype by default."""
    finfo, get_default_dtype, default = torch.finfo, torch.get_default_dtype, torch.get_default_dtype()

    def own_finfo(kind: torch.dtype | None = None) -> Any:
        return finfo(dtype if kind in (None, torch.float64) else kind)

    torch.finfo = own_finfo  # type: ignore[assignment,misc]
    torch.get_default_dtype = lambda: default
    try:
        yield
    finally:
        torch.finfo = finfo  # type: ignore[misc]
        torch.get_default_dtype = get_default_dtype


@functools.cache
def _epsilon_of_rms_norm(dtype: torch.dtype) -> float:
    """Return what ``rms_norm`` adds by itself: that of the dtype, or of float32, in which it computes.

    Torch says nowhere which, so that it is tried.
    """
    x = torch.full((1,), 2.0**-8, dtype=dtype)
    own = float(functional.rms_norm(x, (1,)))
    candidates = (torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    return min(candidates, key=lambda epsilon: abs(2.0**-8 / (2.0**-16 + epsilon) ** 0.5 - own))


class _Told(TorchFunctionMode):
    """Tell a model that asks, and functions that go by a dtype themselves, its own instead of float64."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._epsilon = _epsilon_of_rms_norm(dtype)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in (torch.rms_norm, functional.rms_norm):
            epsilon = args[3] if len(args) > 3 else given.get("eps")
            args, given["eps"] = args[:3], self._epsilon if epsilon is None else epsilon
        if func in (torch.nan_to_num, Tensor.nan_to_num):
            given = {**dict(zip(("nan", "posinf", "neginf"), args[1:], strict=False)), **given}
            args = args[:1]
            for name, limit in (
                ("posinf", torch.finfo(self._dtype).max),
                ("neginf", torch.finfo(self._dtype).min),
            ):
                given[name] = limit if given.get(name) is None else given[name]
        returned = func(*args, **given)
        return self._dtype if returned is torch.float64 else returned


# What PyTorch's newer exporter writes as its steps, of which it folds those that depend on no input.
_WRITTEN_OUT = (
    torch.ops.aten.upsample_linear1d.default,
    torch.ops.aten.affine_grid_generator.default,
    torch.ops.aten._euclidean_dist.default,  # of cdist
    torch.ops.aten.binary_cross_entropy_with_logits.default,
)


def _sorts(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether ``topk`` is asked for the largest elements in their order."""
    return bool(args[4] if len(args) > 4 else kwargs.get("sorted", True))


def _topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """Return the largest elements in their order, where any order will do, too."""
    return torch.ops.aten.topk.default(x, k, dim, largest, True)


_EXACT = {**EXACT, torch.ops.aten.topk.default: _topk}


class _Wide(Mode):
    """Compute each operation in float64."""

    def __init__(
        self,
        notes: dict[str, str],
        numbers: set[float],
        seen: Callable[[Any, tuple[Any, ...], Sequence[Tensor]], None] | None,
        folded: Folded | None,
        unordered: list[str] | None = None,
        nudge: Nudge | None = None,
    ) -> None:
        super().__init__()
        self._nudge = nudge
        self._notes, self._numbers, self._seen, self._folded = notes, numbers, seen, folded
        self._unordered = [] if unordered is None else unordered
        self._joined = None if folded is None else Joined(folded)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if isinstance(func, HigherOrderOperator):
            given = pytree.tree_map(self._widened, (args, dict(kwargs or {})))
            return self.inside(func, *given)
        with torch._C.DisableTorchFunction():  # which tells of dtypes what isn't so
            if self._folded is not None and func in _WRITTEN_OUT:
                with self:
                    return decomposition_table[func](*args, **(kwargs or {}))
            return self._compute(func, args, dict(kwargs or {}))

    def _compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        passed = (args, kwargs)
        if func is torch.ops.aten.topk.default and not _sorts(args, kwargs):
            self._unordered.append(str(func))
        given = pytree.tree_map(self._widened, passed)
        if self._nudge is not None:
            given = self._nudge(func, given)
        self._numbers.update(leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, float))
        try:
            result = _EXACT.get(func, func)(*given[0], **given[1])
        except (NotImplementedError, RuntimeError) as error:
            text = str(error)
            refused = "not implemented for" in text or "Double" in text or "double" in text
            if not refused and not isinstance(error, NotImplementedError):
                raise
            narrow = pytree.tree_map_only(Tensor, _narrow, given)
            result = func(*narrow[0], **narrow[1])
            self._notes.setdefault(str(func), str(error).partition("\n")[0])
        if "fake_quantize" in str(func) and func not in EXACT:  # it takes float64 and computes in float32
            self._notes.setdefault(str(func), "its kernel computes in float32")
        result = pytree.tree_map_only(Tensor, _wide, result)
        if self._folded is not None and self._joined is not None:
            result = self._folded.take(func, passed, result)
            self._joined.see(func, args, result)
            if func in NORMS:
                joined = self._joined.find(args)
                with self:
                    if joined is not None:
                        result = (joined(), *result[1:])
                    else:
                        self._joined.follow(args, result)
        if self._seen is not None:
            tensors = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
            self._seen(func, given, tensors)
        return result

    def _widened(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.dtype in NARROW:
            held = self._folded.read(leaf) if self._folded is not None else None
            return _wide(leaf) if held is None else held
        return torch.float64 if isinstance(leaf, torch.dtype) and leaf in NARROW else leaf


def _narrow(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def as_arrays(leaves: Sequence[Any]) -> list[NDArray[Any]]:
    """Return results as arrays; a Python number is a scalar."""
    return [to_numpy(leaf) if isinstance(leaf, Tensor) else np.asarray(leaf) for leaf in leaves]
