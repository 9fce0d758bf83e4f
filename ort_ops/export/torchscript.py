"""The TorchScript exporter: each ``symbolic`` marked, so that its nodes are found again, and typed.

That exporter calls ``symbolic`` by itself. Behind a node that it doesn't know it loses every shape, so it is
told here what forward gives.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import Function
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from ort_ops.errors import ExportError

from .arguments import Held
from .calls import Call, Dim, Slot, make_call
from .operator import CALL
from .own import OWN
from .symbolic import Whole, missing, run_symbolic

__all__ = ["Writing", "mark_symbolic"]

_DYNAMIC = 6  # stands for a size that may vary; 0 and 1 torch takes for constants
_OTHER_SIZES: Sequence[Callable[[int], int]] = (lambda size: 2, lambda size: 3 * size + 1)


class Writing:
    """The calls that were traced, matched in order with those that ``symbolic`` is run for.

    ``all_types`` asks for the types of all results, also of those to which ``symbolic`` gives a type.
    ``failed`` is why the first ``symbolic`` that failed did: the exporter, which would print its whole graph
    over it, goes on with results that no file must keep.
    """

    def __init__(
        self, seen: Sequence[Call], note: Callable[[Call, Whole | str], None], *, all_types: bool = False
    ) -> None:
        self.failed: ExportError | None = None
        self._all_types = all_types
        self._seen = seen
        self._waiting: list[Call] | None = None
        self._taken: list[tuple[Call, Call, Sequence[Any]]] = []
        self._note = note
        self._typed: dict[Any, list[Call]] = {}  # those whose types are known, by what they are given

    def write(self, function: type[Function], own: Callable[..., Any], g: Any, given: Any) -> Any:
        """Run ``symbolic`` for the next call of a Function that has these arguments."""
        asked, values, _ = make_call(function, own, given, _is_value)
        call = self._next(asked, values)
        constants = {
            i: value.node().t("value") for i, value in enumerate(values) if _is_constant(value.node())
        }
        try:
            found, whole = run_symbolic(call, g, values, [], constants)
        except ExportError as error:
            self.failed = self.failed or error
            found, whole = [None] * len(call.dtypes), str(error)
        outputs = [missing(g, call, i) if each is None else each for i, each in enumerate(found)]
        self._note(call, whole)
        unknown = [output for output in outputs if not _has_type(output)]
        if unknown or self._all_types:
            self._find_types(call, values)
            _set_types(call, outputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def refuse_mixed(self) -> None:
        """Raise ExportError where a call that the exporter dropped may have been taken for another.

        They are told by their order alone where an argument of both was changed between them.
        """
        for left in self._waiting or ():
            for call, asked, values in self._taken:
                same = left.function is call.function and left.structure == call.structure
                if same and _fits(left, asked, values) and _changed(left, call):
                    raise ExportError(
                        f"{call.name}: an argument was changed between a call whose results nothing reads "
                        "and another, which the TorchScript exporter (dynamo=False) doesn't tell apart; "
                        "expected an argument of its own for each, or dynamo=True"
                    )

    def _find_types(self, call: Call, values: Sequence[Any]) -> None:
        """Find out dtypes and sizes of a call's results, once for all calls of the same arguments."""
        given = (call.function, call.examples, call.autocast, *(_known_sizes(value) for value in values))
        alike = self._typed.setdefault(given, [])
        for other in alike:
            if other.structure == call.structure and _same_leaves(other, call) and not _changed(other, call):
                call.types = other.types
                return
        call.types = _types_by_forward(call, values)
        alike.append(call)

    def _next(self, asked: Call, values: Sequence[Any]) -> Call:
        """Take the next traced call that this one can be; those before it the exporter dropped."""
        if self._waiting is None:  # the model has been traced by now
            self._waiting = list(self._seen)
        for index, call in enumerate(self._waiting):
            same = call.function is asked.function and call.structure == asked.structure
            if same and _fits(call, asked, values):
                del self._waiting[index]
                self._taken.append((call, asked, values))
                return call
        raise ExportError(f"{asked.name}: the exporter writes a call that was not traced")


def _changed(one: Call, other: Call) -> bool:
    """Tell whether an argument of both was changed between two calls."""
    pairs = zip(one.leaves, other.leaves, strict=True)
    return any(isinstance(a, Held) and isinstance(b, Held) and not a.same(b) for a, b in pairs)


def _fits(call: Call, asked: Call, values: Sequence[Any]) -> bool:
    """Tell whether a traced call can be the one that is asked for: same constants, known sizes and types."""
    if not _same_leaves(call, asked):
        return False
    for value, (shape, dtype, _) in zip(values, call.examples, strict=True):
        if _known_dtype(value) not in (None, dtype):
            return False
        known = _known_sizes(value)
        if known is not None and not (
            len(known) == len(shape) and all(k in (None, s) for k, s in zip(known, shape, strict=True))
        ):
            return False
    return True


def _known_dtype(value: Any) -> torch.dtype | None:
    """Return the element type that the exporter knows of a value, None where it knows none."""
    kind = value.type()
    known: torch.dtype | None = kind.dtype() if isinstance(kind, torch._C.TensorType) else None
    return known


def _known_sizes(value: Any) -> tuple[int | None, ...] | None:
    """Return the sizes that the exporter knows of a value, None where it knows no rank."""
    kind = value.type()
    known = kind.varyingSizes() if isinstance(kind, torch._C.TensorType) else None
    return None if known is None else tuple(known)


def _same_leaves(one: Call, other: Call) -> bool:
    return all(_same_leaf(*pair) for pair in zip(one.leaves, other.leaves, strict=True))


def _same_leaf(mine: Any, other: Any) -> bool:
    if isinstance(mine, Held) and isinstance(other, Held):
        return mine.value is other.value or _same_leaf(mine.value, other.value)
    if isinstance(mine, Slot) or isinstance(other, Slot):
        return bool(mine == other)
    if mine is other:
        return True
    try:
        same = mine == other or (mine != mine and other != other)  # NaN
        return bool(type(mine) is type(other) and same)
    except (TypeError, ValueError):  # a NumPy array: what the exporter hands on is the array itself
        return False


def mark_symbolic(
    function: type[Function], own: Callable[..., Any], writing: Callable[[], Writing | None]
) -> "staticmethod[..., Any]":
    """Return what stands in the place of a Function's ``symbolic`` while its nodes are marked."""

    @functools.wraps(own)
    def symbolic(g: Any, *arguments: Any, **keywords: Any) -> Any:
        current = writing()
        if current is None:
            return own(g, *arguments, **keywords)
        return current.write(function, own, g, (arguments, keywords))

    setattr(symbolic, OWN, own)
    return staticmethod(symbolic)


def _is_value(leaf: Any) -> bool:
    return isinstance(leaf, torch._C.Value)


def _is_constant(node: Any) -> bool:
    return bool(node.kind() == "onnx::Constant" and node.kindOf("value") == "t")


def _types_by_forward(
    call: Call, values: Sequence[Any]
) -> Sequence[tuple[torch.dtype, Sequence[int | Dim | None]]]:
    """Return dtype and sizes of each result that forward gives; nothing where that can't be found out."""
    try:
        fakes, results, decided = _fake_results(call, values, lambda size: size)
    except Exception:
        # The shape of a result is a service to what comes after it; the file is right without.
        return ()
    dims: dict[Any, Dim] = {}
    for index, fake in enumerate(fakes):
        for axis, size in enumerate(fake.shape):
            if isinstance(size, torch.SymInt):
                dims.setdefault(size.node.expr, Dim(index, axis))
    shapes: list[list[int | Dim | None]] = [
        [s if isinstance(s, int) else dims.get(s.node.expr) for s in r.shape] for r in results
    ]
    for other in _OTHER_SIZES if decided else ():  # by the example's: x[:, :4] has 4 columns of 6, and 2 of 2
        with contextlib.suppress(Exception):
            for shape, result in zip(shapes, _fake_results(call, values, other)[1], strict=True):
                shape[:] = [
                    None if isinstance(s, int) and s != o else s
                    for s, o in zip(shape, result.shape, strict=True)
                ]
    return [(result.dtype, shape) for result, shape in zip(results, shapes, strict=True)]


def _set_types(call: Call, outputs: Sequence[Any]) -> None:
    """Give the results the dtypes and shapes that forward gives, where ``symbolic`` didn't say."""
    if not call.types:
        return
    for output, (dtype, sizes) in zip(outputs, call.types, strict=True):
        if not _has_type(output):
            known = [size if isinstance(size, int) else None for size in sizes]
            output.setType(torch._C.TensorType.get().with_dtype(dtype).with_sizes(known))


def _has_type(value: Any) -> bool:
    return value.type().varyingSizes() is not None


def _fake_results(
    call: Call, values: Sequence[Any], free_size: Callable[[int], int]
) -> tuple[list[Tensor], list[Tensor], bool]:
    """Return fake tensors for the arguments, what forward gives for them, and whether a size decided there.

    free_size: returns the size of a dimension that may have any, given the example's.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv())
    fakes: list[Tensor] = []
    free: list[list[DimDynamic]] = []
    for index, (value, (shape, dtype, device)) in enumerate(zip(values, call.examples, strict=True)):
        known = _known_sizes(value) or [None] * len(shape)
        sizes = [
            k if k is not None else free_size(_DYNAMIC if s in (0, 1) else s)
            for k, s in zip(known, shape, strict=True)
        ]
        free.append([DimDynamic.DYNAMIC if k is None else DimDynamic.STATIC for k in known])
        fakes.append(
            mode.from_tensor(
                torch.empty(sizes, dtype=dtype, device=device),
                source=torch._dynamo.source.ConstantSource(f"tensor_{index}"),
                symbolic_context=StatelessSymbolicContext(dynamic_sizes=free[-1]),
            )
        )
    # As in the newer exporter: x[:, :4] is min(4, n) of any example. And what else is C++ asks for sizes.
    oblivious = torch.fx.experimental._config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with oblivious, mode, torch.no_grad(), enable_python_dispatcher():
        results: list[Tensor] = CALL(fakes, [], call.key)
    if any(_is_fixed(*each) for each in zip(fakes, free, strict=True)):
        raise ExportError(
            f"{call.name}: forward asks for a size that may vary; its results hold for one only"
        )
    return fakes, results, bool(mode.shape_env is not None and mode.shape_env.guards)


def _is_fixed(fake: Tensor, dims: Sequence[DimDynamic]) -> bool:
    """Tell whether code that ran asked for the number that a free size is (``int(x.shape[0])``)."""
    return any(
        dim is DimDynamic.DYNAMIC and (isinstance(size, int) or size.node.expr.is_number)
        for size, dim in zip(fake.shape, dims, strict=True)
    )
