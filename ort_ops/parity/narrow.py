"""Nodes of a file that can't be had in float64: computed as the file has them, and how they are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnx import NodeProto

from ort_ops.errors import NoKernelError, ParityError

from .single import run_single

__all__ = ["Narrow", "compute_narrow", "loses_digits", "moved", "narrowed"]

_ENOUGH = 8  # fractions by which a result in float32 is told from one in float64


@dataclass(frozen=True)
class Narrow:
    """A node that could not be evaluated in float64, or by nothing but what is to be judged, and why."""

    node: str
    op: str
    reason: str


def compute_narrow(
    model: ir.Model,
    precisions: Mapping[str, ir.DataType],
    node: NodeProto,
    inputs: Sequence[Any],
    error: Exception,
) -> tuple[Sequence[Any], str | None]:
    """Compute a node as the file has it, in ONNX Runtime on the CPU; returns what is lost by it, too.

    error: that it had in float64.
    """
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    narrow = [narrowed(value, precisions.get(name)) for name, value in zip(node.input, inputs, strict=True)]
    try:
        outputs = run_single(model, node, narrow)
    except NoKernelError as nobody:
        if isinstance(error, NotImplementedError):
            raise ParityError(str(nobody).partition("\n")[0]) from error
        raise ParityError(
            f"node {node.name!r} ({node.op_type}) can't be evaluated in float64 ({reason}), nor does ONNX "
            "Runtime compute it"
        ) from error
    except Exception as second:
        raise ParityError(
            f"node {node.name!r} ({node.op_type}) can be evaluated neither in float64 ({reason}) nor as "
            f"the file has it ({second})"
        ) from error
    fractions = any(np.issubdtype(np.asarray(each).dtype, np.inexact) for each in (*narrow, *outputs))
    return outputs, reason if fractions else None  # of integers nothing is lost


def loses_digits(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Tell whether a node was given more digits than float32 has, and gave no more than these."""
    return any(_is_wide(value) for value in inputs) and any(_loses(each, inputs) for each in outputs)


def moved(inputs: Sequence[Any]) -> list[Any]:
    """Return inputs whose fractions are a little off, so that they have more digits than float32."""
    generator = np.random.default_rng(0)
    return [
        value * (1 + 1e-9 * generator.standard_normal(value.shape)) if _has_fractions(value) else value
        for value in inputs
    ]


def _has_fractions(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def _is_wide(value: Any) -> bool:
    """Tell whether an array holds numbers that float32 doesn't."""
    if not isinstance(value, np.ndarray) or value.dtype != np.float64:
        return False
    finite = value[np.isfinite(value)]
    with np.errstate(over="ignore"):
        return bool((finite.astype(np.float32) != finite).any())


def _loses(output: Any, inputs: Sequence[Any]) -> bool:
    """Tell whether an operator gave float64 that it computed in float32: numbers that take all of its digits.

    Elements of an input don't count, nor differences of neighbours, which are short by themselves.
    """
    if not isinstance(output, np.ndarray) or output.dtype != np.float64 or output.size < _ENOUGH:
        return False
    if _is_wide(output):
        return False
    given = [each.reshape(-1) for each in inputs if isinstance(each, np.ndarray) and each.dtype == np.float64]
    own = output[np.isfinite(output) & ~np.isin(output, np.concatenate([*given, [0.0]]))]
    last = own.astype(np.float32).view(np.uint32) & 1
    return own.size >= _ENOUGH and bool(last.sum() >= own.size / 8)


def narrowed(value: Any, dtype: ir.DataType | None) -> Any:
    """Return a value in the type that the file has for it; float32 where the file doesn't say."""
    if not isinstance(value, np.ndarray) or value.dtype != np.float64:
        return value
    if dtype is None or dtype not in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE):
        return value.astype(np.float32)
    if dtype == ir.DataType.BFLOAT16:
        return value.astype(ml_dtypes.bfloat16)
    return value.astype(np.float16 if dtype == ir.DataType.FLOAT16 else np.float64)
