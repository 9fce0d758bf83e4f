"""How far one node's result may be off in some arithmetic, its inputs taken as exact.

As a fourth of the bound, since ``rounding`` takes four times what it sees. Sums of K terms: K·u times the
sum of their absolute values is certain (Higham, section 4.2); of many terms, see ``sums``. Sums of
products, which kernels add up in blocks: 4·√K·u instead, which random rounding errors hardly ever exceed
(Higham and Mary, SIAM J. Sci. Comput. 41, 2019), and measured kernels stay below by a factor of four and
more. Functions: 16 units in the last place, and 4·u besides where they are computed from approximations.
Custom operators: see ``_custom``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import defs

from .compare import largest
from .step import Step
from .sums import SUMS, sum_errors
from .tolerance import Arithmetic

__all__ = ["local_errors"]

Array = NDArray[Any]

# fmt: off
# Ruff would have each of these names in a line of its own.
_EXACT = frozenset(
    "Abs And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Clip "  # noqa: SIM905
    "Compress Concat "
    "ConcatFromSequence Constant ConstantOfShape DepthToSpace Dropout Equal Expand EyeLike Flatten Floor "
    "Gather GatherElements GatherND GlobalMaxPool Greater GreaterOrEqual Hardmax Identity IsInf IsNaN "
    "Less LessOrEqual Max MaxPool MaxUnpool Min Neg NonMaxSuppression NonZero Not OneHot Optional "
    "OptionalGetElement Or Pad ReduceMax ReduceMin Relu Reshape ReverseSequence Round Scatter "
    "ScatterElements ScatterND SequenceAt SequenceConstruct Shape Sign Size Slice SpaceToDepth Split "
    "SplitToSequence Squeeze ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Where Xor".split()
)
_ONCE = frozenset(
    "Add Cast CastLike Div HardSigmoid LeakyRelu Mod Mul PRelu Range Reciprocal Sqrt Sub".split()  # noqa: SIM905
)
_DOTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"})
_FUSED = {"FusedMatMul": "MatMul", "FusedGemm": "Gemm", "FusedConv": "Conv"}  # by ONNX Runtime's optimiser
_NORMS = frozenset(
    "BatchNormalization GroupNormalization InstanceNormalization LayerNormalization LpNormalization LRN "  # noqa: SIM905
    "MeanVarianceNormalization RMSNormalization".split()
)
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_INTERPOLATED = frozenset({"Resize", "Upsample", "GridSample", "AffineGrid", "RoiAlign"})
_ABSOLUTE = frozenset(
    "Acos Asin Atan Celu Cos Elu Erf Gelu HardSwish Mish Selu Sigmoid Sin Softplus Swish Tanh".split()  # noqa: SIM905
)
_SEVERAL = frozenset(
    "DFT If Loop ReduceL2 ReduceLogSum ReduceProd RotaryEmbedding Scan SequenceMap STFT".split()  # noqa: SIM905
)
# fmt: on
_SCATTERED = frozenset({"ScatterElements", "ScatterND"})
_FUNCTION_ULPS = 4
_ALIKE = 16.0  # rows whose largest elements are as near to each other have one bound
_NUDGES = 3  # of one, a sum is left where it was by chance too often


def local_errors(step: Step, arithmetic: Arithmetic) -> list[Array | None]:
    """Return for each output how far it may be off, element by element; None where it holds no fractions."""
    kind = _kind(step)
    found: list[Array | None] = []
    with np.errstate(all="ignore"):
        magnitude = _magnitude(kind, step, arithmetic)
        for place, output in enumerate(step.outputs):
            if not _is_wide(output):
                found.append(None)
                continue
            if _is_exact(kind, step) or (kind in _ONCE and _is_whole(step, output, arithmetic)):
                found.append(np.zeros_like(output))
                continue
            error = magnitude[place] if place < len(magnitude) else None
            if error is None or error.shape != output.shape:
                error = np.full_like(output, 0.0 if error is None else float(np.nanmax(error, initial=0.0)))
            stored = error + arithmetic.storage * np.abs(output) + arithmetic.tiny
            # What is rounded once is 0 where it should be: no product with 0 is next to it.
            exact = ~np.isfinite(stored) | ((output == 0) if kind in _ONCE else False)
            found.append(np.where(exact, 0.0, stored))
    return found


def _kind(step: Step) -> str:
    """Return the operator of ONNX that a node is of, or is like; nothing for others."""
    name = step.node.op_type
    if step.node.domain == "com.microsoft":
        plain = step.attribute("activation", "") in ("", "Relu", "LeakyRelu")  # which keep sizes as they are
        return _FUSED.get(name, "") if plain else ""
    return name if step.node.domain in ("", "ai.onnx") and defs.has(name) else ""  # a custom one may be there


def _magnitude(kind: str, step: Step, arithmetic: Arithmetic) -> Sequence[Array | None]:
    """Return how far the outputs are off before they are stored, where the operator is known."""
    u = arithmetic.unit
    outputs = step.outputs
    if _is_exact(kind, step):
        return ()
    if kind in _SCATTERED:
        return [_scattered(step, u)]
    if kind in _ONCE:
        return [u * np.abs(o) if _is_wide(o) else None for o in outputs]
    if kind in SUMS:
        return [sum_errors(kind, step, np.abs(total), u) for total in _absolute(step)]
    if kind in _DOTS:
        return [_dot(step, arithmetic)]
    if kind in _NORMS:
        return _norm(kind, step, u)
    if kind in ("Softmax", "LogSoftmax"):
        return [_softmax(kind, step, u)]
    if kind in ("Sum", "Mean"):
        return [len(step.inputs) * u * _absolute(step)[0]]
    if kind == "ReduceLogSumExp":
        return [_log_of_sum(outputs[0], _terms(step.inputs[0], outputs[0]), u)]
    if kind == "SoftmaxCrossEntropyLoss":
        return _cross_entropy(step, u)
    if kind == "Attention":
        return _attention(step, u)
    if kind == "Det":
        return [_determinant(step, u)]
    if kind in _RECURRENT:
        return [_recurrent(step, u)] * len(outputs)
    if kind in _INTERPOLATED:
        x = step.inputs[0]
        grid = 16 + max((*x.shape, *outputs[0].shape), default=1)  # a place is off by a share of either size
        return [np.full_like(outputs[0], u * grid * largest(x))]
    if kind == "Pow":
        base, power = step.inputs
        return [u * np.abs(outputs[0]) * (8 + np.abs(power * np.log(np.abs(base) + 1e-300)))]
    if kind and kind not in _SEVERAL:
        floor = u if kind in _ABSOLUTE else 0.0
        return [_FUNCTION_ULPS * u * np.abs(o) + floor if _is_wide(o) else None for o in outputs]
    if step.node.domain not in ("", "ai.onnx", "com.microsoft"):
        return _custom(step, arithmetic)
    relative = _unknown(step, arithmetic)
    return [np.full_like(o, relative * largest(o)) if _is_wide(o) else None for o in outputs]


def _is_wide(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == np.float64


def _is_whole(step: Step, output: Array, arithmetic: Arithmetic) -> bool:
    """Tell whether whole numbers gave whole numbers, as with masks of 0 and 1: that is exact."""
    arrays = [value for value in (*step.inputs, output) if _is_wide(value)]
    small = all(bool((np.abs(each) * arithmetic.storage < 1).all()) for each in arrays)
    return small and all(bool((each == np.round(each)).all()) for each in arrays)


def _is_exact(kind: str, step: Step) -> bool:
    """Tell whether an operator only moves elements, or chooses among them."""
    return kind in _EXACT and not (kind in _SCATTERED and _reduction(step) in ("add", "mul"))


def _reduction(step: Step) -> str:
    reduction: str = step.attribute("reduction", "none")
    return reduction


def _scattered(step: Step, u: float) -> Array:
    """Bound sums or products of what is put at one place; they are as long as there are ones put there."""
    data, indices, updates = step.inputs
    if _reduction(step) == "mul":
        product: Array = max(updates.size, 1) * u * np.abs(step.outputs[0])
        return product
    terms = np.asarray(step.again([np.zeros_like(data), indices, np.ones_like(updates)])[0])
    error: Array = np.maximum(terms / 4, 1) * u * _absolute(step)[0] * (terms > 0)
    return error


def _terms(x: Array, y: Array) -> float:
    return max(x.size / max(y.size, 1), 1.0)


def _absolute(step: Step, operation: Callable[[Array], Array] = np.abs) -> Sequence[Array]:
    """Evaluate the node on its inputs' absolute values."""
    return [o for o in step.on(operation) if isinstance(o, np.ndarray)]


def _sum_length(step: Step) -> float:
    """Return how many products are added up for one element."""
    kind, first, second = _kind(step), step.inputs[0], step.inputs[1] if len(step.inputs) > 1 else None
    if kind == "Conv":
        assert second is not None
        return float(math.prod(second.shape[1:]))
    if kind == "ConvTranspose":
        assert second is not None
        return float(second.size / max(second.shape[1], 1))
    if _kind(step) == "Gemm":
        return float(first.shape[0 if step.attribute("transA", 0) else 1])
    if kind == "Einsum":
        return float(max(math.prod(max((v.shape for v in step.inputs), key=math.prod)), 1))
    return float(first.shape[-1]) if first.ndim else 1.0


def _dot(step: Step, arithmetic: Arithmetic) -> Array:
    terms = _sum_length(step) + 1
    factor = (math.sqrt(terms) + 1) * arithmetic.unit
    error = factor * np.abs(_absolute(step)[0])
    if arithmetic.operand:  # factors rounded at random: 2.2 times the root of the sum of squares was measured
        squares = np.sqrt(np.abs(_absolute(step, np.square)[0]))
        error = error + arithmetic.operand * squares
    return error


def _softmax(kind: str, step: Step, u: float) -> Array:
    x, y = step.inputs[0], step.outputs[0]
    axes: Any = step.attribute("axis", -1)
    shares = y if kind == "Softmax" else np.exp(y)
    if x.size and not np.allclose(
        shares.sum(axes), 1
    ):  # up to opset 12, over all axes from that one, or from 1
        axes = tuple(range(step.attribute("axis", 1) % x.ndim, x.ndim))
    terms = math.prod(x.shape[axis] for axis in np.atleast_1d(axes))
    below = np.abs(x - x.max(axis=axes, keepdims=True)) if x.size else x
    relative = u * (_FUNCTION_ULPS + math.sqrt(terms) + np.minimum(below, 200.0))
    error: Array = relative * (np.abs(y) if kind == "Softmax" else 1 + np.abs(y))
    return error


def _log_of_sum(y: Array, terms: float, u: float) -> Array:
    """Bound log(Σ exp(x)) by its largest term, which is about as large, and the sum's own error."""
    error: Array = u * (_FUNCTION_ULPS + math.sqrt(terms)) * (1 + np.abs(y))
    return error


def _cross_entropy(step: Step, u: float) -> list[Array | None]:
    """Bound the loss by the logits that are subtracted in it, and each logarithm by its own."""
    x = step.inputs[0]
    weights = step.inputs[2] if len(step.inputs) > 2 else None
    size = largest(x) + 1 if weights is None else (largest(x) + 1) * max(largest(weights), 1.0)
    each = u * (_FUNCTION_ULPS + math.sqrt(x.shape[1])) * size
    losses = x.size / x.shape[1] if step.attribute("reduction", "mean") == "sum" else 1.0
    return [np.full(o.shape, each * (losses if place == 0 else 1.0)) for place, o in enumerate(step.outputs)]


def _attention(step: Step, u: float) -> list[Array | None]:
    """Bound attention by how large scores may be, whose errors are relative ones of the weights."""
    q, k, v = step.inputs[:3]
    heads = step.attribute("q_num_heads", 1) if q.ndim == 3 else 1
    scale = step.attribute("scale", 1 / math.sqrt(max(q.shape[-1] / heads, 1)))
    sizes = (float(np.sqrt(np.square(each).sum(-1)).max(initial=0.0)) for each in (q, k))
    scores = math.prod(sizes) * abs(scale)
    relative = u * (4 * _FUNCTION_ULPS + math.sqrt(q.shape[-1]) + math.sqrt(k.shape[-2])) * (1 + scores)
    rest = [
        0.0 if place in (1, 2) else relative * max(largest(o), 1.0) for place, o in enumerate(step.outputs)
    ]
    rest[0] = relative * largest(v)
    return [np.full(np.shape(o), most) for o, most in zip(step.outputs, rest, strict=True)]


def _determinant(step: Step, u: float) -> Array:
    """Bound a determinant by Hadamard's bound of it: the product of the lengths of the rows."""
    x = step.inputs[0]
    lengths = np.sqrt(np.square(x).sum(-1)).prod(-1)
    error: Array = u * (x.shape[-1] ** 2 + _FUNCTION_ULPS) * lengths
    return error.reshape(step.outputs[0].shape)


def _norm(kind: str, step: Step, u: float) -> list[Array | None]:
    """Bound scale·(x - mean)/deviation + shift by its terms' absolute values."""
    x, y = step.inputs[0], step.outputs[0]
    attributes = {a.name: a for a in step.node.attribute}
    epsilon = attributes["epsilon"].f if "epsilon" in attributes else 1e-5
    if kind == "BatchNormalization":
        scale, shift, mean, variance = (_along(v, x.ndim) for v in step.inputs[1:5])
        magnitude = np.abs(scale) * (np.abs(x) + np.abs(mean)) / np.sqrt(variance + epsilon) + np.abs(shift)
        return [_FUNCTION_ULPS * u * magnitude]
    if kind == "LayerNormalization":
        axis = attributes["axis"].i if "axis" in attributes else -1
        axes = tuple(range(axis % x.ndim, x.ndim))
        scale = step.inputs[1]
    elif kind in ("InstanceNormalization", "MeanVarianceNormalization"):
        axes = tuple(range(2, x.ndim))
        scale = _along(step.inputs[1], x.ndim) if len(step.inputs) > 1 else np.ones(1)
    elif kind == "GroupNormalization":
        groups, channels = attributes["num_groups"].i, x.shape[1]
        x = x.reshape(len(x), groups, math.prod(x.shape[1:]) // groups)
        axes = (2,)
        scale = _along(np.repeat(step.inputs[1], channels // len(step.inputs[1])), y.ndim)
    else:
        return [(math.sqrt(_terms(x, y) + x.shape[-1]) + _FUNCTION_ULPS) * u * np.abs(y)]
    terms = math.prod(x.shape[axis] for axis in axes)
    deviation = np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)
    spread = np.abs(x) + np.abs(x).mean(axis=axes, keepdims=True)
    factor = (math.sqrt(terms) + _FUNCTION_ULPS) * u
    return [factor * (np.abs(scale) * (spread / deviation).reshape(y.shape) + np.abs(y))]


def _along(channels: Array, rank: int) -> Array:
    return channels.reshape(1, -1, *(1,) * (rank - 2))


def _recurrent(step: Step, u: float) -> Array:
    """Bound each step by what the gates add up; the states, mostly between -1 and 1, carry errors on."""
    x, weights, recurrence = step.inputs[:3]
    terms = weights.shape[-1] + recurrence.shape[-1]
    added = largest(x) * np.abs(weights).sum(-1).max() + 2
    added += max(1.0, largest(step.outputs[0])) * np.abs(recurrence).sum(-1).max()
    return np.full(1, (math.sqrt(terms) + _FUNCTION_ULPS) * u * added * x.shape[0])


def _unknown(step: Step, arithmetic: Arithmetic) -> float:
    """Bound an operator that may give sums of what it is given, in parts of its largest element."""
    terms = max((v.shape[-1] for v in step.inputs if isinstance(v, np.ndarray) and v.ndim), default=1)
    if step.node.op_type == "DFT":
        terms = max(step.inputs[0].shape[1:-1], default=1)
    relative = (math.sqrt(terms) + 4 * _FUNCTION_ULPS) * arithmetic.unit
    if arithmetic.operand > arithmetic.storage:  # TF32: it may well give sums of products
        relative += arithmetic.operand
    return relative


def _custom(step: Step, arithmetic: Arithmetic) -> list[Array | None]:
    """Bound a custom operator by each row's largest element, and by how far errors of its inputs move it.

    Differences of inputs leave what the latter shows; those inside of it, as 1 + erf(x) in a GELU, what is
    small beside the row or, as 1 - cos(x), beside 1. Rows of about one size are all bounded by the largest.
    """
    relative = _unknown(step, arithmetic)
    whole = [relative * largest(o) if _is_wide(o) else 0.0 for o in step.outputs]
    floor = _FUNCTION_ULPS * arithmetic.unit
    rows = [np.maximum(relative * _largest_of_rows(o), floor) if _is_wide(o) else None for o in step.outputs]
    pairs = list(zip(rows, whole, strict=True))
    if all(row is None or row.min(initial=math.inf) >= most / _ALIKE for row, most in pairs):
        return [None if row is None else np.full(row.shape, most) for row, most in pairs]
    moved = _moved(step, relative)
    return [
        None if row is None else np.minimum(np.maximum(row, by), most)
        for (row, most), by in zip(pairs, moved, strict=True)
    ]


def _largest_of_rows(array: Array) -> Array:
    """Return for each element the largest size of those beside it on the last axis."""
    sizes = np.where(np.isfinite(array), np.abs(array), 0.0)
    most = sizes.max(axis=-1, keepdims=True, initial=0.0) if array.ndim else sizes
    return np.broadcast_to(most, array.shape)


def _moved(step: Step, relative: float) -> list[Array]:
    """Return how far errors of its inputs, each up or down, move a node's outputs: the most of some times."""
    generator = np.random.default_rng(0)
    most = [np.zeros(o.shape if _is_wide(o) else ()) for o in step.outputs]
    for _ in range(_NUDGES):
        inputs = [
            v + v * relative * generator.choice([-1.0, 1.0], size=v.shape) if _is_wide(v) else v
            for v in step.inputs
        ]
        for place, (own, other) in enumerate(zip(step.outputs, step.again(inputs), strict=True)):
            if _is_wide(own) and np.shape(other) == own.shape:
                apart = np.abs(other - own)
                most[place] = np.maximum(most[place], np.where(np.isfinite(apart), apart, 0.0))
    return most
