"""Kernels that are given torch tensors over ONNX Runtime's buffers, on a GPU on its own stream.

Whoever runs one loads this module, and torch with it.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.overrides import _pop_mode_temporarily
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.dlpack import from_dlpack

from ._bridge import Call
from .dlpack_arrays import Library, run_on_dlpack
from .errors import ResultError
from .results import buffers_of, not_an_array, out_of, refuse_result, results_of

__all__ = ["run_on_dlpack_on_cuda", "run_on_torch"]

_Function = Callable[..., Any]
_Inputs = Sequence[Tensor | None]

_NOTHING = contextlib.nullcontext()

# Memory of captured CUDA graphs, by device and stream; the kernels that are in them hold it.
_pools: WeakValueDictionary[tuple[int | None, int], torch.cuda.MemPool] = WeakValueDictionary()


def run_on_torch(
    function: _Function, outputs: int, takes_out: bool, on_cuda: bool, call: Call, *, debug: bool = False
) -> None:
    """Run a kernel on torch tensors over the buffers; on ONNX Runtime's own stream where it is on a GPU.

    ``outputs`` is how many the operator has; a kernel that ``takes_out`` fills their buffers by itself.
    ``debug`` hands it tensors of its own instead, of which every bit of ``out`` is set.
    """
    under_modes = torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack()
    device = "cuda" if on_cuda else "cpu"
    with (
        _no_modes() if under_modes else _NOTHING,
        _no_inference_mode(),
        torch.no_grad(),
        _no_autocast(device),
    ):
        inputs = [None if buffer is None else _tensor(buffer) for buffer in call.inputs()]
        if not on_cuda:
            _compute(function, outputs, takes_out, call, inputs, debug)
            return
        stream = _stream(call, inputs)
        with torch.cuda.stream(stream), _memory(stream, call):
            _compute(function, outputs, takes_out, call, inputs, debug)


def run_on_dlpack_on_cuda(function: _Function, outputs: int, takes_out: bool, call: Call) -> None:
    """Run a kernel on a GPU on objects that speak DLPack; its results have to speak it, too.

    It may work on any stream: what ONNX Runtime launched has ended before it begins, what it wrote into
    ``out`` before it returns; its results are waited for as DLPack says, on ONNX Runtime's stream. Since it
    waits, it can't be captured in a CUDA graph.
    """
    inputs = call.inputs()
    stream = _stream(call, [None if buffer is None else from_dlpack(buffer) for buffer in inputs])
    with torch.cuda.stream(stream):
        if torch.cuda.is_current_stream_capturing():
            raise NotImplementedError(
                "a kernel on DLPack arrays may work on any stream, and so can't be captured in a CUDA graph; "
                'expected one with array="torch", which works on ONNX Runtime\'s'
            )
        stream.synchronize()
        run_on_dlpack(function, outputs, takes_out, call, inputs, _TORCH)
    if takes_out:
        torch.cuda.synchronize(stream.device)


def _apart(source: Tensor, targets: Sequence[Tensor]) -> Tensor:
    return source.clone() if any(_meet(source, target) for target in targets) else source


_TORCH = Library(from_dlpack, from_dlpack, _apart, Tensor.copy_)


def _tensor(buffer: Any) -> Tensor:
    """Return a tensor over a buffer, which is in order with ONNX Runtime's stream as it is.

    By a capsule: given the buffer torch would look up its own stream to say it to that, some microseconds.
    """
    return from_dlpack(buffer.__dlpack__())


@contextlib.contextmanager
def _no_modes() -> Iterator[None]:
    """Switch the caller's modes off, but for a default device: in a fake one nothing would be computed.

    It takes some microseconds.
    """
    with contextlib.ExitStack() as stack:
        count = torch._C._len_torch_function_stack()
        modes = [stack.enter_context(_pop_mode_temporarily()) for _ in range(count)]
        stack.enter_context(_disable_current_modes())
        for mode in modes:
            if isinstance(mode, DeviceContext):  # the innermost comes first
                stack.enter_context(torch.device(mode.device))
                break
        yield


def _no_inference_mode() -> AbstractContextManager[object]:
    """Return a context in which tensors have a version, by which a write into them is told."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else _NOTHING


def _no_autocast(device: str) -> AbstractContextManager[object]:
    """Return a context without autocast: the caller's is for the caller's own operators."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else _NOTHING


def _stream(call: Call, inputs: _Inputs) -> torch.cuda.Stream:
    """Return ONNX Runtime's own stream, on the device of a call's inputs."""
    devices = [tensor.device for tensor in inputs if tensor is not None and tensor.is_cuda]
    device = devices[0] if devices else torch.device("cuda", torch.cuda.current_device())
    return _stream_of(call.stream(), device)


@functools.lru_cache(maxsize=64)  # to make one takes longer than to launch a kernel
def _stream_of(handle: int, device: torch.device) -> torch.cuda.Stream:
    # 0 is CUDA's default stream, on which ONNX Runtime runs where others allocate; torch would make one.
    if handle:
        return torch.cuda.ExternalStream(handle, device=device)  # type: ignore[no-untyped-call]
    return torch.cuda.default_stream(device)


def _memory(stream: torch.cuda.Stream, call: Call) -> AbstractContextManager[object]:
    """Return a context in which torch takes its memory from where it may for a run on this stream.

    While ONNX Runtime captures a CUDA graph that is a pool of the session's own: each replay writes where the
    kernel wrote in the capture, which torch would otherwise give to others, or back to the driver.
    """
    if not torch.cuda.is_current_stream_capturing():
        return _NOTHING
    where = (stream.device.index, stream.cuda_stream)
    pool = _pools.get(where)
    if pool is None:
        pool = _pools[where] = torch.cuda.MemPool()
    call.keep(pool)
    return torch.cuda.use_mem_pool(pool, stream.device)


def _compute(
    function: _Function, outputs: int, takes_out: bool, call: Call, inputs: _Inputs, debug: bool
) -> None:
    buffers = buffers_of(_tensor, call) if takes_out else ()
    if debug:
        inputs = [None if tensor is None else tensor.clone() for tensor in inputs]
    filled = [_poisoned(buffer) for buffer in buffers] if debug else buffers
    out = out_of(filled) if takes_out else {}
    result = function(*inputs, **call.attributes(), **out)
    for index, tensor in enumerate(inputs):
        if tensor is not None and tensor._version:
            raise ResultError(
                f"wrote into its input {index}, which may be a weight of the model; "
                "work on a copy (x.clone())"
            )
    if not takes_out:
        _store(outputs, call, result)
        return
    refuse_result(result, out)
    for buffer, own in zip(buffers, filled, strict=True):
        if own is not buffer:
            buffer.copy_(own)


def _store(outputs: int, call: Call, result: object) -> None:
    targets: list[Tensor] = []
    sources: list[Tensor] = []
    for index, output in enumerate(results_of(outputs, result)[: call.output_count()]):
        if not isinstance(output, Tensor):
            raise ResultError(not_an_array(result, "torch.Tensor", outputs))
        if type(output) is not Tensor and is_fake(output):
            raise ResultError(f"returned a FakeTensor for output {index}, which has no numbers")
        buffer = call.output(index, tuple(output.shape))
        if buffer is None:
            continue
        target = _tensor(buffer)
        if output.dtype != target.dtype or output.device != target.device:
            raise ResultError(
                f"returned {output.dtype} on {output.device} for output {index}; "
                f"expected {target.dtype} on {target.device}"
            )
        targets.append(target)
        sources.append(output)
    # An output may be bound to the memory of an input, of which a result may be a view.
    if len(targets) == 1 and not _meet(sources[0], targets[0]):
        targets[0].copy_(sources[0])
        return
    for target, source in zip(targets, [_apart(source, targets) for source in sources], strict=True):
        target.copy_(source)


def _meet(output: Tensor, target: Tensor) -> bool:
    """Tell whether a copy into an output's buffer may change what is yet to be read of a result."""
    try:
        storage = output.untyped_storage()
        start, stop = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
    except (NotImplementedError, RuntimeError):  # sparse, or a subclass without a storage of its own
        return False
    if start == stop and output.numel():
        raise ResultError("returned a tensor whose memory was freed; expected one that has its numbers")
    to = target.data_ptr()
    return start < to + target.nbytes and to < stop


def _poisoned(buffer: Tensor | None) -> Tensor | None:
    """Return a tensor like a buffer with every bit set: NaN, -1."""
    if buffer is None:
        return None
    tensor = torch.empty_like(buffer)
    tensor.reshape(-1).view(torch.uint8).fill_(1 if tensor.dtype == torch.bool else 0xFF)
    return tensor
