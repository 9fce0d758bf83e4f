"""Operators in float64 as ONNX has them, where onnx's reference evaluator computes something else."""

import math
from typing import Any

from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_batch_normalization import BatchNormalization_14 as ReferenceBatchNormalization

__all__ = ["FLATTENING", "MENDED", "flattening"]

FLATTENING = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
"""Operators that are computed along one axis since opset 13."""


def flattening(kind: type[Any]) -> type[OpRun]:
    """Return one of these as it was before: its input made a matrix at its axis, which is 1 by default."""

    def _run(self: Any, x: Any, **_: Any) -> tuple[Any]:
        axis = next((a.i for a in self.onnx_node.attribute if a.name == "axis"), 1) % max(x.ndim, 1)
        rows = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        return (kind._run(self, rows, axis=1)[0].reshape(x.shape),)

    return type(kind.__name__, (kind,), {"op_domain": "", "_run": _run})


class BatchNormalization(ReferenceBatchNormalization):
    """A normalisation by given means and variances; before opset 14 training shows by further outputs."""

    op_domain = ""

    def _run(
        self,
        x: Any,
        scale: Any,
        bias: Any,
        mean: Any,
        var: Any,
        epsilon: float | None = None,
        momentum: float | None = None,
        training_mode: int | None = None,
        **_: Any,
    ) -> tuple[Any, ...]:
        training = int(bool(training_mode) or len(self.onnx_node.output) > 1)
        return super()._run(x, scale, bias, mean, var, epsilon, momentum, training)  # type: ignore[no-any-return,no-untyped-call]


MENDED: tuple[type[OpRun], ...] = (BatchNormalization,)
"""Implementations for ``ReferenceEvaluator``'s ``new_ops``."""
