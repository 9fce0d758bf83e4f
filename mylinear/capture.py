"""A model as one of PyTorch's two exporters writes it, each call of LinearF a node with a body."""

from collections.abc import Sequence

import torch
from onnx import FunctionProto, ModelProto
from torch import Tensor

from ort_ops.dtypes import from_numpy
from ort_ops.errors import ExportError
from ort_ops.export import StandIn
from ort_ops.export import export as export_with_functions

from .bodies import NodeKind, function_body
from .function import LinearF
from .normalise import BATCH, INPUT, OUTPUT

__all__ = ["capture"]


def capture(
    model: torch.nn.Module, example: Tensor, *, dynamo: bool, opset: int, body: bool = True
) -> ModelProto:
    """Run one of the two exporters, and turn whatever it raises into an ExportError.

    ``body`` gives the nodes a function body, which a file in ONNX's default domain can't have.
    """
    free = {0: BATCH} if example.ndim > 1 else None
    shapes = {"dynamic_shapes": (free,)} if dynamo else {"dynamic_axes": {INPUT: free} if free else None}
    try:
        program = export_with_functions(
            model,
            (example,),
            dynamo=dynamo,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            functions="attach" if body else "keep",
            bodies={LinearF: _make_body},
            verbose=False,
            **shapes,
        )
    except Exception as error:
        cause: BaseException = error  # the exporters wrap what went wrong in advice, a page of it
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
        raise ExportError(f"torch.onnx.export(dynamo={dynamo}) failed: {reason}") from error
    refused = next((call.no_body for call in program.calls if call.no_body and call.nodes), "")
    if refused:
        raise ExportError(refused)
    return program.model_proto


def _make_body(nodes: Sequence[StandIn], domain: str, opset: int) -> FunctionProto:
    return function_body([_kind(node) for node in nodes], domain=domain, opset=opset)


def _kind(node: StandIn) -> NodeKind:
    """Describe a node for the choice of the body."""
    x = node.inputs[0]
    assert x is not None  # MYLINEAR requires it
    rank = None if x.shape is None else len(x.shape)
    element_type = 0 if x.dtype is None else from_numpy(x.dtype).onnx
    return NodeKind(rank, element_type, has_bias=len(node.inputs) == 3)
