"""PyTorch's two exporters, made to keep LinearF as a node: from a module to what they write of it.

The newer exporter traces through an autograd.Function and ignores its ``symbolic``. So while it runs,
LinearF computes through one torch operator, ``mylinear::linear``, which it is told to write as MYLINEAR.
The TorchScript exporter calls ``LinearF.symbolic``.
"""

import contextlib
import itertools
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from onnx import ModelProto
from onnx.defs import OpSchema
from onnxscript import values
from torch import Tensor

from ort_ops.errors import ExportError

from .bodies import OP_TYPE
from .function import LinearF
from .normalise import BATCH, CAPTURE_DOMAIN, INPUT, OUTPUT

__all__ = ["capture", "forward_replaced"]

_MARK = "call"  # an attribute that keeps equal calls apart while the exporter merges equal nodes


def capture(model: torch.nn.Module, example: Tensor, *, dynamo: bool, opset: int) -> ModelProto:
    """Run one of the two exporters, and turn whatever it raises into an ExportError."""
    run = _capture_dynamo if dynamo else _capture_torchscript
    try:
        with _quiet():
            return run(model, example, opset)
    except Exception as error:
        cause: BaseException = error  # the exporters wrap what went wrong in advice, a page of it
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
        raise ExportError(f"torch.onnx.export(dynamo={dynamo}) failed: {reason}") from error


def _capture_dynamo(model: torch.nn.Module, example: Tensor, opset: int) -> ModelProto:
    """Export with the newer exporter, with one torch operator in place of what LinearF computes with."""

    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        result: Tensor = torch.ops.mylinear.linear(x, weight, bias)
        return result

    with forward_replaced(forward):
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: BATCH},) if example.ndim > 1 else None,
            custom_translation_table={torch.ops.mylinear.linear.default: _translation()},
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    return program.model_proto


@torch.library.custom_op("mylinear::linear", mutates_args=())
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute y = x·weightᵀ + bias: (..., in), (out, in), (out,) -> (..., out), as LinearF does."""
    return F.linear(x, weight, bias)


@_linear.register_fake
def _fake_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Give y's shape, dtype and device without computing it."""
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _translation() -> Callable[..., Any]:
    """Return the function that writes one MYLINEAR node for one call of the operator above."""
    op = values.Op(values.Opset(CAPTURE_DOMAIN, 1), OP_TYPE, _schema())
    count = itertools.count()

    def translate(x: Any, weight: Any, bias: Any = None) -> Any:
        inputs = (x, weight) if bias is None else (x, weight, bias)
        return op(*inputs, **{_MARK: next(count)})

    return translate


def _schema() -> OpSchema:
    """Describe the node to onnxscript: an Op that has no schema can't be called while exporting."""
    optional = OpSchema.FormalParameterOption.Optional
    return OpSchema(
        OP_TYPE,
        CAPTURE_DOMAIN,
        1,
        inputs=[
            OpSchema.FormalParameter("x", "T"),
            OpSchema.FormalParameter("weight", "T"),
            OpSchema.FormalParameter("bias", "T", param_option=optional),
        ],
        outputs=[OpSchema.FormalParameter("y", "T")],
        attributes=[OpSchema.Attribute(_MARK, OpSchema.AttrType.INT, required=False)],
        type_constraints=[
            ("T", ["tensor(float16)", "tensor(bfloat16)", "tensor(float)", "tensor(double)"], "")
        ],
    )


def _capture_torchscript(model: torch.nn.Module, example: Tensor, opset: int) -> ModelProto:
    """Export with the TorchScript exporter, which calls LinearF.symbolic."""
    with tempfile.TemporaryDirectory() as folder:  # a path, since only there may weights exceed 2 GiB
        path = os.path.join(folder, "model.onnx")
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: BATCH}} if example.ndim > 1 else None,
            custom_opsets={CAPTURE_DOMAIN: 1},
            verbose=False,
        )
        return onnx.load(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporters say about themselves; what they say about the model still comes out."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    with warnings.catch_warnings():
        ignore = warnings.filterwarnings
        # The TorchScript exporter is deprecated as a whole; it is asked for by name, for opset 11.
        ignore("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
        ignore("ignore", "The feature will be removed", DeprecationWarning, r"torch\.onnx\.")
        # Above opset 20 it writes what it writes at 20: the checker and the count of nodes judge the file.
        ignore("ignore", "Exporting to ONNX opset version", UserWarning, r"torch\.onnx\.")
        # torch copies its own deprecated class while it exports.
        ignore("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        # Its second way of tracing makes an instance of autograd.Function.
        ignore("ignore", r"<class 'torch\.autograd\.function\.Function'> should not be", DeprecationWarning)
        logger.setLevel(logging.ERROR)  # it reports that torchvision, which nobody asked for, is missing
        try:
            yield
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def forward_replaced(forward: Callable[..., Tensor]) -> Iterator[None]:
    """Put ``forward`` in place of LinearF's own: not of apply, which callers keep in variables."""
    own = LinearF.__dict__["forward"]
    LinearF.forward = staticmethod(forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        LinearF.forward = own  # type: ignore[method-assign]
