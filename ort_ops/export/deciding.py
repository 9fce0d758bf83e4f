"""What a captured program holds for, where code decided by a size: found by running it and forward.

A capture takes the way that one size leads (``if x.shape[0] % 2``), and notes what has to be true of sizes
for that. It makes such notes, too, where any other size would be an error of forward's own (a ``view``), and
where the other way leads to the same.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import sympy
import torch
from onnx import ModelProto, TensorProto
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from ort_ops.providers import CPU

from .agreeing import agree, unit_of
from .calls import to_array
from .running import run_on_samples, sample, widened

__all__ = ["decided_dims", "gives_another"]

_SIZES = range(2, 14)
_LARGEST = 4096  # of the sizes near the numbers in a condition
_COMBINATIONS = 400  # of sizes that a condition is looked at with, at most
_DOUBLINGS = 24  # of the example's sizes
_ELEMENTS = 2**22  # of a tensor that forward is run with, unless the example has more
_BREACHES = 3  # of a condition that forward is run with
_ROUNDINGS = 1024  # by which PyTorch and ONNX Runtime may differ over a whole forward
_ROUNDINGS_OF_16_BITS = 16
_INVALID = ("Type Error", "ShapeInferenceError")  # what ONNX Runtime says of types that don't fit together


class InvalidFileError(Exception):
    """What was written is no file that any runtime could take."""


def decided_dims(
    model: torch.nn.Module,
    written: ModelProto,
    given: Sequence[Any],
    examples: Sequence[Tensor],
    ranges: Mapping[Any, Any],
) -> set[tuple[int, int]]:
    """Return the inputs and axes by whose sizes code decided, so that what was written is wrong for others.

    written: the file, whose inputs are those of the model in their order, ``given`` the program's that was
    captured, with symbols for sizes, ``examples`` those that it was captured with, ``ranges`` what each
    symbol may be.
    """
    symbols = _symbols(given, examples)
    runs = functools.cache(functools.partial(_runs, written))
    found = set()
    for condition in (*_conditions(given), *_bounds(ranges)):
        names = sorted(condition.free_symbols & symbols.keys(), key=str)
        breaches = _breaches(condition, {name: symbols[name] for name in names})
        made = (_tensors(given, examples, {**symbols, **sizes}) for sizes in breaches)
        usable = (tensors for tensors in made if tensors is not None)
        if any(_differs(model, runs, tensors) for tensors in itertools.islice(usable, _BREACHES)):
            found |= _dims_of(given, names)
    return found


def _symbols(given: Sequence[Any], examples: Sequence[Tensor]) -> dict[Any, int]:
    """Return the symbols of sizes, with the sizes that they stood for."""
    return {
        size.node.expr: example.shape[axis]
        for value, example in zip(given, examples, strict=True)
        for axis, size in enumerate(value.shape)
        if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol
    }


def _dims_of(given: Sequence[Any], names: Sequence[Any]) -> set[tuple[int, int]]:
    return {
        (i, axis)
        for i, value in enumerate(given)
        for axis, size in enumerate(value.shape)
        if isinstance(size, torch.SymInt) and not size.node.expr.free_symbols.isdisjoint(names)
    }


def _conditions(given: Sequence[Any]) -> Iterator[Any]:
    """Give what has to be true of the sizes for the way that was taken."""
    environments = {id(value.fake_mode.shape_env): value.fake_mode.shape_env for value in given}
    for environment in filter(None, environments.values()):
        notes = (each.expr for some in environment.deferred_runtime_asserts.values() for each in some)
        yield from dict.fromkeys((*notes, *(guard.expr for guard in environment.guards)))


def _bounds(ranges: Mapping[Any, Any]) -> Iterator[Any]:
    """Give what has to be true of sizes by what they may be, beyond what any size may."""
    for symbol, known in ranges.items():
        if known.lower >= 2:
            yield sympy.Ge(symbol, known.lower)
        if known.upper < 2**31:
            yield sympy.Le(symbol, known.upper)


def _breaches(condition: Any, examples: Mapping[Any, int]) -> Iterator[Mapping[Any, int]]:
    """Give sizes for which a condition isn't true; ``examples`` are those that it was noted with."""
    for sizes in (*_combinations(condition, len(examples)), *_multiples(list(examples.values()))):
        exact = {name: sympy.Integer(size) for name, size in zip(examples, sizes, strict=True)}
        try:
            holds = condition.xreplace(exact) != sympy.false
        except ZeroDivisionError:
            holds = False
        if not holds:
            yield dict(zip(examples, sizes, strict=True))


def _combinations(condition: Any, count: int) -> Iterator[tuple[int, ...]]:
    """Give sizes for so many symbols: small ones, and those near the numbers in the condition."""
    numbers = [abs(int(number)) for number in condition.atoms(sympy.Integer)]
    near = {size for number in numbers for size in (number - 1, number, number + 1, 2 * number)}
    least = 1 if isinstance(condition, sympy.Ge) and condition.rhs == 2 else 2  # 1 is a constant to torch
    sizes = sorted({*_SIZES, *(size for size in near if least <= size <= _LARGEST)})
    if len(sizes) ** count <= _COMBINATIONS:
        yield from itertools.product(sizes, repeat=count)
        return
    generator = np.random.default_rng(0)
    for _ in range(_COMBINATIONS):
        yield tuple(generator.choice(sizes, count).tolist())


def _multiples(examples: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Give ever larger sizes, of all and of each: a condition may be on how many elements there are."""
    for factor in (2**power for power in range(1, _DOUBLINGS)):
        yield tuple(factor * size for size in examples)
        for i in range(len(examples)):
            yield tuple(factor * size if i == j else size for j, size in enumerate(examples))


def _tensors(
    given: Sequence[Any], examples: Sequence[Tensor], sizes: Mapping[Any, int]
) -> list[Tensor] | None:
    """Return random tensors of these sizes, None where what follows from them is no size, or too large."""
    exact = {name: sympy.Integer(size) for name, size in sizes.items()}
    tensors = []
    for value, example in zip(given, examples, strict=True):
        shape = [int(s.node.expr.xreplace(exact)) if isinstance(s, torch.SymInt) else s for s in value.shape]
        if min(shape, default=0) < 0 or math.prod(shape) > max(_ELEMENTS, example.numel()):
            return None
        tensors.append(sample(shape, example.dtype, example.device))
    return tensors


class _Runs(NamedTuple):
    """What runs a file, and how far off PyTorch's each result may be, as a share of its largest element."""

    run: Callable[[Sequence[Tensor]], Sequence[Any]]
    shares: Sequence[float]

    def agree(self, got: Sequence[Any], expected: Sequence[Tensor]) -> bool:
        """Tell whether results are PyTorch's."""
        each = zip(got, expected, self.shares, strict=True)
        return all(agree(one, to_array(two), share) for one, two, share in each)


def _runs(written: ModelProto) -> _Runs:
    """Return what runs a file: ONNX Runtime, or onnx where that has no kernels for a type (bfloat16)."""
    try:
        session = _session(written)
    except InvalidFileError:
        session = None
    return _runs_by(session or ReferenceEvaluator(written), written)


def _runs_by(ours: Any, written: ModelProto) -> _Runs:
    names = [value.name for value in written.graph.input]

    def run(tensors: Sequence[Tensor]) -> Sequence[Any]:
        results: Sequence[Any] = ours.run(None, dict(zip(names, map(to_array, tensors), strict=True)))
        return results

    return _Runs(run, _shares(written))


def _shares(written: ModelProto) -> list[float]:
    """Return how far off each output may be, as a share of its largest element.

    It may be of a wider type than what it is computed from.
    """
    graph = onnx.shape_inference.infer_shapes(written).graph
    own = {
        value.name: _share(value.type.tensor_type.elem_type) for value in (*graph.value_info, *graph.output)
    }
    known: dict[str, float] = {}
    for node in graph.node:  # in their order
        before = max((known.get(name, 0.0) for name in node.input), default=0.0)
        known.update({name: max(before, own.get(name, 0.0)) for name in node.output})
    return [known.get(value.name, 0.0) for value in graph.output]


def _share(element_type: int) -> float:
    """Return how far off results in a type may be; 0 for one that isn't rounded, or is of a byte."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element_type)
    except KeyError:  # of no tensor
        return 0.0
    if dtype.itemsize < 2:  # quantised, and then computed with in another
        return 0.0
    return unit_of(dtype) * (_ROUNDINGS if dtype.itemsize > 2 else _ROUNDINGS_OF_16_BITS)


def _session(written: ModelProto) -> Any:
    """Return ONNX Runtime's session of a file, None where it has no kernels, or takes no arrays of a type.

    Raises InvalidFileError for what is none.
    """
    if any(value.type.tensor_type.elem_type >= TensorProto.BFLOAT16 for value in written.graph.input):
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # sizes that are none of forward's may fail
    try:
        return onnxruntime.InferenceSession(written.SerializeToString(), options, providers=[CPU])
    except Exception as error:
        if any(each in str(error) for each in _INVALID):
            raise InvalidFileError(str(error).strip().partition("\n")[0][-200:]) from error
        return None


def gives_another(model: torch.nn.Module, written: ModelProto, examples: Sequence[Tensor]) -> str:
    """Say in what way what was written isn't forward for what it was captured with; nothing where it is.

    Of a forward that gives something else each time nothing is said, nor of types that ONNX Runtime has no
    kernels for on the CPU.
    """
    try:
        session = _session(written)
    except InvalidFileError as error:
        return f"is no valid file ({error})"
    if session is None:
        return ""
    runs = _runs_by(session, written)
    if not _differs(model, lambda: runs, examples):
        return ""
    with torch.no_grad():
        first, second = (run_on_samples(lambda given: model(*given), examples)[0] for _ in range(2))
    same = runs.agree([to_array(each) for each in first], second)
    return "gives something else than forward" if same else ""


def _differs(model: torch.nn.Module, runs: Callable[[], _Runs], tensors: Sequence[Tensor]) -> bool:
    """Tell whether what was written gives something else than forward, if that gives anything."""
    return any(_differs_on(model, runs, each) for each in (tensors, list(map(widened, tensors))))


def _differs_on(model: torch.nn.Module, runs: Callable[[], _Runs], tensors: Sequence[Tensor]) -> bool:
    try:
        with torch.no_grad():
            expected, used = run_on_samples(lambda given: model(*given), tensors)
    except Exception:  # no sizes for forward either
        return False
    ours = runs()
    try:
        got = ours.run(used)
    except Exception:
        return True
    return not ours.agree(got, expected)
