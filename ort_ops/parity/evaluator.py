"""onnx's reference evaluator made to compute in float64.

Element types, constants and casts of floating-point numbers become float64, in graphs inside of nodes and in
the bodies of functions too; 8-bit floats are quantised values, and stay.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpFunction, OpFunctionContextDependant, OpRun, RuntimeContextError
from onnx.reference.ops import load_op

from .by_torch import BY_TORCH
from .constants import NOTHING_KNOWN, Known, meant_all
from .contrib import CONTRIB
from .mended import FLATTENING, MENDED, cropping, flattening
from .recurrent import RECURRENT

__all__ = [
    "DRAWN_BY",
    "FEW",
    "WideEvaluator",
    "drawing",
    "inside",
    "is_narrow",
    "is_simple",
    "never_run",
    "read_constant",
    "reseed",
    "widened",
]

_NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Attributes that name an element type for floating-point results.
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "output_datatype", "softmax_precision"})
# Operators that onnx implements from an opset on only, which does all that earlier ones do.
_SINCE = {"DequantizeLinear": 19}
_RANDOM = frozenset(
    "Bernoulli Dropout RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()  # noqa: SIM905
)
"""Operators whose results are another each time, where the file gives them no seed; Dropout's in training."""
DRAWN_BY = "_ort_ops_drawn_by"
"""Where a custom node has its seed: ``seed`` may be an attribute of its own."""
FEW = 4
"""Elements of a constant that are read as what was meant by them, at most."""


def is_narrow(array: Any) -> bool:
    """Tell whether an array holds floating-point numbers in fewer bits than float64, and not quantised."""
    return isinstance(array, np.ndarray | np.generic) and array.dtype.name in (
        "float32",
        "float16",
        "bfloat16",
    )


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in float64 if it is narrow, exactly."""
    return array.astype(np.float64) if is_narrow(array) else array


def _read(value: Any) -> Any:
    """Return a constant in float64: what was meant by it where that is known."""
    if isinstance(value, np.float32):
        return read_constant(np.asarray(value)).item()
    if isinstance(value, list) and value and isinstance(value[0], np.float32):
        return read_constant(np.asarray(value)).tolist()
    return read_constant(value) if isinstance(value, np.ndarray) else value


def is_simple(array: NDArray[Any], known: Known = NOTHING_KNOWN) -> bool:
    """Tell whether it is known what was meant by a constant: few simple numbers, or whole ones."""
    if array.size <= FEW:
        return meant_all(array, known) is not None
    wide = widened(array)
    return bool((wide == np.round(wide)).all())


def read_constant(array: NDArray[Any], known: Known = NOTHING_KNOWN) -> NDArray[Any]:
    """Return a constant in float64: what was meant by it where that is known."""
    read = meant_all(array, known) if is_narrow(array) and array.size <= FEW else None
    return widened(array) if read is None else read


class _OwnFunction(OpFunction):
    """A function of the file; the schema of an operator of ONNX's with its name isn't its."""

    op_schema = None

    def _run_impl(self, impl: Any, *inputs: Any, **kwargs: Any) -> Any:
        left_out = [None] * (len(impl.input_names) - len(inputs))  # optional ones at the end
        return super()._run_impl(impl, *inputs, *left_out, **kwargs)  # type: ignore[no-untyped-call]


def _overloads_apart(proto: Any) -> Any:
    """Return a model whose functions have their overloads in their names, by which alone onnx keeps them."""
    if not isinstance(proto, ModelProto) or not any(function.overload for function in proto.functions):
        return proto
    apart = ModelProto()
    apart.CopyFrom(proto)
    for function in apart.functions:
        function.name = _with_overload(function.name, function.overload)
    return apart


def _with_overload(name: str, overload: str) -> str:
    return f"{name}:{overload}" if overload else name


class WideEvaluator(ReferenceEvaluator):
    """The reference evaluator in float64.

    ``new_ops`` are implementations of operators, as ``ReferenceEvaluator`` takes them.
    """

    def __init__(self, proto: Any, new_ops: Sequence[type] | None = None, **options: Any) -> None:
        ops = [*(new_ops or ()), *BY_TORCH, *RECURRENT, *MENDED, *CONTRIB]
        super().__init__(_overloads_apart(proto), new_ops=ops, **options)

    ran = False
    """Whether it was run at all: a branch or a loop's body may never be."""

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate, as the reference evaluator does."""
        self.ran = True
        return super().run(*arguments, **options)

    def _load_impl(self, node: Any, input_types: Any = None) -> Any:
        own = self.functions_.get((node.domain, _with_overload(node.op_type, node.overload)))
        if own is not None and node.domain and (node.domain, node.op_type) not in self.new_ops_:
            return functools.partial(_OwnFunction, impl=own)
        try:
            found = super()._load_impl(node, input_types)
        except RuntimeContextError:
            # Its body depends on types that no graph without weights says: it is made when inputs are there.
            return functools.partial(OpFunctionContextDependant, parent=self)
        except NotImplementedError as error:
            reason = str(error).partition(", known functions")[0]

            def _run(self: Any, *inputs: Any, **attributes: Any) -> Any:
                raise NotImplementedError(reason)

            return type(node.op_type, (OpRun,), {"op_domain": node.domain, "op_schema": None, "_run": _run})
        except RuntimeError:
            if node.op_type not in _SINCE:
                raise
            return load_op(node.domain, node.op_type, _SINCE[node.op_type])
        if node.domain == "" and node.op_type == "Pad" and self.opsets[""] >= 11:
            return cropping(found)
        old = node.domain == "" and self.opsets[""] < 13
        return flattening(found) if old and node.op_type in FLATTENING else found

    def _init(self) -> None:
        super()._init()
        self.rt_inits_ = {name: _read(array) for name, array in self.rt_inits_.items()}
        for operator in self.rt_nodes_:
            _widen(operator)
            _seed(operator)


def _widen(operator: Any) -> None:
    """Make one node compute in float64."""
    for name, value in vars(operator).items():
        if name in _TYPE_ATTRIBUTES and value in _NARROW:
            setattr(operator, name, int(TensorProto.DOUBLE))
        else:
            setattr(operator, name, _read(value))
    kind = operator.onnx_node.op_type
    if kind == "Constant" and getattr(operator, "cst_name", "") in ("value_float", "value_floats"):
        operator.cst_convert = lambda value: np.asarray(value, np.float64)
    if kind == "TopK" and hasattr(operator, "sorted"):
        operator.sorted = 1  # where any order will do, too
    if kind == "ConstantOfShape" and operator.value is None:
        operator.value = np.zeros(1)


def _seed(operator: Any) -> None:
    """Give a node that draws without a seed one, by which it draws the same each time, and mark it."""
    if _draws(operator.onnx_node) and getattr(operator, "seed", None) is None:
        operator.seed, operator.unseeded = 0, True


def reseed(operator: Any, seed: int) -> None:
    """Have what draws without a seed of its own draw by another."""
    setattr(operator, DRAWN_BY if hasattr(operator, DRAWN_BY) else "seed", seed)


def drawing(operator: Any) -> list[Any]:
    """Return what draws without a seed of its own: a node, or those inside of it.

    Of a custom node it is known once it was computed.
    """
    within = [each for body in inside(operator) for node in body.rt_nodes_ for each in drawing(node)]
    return [*within, operator] if getattr(operator, "unseeded", False) else within


def inside(operator: Any) -> list[WideEvaluator]:
    """Return the evaluators of the graphs inside of a node, or of the body of its function."""
    return list(_parts(operator).values())


def _parts(operator: Any) -> dict[str, WideEvaluator]:
    """Return the same by the names of a node's attributes."""
    parts = {name: each for name, each in vars(operator).items() if isinstance(each, WideEvaluator)}
    parts.pop("parent", None)  # which the node is part of
    return parts


def never_run(operator: Any) -> Iterator[str]:
    """Give the names of the graphs inside of a node that were not run, as ``"then_branch"``."""
    for name, each in _parts(operator).items():
        if not each.ran:
            yield name
            continue
        for node in each.rt_nodes_:
            yield from (f"{inner} of {node.onnx_node.name}" for inner in never_run(node))


def _draws(node: NodeProto) -> bool:
    training = node.op_type != "Dropout" or len(node.input) > 2
    return node.domain == "" and node.op_type in _RANDOM and training
