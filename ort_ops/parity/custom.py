"""Custom nodes in float64: by the forward of the Function that they stand for, or by a registered kernel."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, defs
from onnx.reference.op_run import OpRun

from ort_ops.functions import function_ops
from ort_ops.model import read_model
from ort_ops.registry import Op, find_ops
from ort_ops.selection import Prefer

from .compare import identical
from .evaluator import DRAWN_BY
from .fake_quantized import FakeQuantized

__all__ = ["custom_ops"]


def custom_ops(
    model: ModelProto, functions: Iterable[type] | None, trust: Iterable[str], prefer: Prefer
) -> list[type[OpRun]]:
    """Return for onnx's reference evaluator who computes each custom operator of a model without weights.

    The forward of one of ``functions`` comes first, then the function body in the file, to which an operator
    is left that has one, and a Python kernel last: of it a fault can't be told from one of the file. With
    ``prefer="body"`` a body comes first, which is what runs. What has none of these says so where it is
    evaluated.
    """
    read = read_model(model.SerializeToString())
    by_function, refused = function_ops(read, functions, trust)
    found: list[type[OpRun]] = []
    for domain, name in sorted({node.op for node in read.nodes}):
        if domain in ("", "ai.onnx") and defs.has(name):
            continue
        if (domain, name) in read.functions and (prefer == "body" or (domain, name) not in by_function):
            continue
        if (domain, name) in by_function:
            op, *_ = by_function[domain, name]  # each computes any of the nodes
            found.append(_by_function(domain, name, op))
        else:
            ops = find_ops((domain, name), read.opsets.get(domain))
            kernels = [_by_kernel(domain, name, op) for op in ops[:1]]
            reason = refused.get((domain, name))
            found += kernels or ([_by_nothing(domain, name, reason)] if reason is not None else [])
    return found


def _by_function(domain: str, name: str, op: Op) -> type[OpRun]:
    def _run(self: Any, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
        tensors = [None if array is None else torch.from_numpy(np.array(array)) for array in inputs]
        wide = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
        with torch.no_grad(), FakeQuantized() if wide else contextlib.nullcontext():
            result = op.kernel.function(self.onnx_node.name, *tensors)
        results = result if isinstance(result, tuple) else (result,)
        return tuple(tensor.detach().cpu().numpy() for tensor in results if tensor is not None)

    return _operator(domain, name, _seeded(_run), by_forward=True)


def _by_kernel(domain: str, name: str, op: Op) -> type[OpRun]:
    def _run(self: Any, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
        arrays = [_to(op.kernel.array, array) for array in inputs]
        given = {
            attribute.name: getattr(self, attribute.name, None) for attribute in self.onnx_node.attribute
        }
        result = op.kernel.function(*arrays, **given)
        results = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(r.detach().cpu() if isinstance(r, torch.Tensor) else r) for r in results)

    return _operator(domain, name, _seeded(_run), by_kernel=op.kernel.where)


def _seeded(run: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Have what a node draws be the same each time, and mark one that draws: it is run twice at first."""

    def compute(seed: int, node: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> tuple[Any, ...]:
        state = np.random.get_state()  # which a kernel may draw from
        try:
            with torch.random.fork_rng(devices=()):
                torch.default_generator.manual_seed(seed)  # those of GPUs would not be put back
                np.random.seed(seed)
                return run(node, *inputs, **attributes)
        finally:
            np.random.set_state(state)

    def _run(self: Any, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
        results = compute(getattr(self, DRAWN_BY, 0), self, inputs, attributes)
        if not hasattr(self, DRAWN_BY) and any(result.size for result in results):
            others = compute(1, self, inputs, attributes)
            setattr(self, DRAWN_BY, 0)
            self.unseeded = not all(map(identical, results, others))
        return results

    return _run


def _by_nothing(domain: str, name: str, reason: str) -> type[OpRun]:
    def _run(self: Any, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
        raise NotImplementedError(reason)

    return _operator(domain, name, _run)


def _operator(domain: str, name: str, run: Callable[..., Any], **marks: Any) -> type[OpRun]:
    """Return an operator without a schema: onnx would take that of its own operator of the same name."""
    return type(name, (OpRun,), {"op_domain": domain, "op_schema": None, "_run": run, **marks})


def _to(kind: str, array: Any) -> Any:
    if array is None or kind == "numpy":
        return array
    return torch.from_numpy(np.array(array))
