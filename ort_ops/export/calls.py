"""A call of an ``autograd.Function`` as data: the class, the arguments, and how to compute it again."""

import contextlib
import contextvars
import functools
import itertools
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils import _pytree as pytree

from ort_ops.dtypes import DTYPES, from_onnx
from ort_ops.errors import ExportError

from .arguments import Held, as_they_were, held
from .gradients import asks_for_gradients, differentiable
from .own import Context, own_method, running_own, takes_context
from .probing import probe
from .running import (
    apart,
    as_outside_of_operators,
    autocast_state,
    fresh_symbols_dropped,
    under_autocast,
    untraced,
    versions,
    written_since,
)
from .sizes import AskedForSizeError, fixed_since, free_sizes, sizes_left_free

__all__ = [
    "ELEMENT_TYPES",
    "Call",
    "Dim",
    "Size",
    "Slot",
    "find_call",
    "forwards_tried_out",
    "make_call",
    "next_number",
    "to_array",
]


ELEMENT_TYPES = {getattr(torch, d.torch): d.onnx for d in DTYPES if d.torch and hasattr(torch, d.torch)}
"""ONNX's number of each of torch's dtypes."""

_count = itertools.count()
_PROCESS = os.urandom(8).hex()  # of a program that another one saved no call is taken for one of this


def to_array(tensor: Tensor) -> Any:
    """Return a tensor of one of these dtypes as a NumPy array, of ml_dtypes' types where NumPy has none."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return np.frombuffer(raw.numpy().tobytes(), from_onnx(ELEMENT_TYPES[tensor.dtype]).numpy).reshape(
        tensor.shape
    )


def next_number() -> int:
    """Return a number that no call has."""
    return next(_count)


@dataclass(frozen=True)
class Slot:
    """The place of a tensor among a call's arguments or results: the index among its tensors."""

    index: int


@dataclass(frozen=True)
class Size:
    """The place of an integer that depends on the shapes of the inputs: its index among those."""

    index: int


@dataclass(frozen=True)
class Dim:
    """A size of a result that is one of a tensor's: the index of the tensor, and the axis."""

    tensor: int
    axis: int


@dataclass(eq=False)
class Call:
    """One call of a Function: its class, and its arguments with the tensors taken out.

    ``leaves`` are the arguments as a pytree has them, tensors replaced by Slot, symbolic integers by Size,
    and what may be changed after the call by Held; ``forward`` is the Function's own, ``fake`` what the
    caller gave to compute shapes with. ``results`` are the leaves and the structure of what forward returned,
    known once it ran.
    """

    function: type[Function]
    forward: Callable[..., Any]
    leaves: tuple[Any, ...]
    structure: pytree.TreeSpec
    fake: Callable[..., Any] | None = None
    key: str = field(default_factory=lambda: f"call{_PROCESS}_{next_number()}")
    results: tuple[tuple[Any, ...], pytree.TreeSpec] | None = None
    dtypes: tuple[torch.dtype, ...] = ()
    """Those of the results, in order."""
    written: Mapping[int, int] = field(default_factory=dict)
    """For each tensor that forward writes into, the index of the result that is this tensor."""
    examples: tuple[tuple[tuple[Any, ...], torch.dtype, torch.device], ...] = ()
    """Shape, dtype and device that each tensor had when the call was made."""
    types: Sequence[tuple[torch.dtype, Sequence[int | Dim | None]]] = ()
    """Dtype and sizes (None: any) of each result, where the exporter didn't find them out by itself."""
    found: list[list[Tensor]] = field(default_factory=list, repr=False)
    """Fake results that were found by trying forward out, for as long as the export takes: torch 2.9 loses
    what Python knows of a fake tensor that nothing in Python holds."""
    fixed: dict[tuple[int, int], int] = field(default_factory=dict)
    """Sizes, by tensor and axis, that may vary in the model and that forward left one number only."""
    autocast: tuple[tuple[str, bool, torch.dtype], ...] = ()
    differentiable: tuple[bool, ...] = ()
    """For each tensor whether it requires a gradient, as a parameter does: a forward may go by that."""

    def __deepcopy__(self, memo: object) -> "Call":
        return self  # graphs that name it are copied; the call stays one

    @property
    def name(self) -> str:
        """Return the Function's module and name."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def number(self) -> int:
        """Return the key as a number."""
        return int(self.key.rpartition("_")[2])

    @functools.cached_property
    def goes_by_gradients(self) -> bool:
        """Tell whether forward's code reads what requires a gradient."""
        return asks_for_gradients(self.forward)

    @property
    def takes_context(self) -> bool:
        """Tell whether forward is of the form ``forward(ctx, ...)``."""
        return takes_context(self.function)

    def arguments(
        self, tensors: Sequence[Any], sizes: Sequence[Any] = ()
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments with these in the places of Slot and Size."""
        leaves = [_fill(leaf, tensors, sizes) for leaf in self.leaves]
        positional, keywords = pytree.tree_unflatten(leaves, self.structure)
        return positional, keywords

    def rebuild(self, results: Sequence[Any]) -> Any:
        """Return what forward returned, with these tensors in it."""
        assert self.results is not None
        leaves, structure = self.results
        return pytree.tree_unflatten([_fill(leaf, results, ()) for leaf in leaves], structure)

    def run(self, tensors: Sequence[Tensor], sizes: Sequence[Any]) -> list[Tensor]:
        """Compute with the Function's own forward; returns the tensors among its results.

        It gets copies of the tensors, since an operator of torch must not write into what it is given, though
        a Function may.
        """
        return self._run([tensor.clone() for tensor in tensors], sizes)

    def _run(self, tensors: Sequence[Tensor], sizes: Sequence[Any]) -> list[Tensor]:
        context = Context()
        before = versions(tensors)
        with as_outside_of_operators():
            returned = self._returned(self.forward, tensors, sizes, context)
        written = (*context.dirty, *written_since(before, tensors))
        return apart(self.note(returned, tensors, written), tensors)

    def _returned(
        self,
        forward: Callable[..., Any],
        tensors: Sequence[Tensor],
        sizes: Sequence[Any],
        context: "Context | None" = None,
    ) -> Any:
        positional, keywords = self.arguments(tensors, sizes)
        if context is not None:
            requiring = {id(t) for t, flag in zip(tensors, self.differentiable, strict=False) if flag}
            context.needs_input_grad = tuple(id(argument) in requiring for argument in positional)
        given = (context, *positional) if context is not None and self.takes_context else positional
        with (
            self._requiring(tensors),
            torch.no_grad(),
            under_autocast(self.autocast),
            running_own(),
            as_they_were(self.leaves),
        ):
            returned = forward(*given, **keywords)
            same = {id(tensor) for tensor in tensors} & {id(leaf) for leaf in pytree.tree_leaves(returned)}
            if same and context is not None and not self.takes_context:  # there it may be marked dirty
                own_method(self.function, "setup_context")(context, positional, returned)
            return returned

    def compute(self, tensors: Sequence[Tensor]) -> Any:
        """Return what forward returns for these tensors, which it may write into and return."""
        return self._returned(self.forward, tensors, (), Context())

    @contextlib.contextmanager
    def _requiring(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Have tensors require a gradient where the call's own do, for a forward whose code asks for that."""
        with contextlib.ExitStack() as undo:
            if self.goes_by_gradients:
                for tensor, flag in zip(tensors, self.differentiable, strict=False):
                    if flag and not tensor.requires_grad:
                        tensor.requires_grad_()
                        undo.callback(tensor.requires_grad_, False)
            yield

    def element_type(self, index: int | None) -> int:
        """Return ONNX's number of a tensor's element type; int64 where it is none of the call's tensors."""
        return ELEMENT_TYPES[torch.int64 if index is None else self.examples[index][1]]

    def note(self, returned: Any, tensors: Sequence[Tensor], dirty: Sequence[Tensor]) -> list[Tensor]:
        """Note what forward returned for these tensors, of which it wrote into the dirty ones.

        Returns the tensors among the results. Raises ExportError for what an operator of ONNX can't do.
        """
        leaves, structure = pytree.tree_flatten(returned)
        results = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._check_dtypes((*tensors, *results))
        slots = iter(range(len(results)))
        places = tuple(Slot(next(slots)) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        first = {id(result): index for index, result in reversed(list(enumerate(results)))}
        written = [i for i, tensor in enumerate(tensors) if any(tensor is other for other in dirty)]
        lost = [i for i in written if id(tensors[i]) not in first]
        if lost:
            raise ExportError(
                f"{self.name}: forward writes into its tensor {lost[0]} and does not return it; "
                "expected it to return what it writes into (ctx.mark_dirty), or to work on a copy"
            )
        self.written = {i: first[id(tensors[i])] for i in written}
        self.results = (places, structure)
        self.dtypes = tuple(result.dtype for result in results)
        return results

    def _check_dtypes(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            if tensor.dtype not in ELEMENT_TYPES:
                remedy = " (torch.view_as_real)" if tensor.is_complex() else ""
                raise ExportError(
                    f"{self.name}: forward takes or returns {tensor.dtype}, which no custom node can; "
                    f"expected tensors of another type{remedy}"
                )

    def run_fake(self, tensors: Sequence[Tensor], sizes: Sequence[Any]) -> list[Tensor]:
        """Compute dtypes and shapes only: by forward on fake tensors, by ``fake``, or by trying it out."""
        if not self.examples:  # Dynamo saw the call, and no tensors
            self.examples = _examples(tensors)
            self.differentiable = differentiable(tensors)
        if self.fake is not None:
            return apart(self.note(self._returned(self.fake, tensors, sizes), tensors, ()), tensors)
        free = free_sizes(tensors)
        try:
            if _tried_out.get():
                raise AskedForSizeError("what forward does with sizes is more than torch can solve")
            with fresh_symbols_dropped(tensors) as results, sizes_left_free(tensors):
                results += self._run(tensors, sizes)  # fake tensors hold nothing to write into
            self.fixed |= fixed_since(free)
            return results
        except ExportError:
            raise
        except Exception as error:  # it is C++ or NumPy, or asks for values or for what a size is
            reason = error
        try:
            self.found.append(probe(self, self.name, tensors, sizes, reason))
            return self.found[-1]
        except ExportError:
            if not isinstance(reason, AskedForSizeError):
                raise
        results = self._run(tensors, sizes)  # at other sizes it fails
        self.fixed |= fixed_since(free)
        return results


_tried_out = contextvars.ContextVar("forwards_tried_out", default=False)


@contextlib.contextmanager
def forwards_tried_out() -> Iterator[None]:
    """Have shapes of results found by running forwards at several sizes, which notes nothing of sizes."""
    token = _tried_out.set(True)
    try:
        yield
    finally:
        _tried_out.reset(token)


_calls: "weakref.WeakValueDictionary[str, Call]" = weakref.WeakValueDictionary()


def make_call(
    function: type[Function],
    forward: Callable[..., Any],
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]],
    is_tensor: Callable[[Any], bool],
    fake: Callable[..., Any] | None = None,
) -> tuple[Call, list[Any], list[Any]]:
    """Take the tensors and the symbolic integers out of a call's arguments; returns all three."""
    leaves, structure = pytree.tree_flatten((tuple(arguments[0]), dict(arguments[1])))
    tensors: list[Any] = []
    sizes: list[Any] = []
    places: list[Any] = []
    for leaf in leaves:
        if is_tensor(leaf):
            places.append(Slot(len(tensors)))
            tensors.append(leaf)
        elif isinstance(leaf, torch.SymInt):
            places.append(Size(len(sizes)))
            sizes.append(leaf)
        elif isinstance(leaf, torch.SymFloat | torch.SymBool):
            raise ExportError(
                f"{function.__qualname__}: an argument is a {type(leaf).__name__[3:].lower()} that depends "
                "on the shapes of the inputs; expected a tensor, an integer, or a constant"
            )
        else:
            places.append(held(leaf))
    call = Call(
        function,
        forward,
        tuple(places),
        structure,
        fake,
        examples=_examples(tensors),
        autocast=autocast_state(),
        differentiable=differentiable(tensors),
    )
    _calls[call.key] = call
    return call, tensors, sizes


def find_call(key: str) -> Call:
    """Return the call that an operator in a captured program names."""
    try:
        return _calls[key]
    except KeyError:
        raise ExportError(
            f"{key}: the call was captured by an export that is gone, or by another program; expected what "
            "torch.export.export returned here: a file of it (torch.export.save) has no Functions in it"
        ) from None


def _fill(leaf: Any, tensors: Sequence[Any], sizes: Sequence[Any]) -> Any:
    if isinstance(leaf, Slot):
        return tensors[leaf.index]
    if isinstance(leaf, Held):
        return leaf.argument
    return sizes[leaf.index] if isinstance(leaf, Size) else leaf


def _examples(tensors: Sequence[Any]) -> tuple[tuple[tuple[Any, ...], torch.dtype, torch.device], ...]:
    with untraced():  # under which sizes are tensors
        return tuple((tuple(t.shape), t.dtype, t.device) for t in tensors if isinstance(t, Tensor))
