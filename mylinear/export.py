"""A trained model in, a file out that holds one MYLINEAR node a layer: ``linear.onnx``."""

import inspect
import os
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from onnx import FunctionProto, ModelProto
from torch import Tensor

from ort_ops.dtypes import from_numpy
from ort_ops.errors import ExportError
from ort_ops.export import Program, StandIn, keep_functions
from ort_ops.export import export as export_with_functions
from ort_ops.export.exporter import uncompiled

from .bodies import OP_TYPE, NodeKind, function_body
from .function import LinearF

__all__ = ["export"]

INPUT, OUTPUT, BATCH = "x", "y", "batch"
_DOMAIN = "mylinear"  # in which LinearF.symbolic writes the node

# The opsets that an exporter writes, by its dynamo flag. The TorchScript one calls 20 its last but knows
# the operators of 23; below 11 Gemm's C isn't optional.
_LOWEST_OPSET = {True: 18, False: 11}
_HIGHEST_OPSET = {True: onnx.defs.onnx_opset_version(), False: 23}
_RESERVED_DOMAINS = ("ai.onnx", "com.microsoft", "org.pytorch", "pkg")  # they have operators of their own


def export(
    model: torch.nn.Module,
    f: str | os.PathLike[str] | None = None,
    *,
    example: Tensor,
    dynamo: bool = True,
    opset: int = 18,
    domain: str = _DOMAIN,
) -> ModelProto:
    """Export a model to ONNX with one MYLINEAR node for each call of LinearF, and return the file's content.

    model: a module in evaluation mode that takes one tensor and returns one tensor.
    f: where to write the file, replaced in one step; None writes none. Where a file would exceed 2 GiB,
        its weights go to ``<f>.data`` beside it.
    example: x: (batch, ..., in), or (in,) for a model of rank 1 without a batch, in the dtype and on the
        device of the model. Only its shape and dtype reach the file.
    dynamo: True for PyTorch's newer exporter, False for the TorchScript one, which PyTorch deprecates and
        which alone writes opset 11.
    opset: the version of ONNX's default domain: 18 and above, or 11 to 23 with ``dynamo=False``.
    domain: the domain of the MYLINEAR nodes. "" is ONNX's default domain, as custom operators were often
        written before domains (at opset 11, which takes ``dynamo=False``; either exporter and any opset will
        do): such a file has no function body, onnx.checker and a plain ONNX Runtime refuse it, and a runtime
        with a kernel runs it.

    The file has one input ``x`` and one output ``y``; the first dimension of x is ``batch`` and may have
    any size, zero included. The initializers bear the names of the state_dict. The nodes carry a function
    body, so that ONNX Runtime runs the file without a MYLINEAR kernel (``mylinear.bodies`` says where it
    can't). For models of MyLinear and ReLU both exporters give the same bytes at opsets 18 to 23. The model
    runs once more than the exporter runs it, to see which calls there are; its hooks run too.

    Raises ExportError when the model is in training mode, takes or returns something else than one tensor,
    or doesn't call LinearF; when a call of LinearF didn't become a node; when the exporter can't write the
    opset or the model; when the domain is reserved; when the file would not be valid ONNX. What the model
    itself raises on ``example`` comes through as it is.
    """
    _check_request(model, example, dynamo=dynamo, opset=opset, domain=domain)
    model = uncompiled(model)
    made = _count_calls(model, example)
    program = _export(model, example, dynamo=dynamo, opset=opset, domain=domain)
    _check_written(program, calls=made, opset=opset)
    written = program.model_proto
    if domain and program.fits_in_one_file:  # one alone can be checked in memory
        _check_valid(written)
    if f is not None:
        program.save(f)
    return written


def _check_request(model: Any, example: Any, *, dynamo: bool, opset: int, domain: str) -> None:
    """Refuse what can't be exported before any work is done."""
    if not isinstance(model, torch.nn.Module):
        raise ExportError(f"the model is a {type(model).__name__}; expected a torch.nn.Module")
    if not isinstance(example, Tensor):
        raise ExportError(f"example is a {type(example).__name__}; expected one tensor (batch, ..., in)")
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise ExportError(f"{training[0]} is in training mode; expected evaluation mode: call model.eval()")
    lowest, highest = _LOWEST_OPSET[dynamo], _HIGHEST_OPSET[dynamo]
    if not lowest <= opset <= highest:
        remedy = "; pass dynamo=False for the TorchScript exporter" if dynamo and opset < lowest else ""
        raise ExportError(f"opset is {opset}; expected {lowest} to {highest} with dynamo={dynamo}{remedy}")
    for reserved in _RESERVED_DOMAINS:
        if domain == reserved or domain.startswith(f"{reserved}."):
            raise ExportError(f"domain is {domain!r}, which is reserved; expected one of your own, or ''")


def _count_calls(model: torch.nn.Module, example: Tensor) -> int:
    """Run the model as it is, and return how often it calls LinearF: an exporter may see it do otherwise."""
    devices = [example.device] if example.is_cuda else []
    with keep_functions() as kept, torch.random.fork_rng(devices=devices), torch.no_grad():
        y = model(example)
    if not isinstance(y, Tensor):
        raise ExportError(f"the model returned a {type(y).__name__}; expected one tensor")
    return kept.made[LinearF]


def _export(model: torch.nn.Module, example: Tensor, *, dynamo: bool, opset: int, domain: str) -> Program:
    """Run one of the two exporters, and turn whatever it raises into an ExportError."""
    free = {0: BATCH} if example.ndim > 1 else None
    shape = (free,) if _takes_any_number(model) else free
    shapes = {"dynamic_shapes": (shape,)} if dynamo else {"dynamic_axes": {INPUT: free} if free else None}
    try:
        with warnings.catch_warnings():
            # It is an error here: see _check_written.
            warnings.filterwarnings("ignore", ".* has no function body", UserWarning)
            return export_with_functions(
                model,
                (example,),
                dynamo=dynamo,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                functions="attach" if domain else "keep",
                bodies={LinearF: _make_body},
                domains={_DOMAIN: domain},
                default_domain="keep",
                canonical=True,
                verbose=False,
                **shapes,
            )
    except ExportError:
        raise
    except Exception as error:
        cause: BaseException = error  # the exporters wrap what went wrong in advice, a page of it
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
        raise ExportError(f"torch.onnx.export(dynamo={dynamo}) failed: {reason}") from error


def _takes_any_number(model: torch.nn.Module) -> bool:
    """Tell whether x is one of ``*inputs``, whose shapes torch wants as a tuple of their own."""
    first = next(iter(inspect.signature(model.forward).parameters.values()), None)
    return first is not None and first.kind is inspect.Parameter.VAR_POSITIONAL


def _make_body(nodes: Sequence[StandIn], domain: str, opset: int) -> FunctionProto:
    return function_body([_kind(node) for node in nodes], domain=domain, opset=opset)


def _kind(node: StandIn) -> NodeKind:
    """Describe a node for the choice of the body."""
    x = node.inputs[0]
    assert x is not None  # MYLINEAR requires it
    rank = None if x.shape is None else len(x.shape)
    element_type = 0 if x.dtype is None else from_numpy(x.dtype).onnx
    return NodeKind(rank, element_type, has_bias=len(node.inputs) == 3)


def _check_written(program: Program, *, calls: int, opset: int) -> None:
    """Refuse a file that isn't what was asked for: an exporter loses nodes and opsets without a word."""
    reports = [report for report in program.calls if report.nodes]
    if calls != len(reports):
        raise ExportError(
            f"the model called LinearF {calls} times but the file has {len(reports)} {OP_TYPE} nodes; "
            "expected one a call: the exporter lost a call, or the model doesn't use its result"
        )
    if not reports:
        raise ExportError(f"the model never calls LinearF, so the file has no {OP_TYPE} node; use MyLinear")
    refused = next((report.no_body for report in reports if report.no_body), "")
    if refused:
        raise ExportError(refused)
    graph = program.model.graph
    ends = (len(graph.inputs), len(graph.outputs))
    if ends != (1, 1):
        raise ExportError(f"the file has {ends[0]} inputs and {ends[1]} outputs; expected one of each")
    version = program.model.opset_imports.get("", opset)
    if version != opset:
        raise ExportError(f"the exporter wrote opset {version}; expected {opset}, which it can't write")


def _check_valid(model: ModelProto) -> None:
    """Run onnx's full check, shape inference included."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the file is not valid ONNX: {error}") from error
