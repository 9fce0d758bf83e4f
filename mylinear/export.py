"""A trained model in, a file out that holds one MYLINEAR node a layer: ``linear.onnx``."""

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor

from ort_ops.errors import ExportError

from .bodies import OP_TYPE
from .capture import capture
from .function import LinearF
from .normalise import find_nodes, normalise

__all__ = ["export"]

# The opsets that an exporter writes, by its dynamo flag. The TorchScript one calls 20 its last but knows
# the operators of 23; below 11 Gemm's C isn't optional.
_LOWEST_OPSET = {True: 18, False: 11}
_HIGHEST_OPSET = {True: onnx.defs.onnx_opset_version(), False: 23}
_RESERVED_DOMAINS = ("ai.onnx", "com.microsoft", "org.pytorch", "pkg")  # they have operators of their own
_MAX_WEIGHTS = 2**31 - 2**24  # bytes: protobuf's limit for a message, less 16 MiB for the graph itself

_ELEM_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.float64: TensorProto.DOUBLE,
    torch.bfloat16: TensorProto.BFLOAT16,
}


def export(
    model: torch.nn.Module,
    f: str | os.PathLike[str] | None = None,
    *,
    example: Tensor,
    dynamo: bool = True,
    opset: int = 18,
    domain: str = "mylinear",
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
    domain: the domain of the MYLINEAR nodes. "" is ONNX's default domain, as the recipe writes it (at opset
        11 with ``dynamo=False``, but either exporter and any opset will do): such a file has no function
        body, onnx.checker and a plain ONNX Runtime refuse it, and a runtime with a kernel runs it.

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
    _check_request(model, dynamo=dynamo, opset=opset, domain=domain)
    with _random_state_kept(example), torch.no_grad():
        operands = _observe(model, example)
        written = capture(model, example, dynamo=dynamo, opset=opset, body=bool(domain))
    _check_written(written, calls=len(operands), opset=opset)
    normalise(written, operands, domain=domain, opset=opset)
    if domain and not _is_too_large(written):
        _check_valid(written)
    if f is not None:
        _write(written, Path(f))
    return written


def _check_request(model: torch.nn.Module, *, dynamo: bool, opset: int, domain: str) -> None:
    """Refuse what can't be exported before any work is done."""
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


def _observe(model: torch.nn.Module, example: Tensor) -> list[Mapping[int, TensorProto]]:
    """Run the model once and return, for each call of LinearF, the parameters that it was given.

    A parameter is given as an initializer under its state_dict name (the first, where it has several), by
    its place among the node's inputs: 1 weight, 2 bias. A weight that is no parameter is left out.
    """
    calls: list[tuple[Tensor, Tensor | None]] = []
    descriptor = LinearF.__dict__["forward"]
    own = LinearF.forward

    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        calls.append((weight, bias))
        return own(ctx, x, weight, bias)

    LinearF.forward = staticmethod(forward)  # type: ignore[method-assign]  # not apply: callers keep it
    try:
        y = model(example)
    finally:
        LinearF.forward = descriptor  # type: ignore[method-assign]
    if not isinstance(y, Tensor):
        raise ExportError(f"the model returned a {type(y).__name__}; expected one tensor")
    named = [*model.named_parameters(), *model.named_buffers()]
    return [_initializers({1: weight, 2: bias}, named) for weight, bias in calls]


def _initializers(
    operands: Mapping[int, Tensor | None], named: list[tuple[str, Tensor]]
) -> Mapping[int, TensorProto]:
    """Return those operands that are parameters as initializers, by their place."""
    found = {}
    for place, operand in operands.items():
        name = next((name for name, tensor in named if tensor is operand), None)
        if name is not None and operand is not None:
            found[place] = _initializer(name, operand)
    return found


def _initializer(name: str, tensor: Tensor) -> TensorProto:
    """Return a tensor's bytes, row-major and little-endian, as an initializer."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw = flat.view(torch.uint8).numpy().tobytes()
    return onnx.helper.make_tensor(name, _ELEM_TYPES[tensor.dtype], tensor.shape, raw, raw=True)


@contextlib.contextmanager
def _random_state_kept(example: Tensor) -> Iterator[None]:
    """Leave torch's random numbers where they were, whatever the model draws while it is traced."""
    devices = [example.device] if example.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        yield


def _check_written(model: ModelProto, *, calls: int, opset: int) -> None:
    """Refuse a file that isn't what was asked for: an exporter loses nodes and opsets without a word."""
    nodes = len(find_nodes(model))
    if calls != nodes:
        raise ExportError(
            f"the model called LinearF {calls} times but the file has {nodes} {OP_TYPE} nodes; expected one "
            "a call: the exporter lost a call, or the model doesn't use its result"
        )
    if not nodes:
        raise ExportError(f"the model never calls LinearF, so the file has no {OP_TYPE} node; use MyLinear")
    ends = (len(model.graph.input), len(model.graph.output))
    if ends != (1, 1):
        raise ExportError(f"the file has {ends[0]} inputs and {ends[1]} outputs; expected one of each")
    versions = [opset_id.version for opset_id in model.opset_import if opset_id.domain in ("", "ai.onnx")]
    if versions not in ([], [opset]):
        raise ExportError(f"the exporter wrote opset {versions[0]}; expected {opset}, which it can't write")


def _is_too_large(model: ModelProto) -> bool:
    """Tell whether the weights don't fit into one file; asking protobuf for the size then fails."""
    size = 0
    for weights in model.graph.initializer:
        size += math.prod(weights.dims) * int(
            onnx.helper.tensor_dtype_to_np_dtype(weights.data_type).itemsize
        )
    return size > _MAX_WEIGHTS


def _check_valid(model: ModelProto) -> None:
    """Run onnx's full check, shape inference included."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the file is not valid ONNX: {error}") from error


def _write(model: ModelProto, path: Path) -> None:
    """Write the file beside its place, then move it there: a reader never sees half of it."""
    data = f"{path.name}.data"
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        if not _is_too_large(model):
            Path(folder, path.name).write_bytes(model.SerializeToString(deterministic=True))
        else:
            onnx.save_model(model, Path(folder, path.name), save_as_external_data=True, location=data)
            onnx.load_external_data_for_model(model, folder)  # saving took the weights out of ``model``
            os.replace(Path(folder, data), path.parent / data)
        os.replace(Path(folder, path.name), path)
