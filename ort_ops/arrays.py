"""Kernels that are not given NumPy arrays: torch tensors and DLPack arrays over ONNX Runtime's buffers.

Also what is wrong with a result, for every kind of array.
"""

import contextlib
import functools
import importlib
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ._bridge import Call
from .dtypes import from_onnx
from .errors import ResultError

__all__ = ["hides", "reject", "run_on_dlpack", "run_on_torch"]

Function = Callable[..., Any]

# Memory of captured CUDA graphs, by device and stream; the kernels that are in them hold it.
_pools: WeakValueDictionary[tuple[int, int], Any] = WeakValueDictionary()


_NOTHING = contextlib.nullcontext()


@functools.cache  # a third of a microsecond
def _torch() -> Any:
    return importlib.import_module("torch")


def run_on_torch(
    function: Function, outputs: int, takes_out: bool, on_cuda: bool, call: Call, *, debug: bool = False
) -> None:
    """Run a kernel on torch tensors over the buffers; on ONNX Runtime's own stream where it is on a GPU.

    ``outputs`` is how many the operator has; a kernel that ``takes_out`` fills their buffers by itself.
    ``debug`` hands it tensors of its own instead, of which every bit of ``out`` is set.
    """
    torch = _torch()
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        with _no_modes(torch):
            _run_on_torch(torch, function, outputs, takes_out, on_cuda, call, debug)
    else:
        _run_on_torch(torch, function, outputs, takes_out, on_cuda, call, debug)


def _run_on_torch(
    torch: Any, function: Function, outputs: int, takes_out: bool, on_cuda: bool, call: Call, debug: bool
) -> None:
    with _no_inference_mode(torch), torch.no_grad(), _no_autocast(torch, "cuda" if on_cuda else "cpu"):
        inputs = [None if i is None else _tensor(torch, i) for i in call.inputs()]
        if not on_cuda:
            _compute_on_torch(torch, function, outputs, takes_out, call, inputs, debug)
            return
        stream = _stream(torch, call, inputs)
        with torch.cuda.stream(stream), _memory(torch, stream, call):
            _compute_on_torch(torch, function, outputs, takes_out, call, inputs, debug)


def _tensor(torch: Any, buffer: Any) -> Any:
    """Return a tensor over a buffer, which is in order with ONNX Runtime's stream as it is.

    By a capsule: given the buffer torch would look up its own stream to say it to that, some microseconds.
    """
    return torch.from_dlpack(buffer.__dlpack__())


@contextlib.contextmanager
def _no_modes(torch: Any) -> Iterator[None]:
    """Switch the caller's modes off, but for a default device: in a fake one nothing would be computed.

    It takes some microseconds.
    """
    dispatch = importlib.import_module("torch.utils._python_dispatch")
    pop = torch.overrides._pop_mode_temporarily
    with contextlib.ExitStack() as stack:
        modes = [stack.enter_context(pop()) for _ in range(torch._C._len_torch_function_stack())]
        stack.enter_context(dispatch._disable_current_modes())
        for mode in modes:
            if isinstance(mode, torch.utils._device.DeviceContext):  # the innermost comes first
                stack.enter_context(torch.device(mode.device))
                break
        yield


def _no_inference_mode(torch: Any) -> AbstractContextManager[Any]:
    """Return a context in which tensors have a version, by which a write into them is told."""
    if not torch.is_inference_mode_enabled():
        return _NOTHING
    return torch.inference_mode(False)  # type: ignore[no-any-return] # torch is Any


def _no_autocast(torch: Any, device: str) -> AbstractContextManager[Any]:
    """Return a context without autocast: the caller's is for the caller's own operators."""
    if not torch.is_autocast_enabled(device):
        return _NOTHING
    return torch.autocast(device, enabled=False)  # type: ignore[no-any-return] # torch is Any


def _stream(torch: Any, call: Call, inputs: Sequence[Any]) -> Any:
    """Return ONNX Runtime's own stream, on the device of a call's inputs, which are tensors of torch."""
    devices = [i.device for i in inputs if i is not None and i.is_cuda]
    device = devices[0] if devices else torch.device("cuda", torch.cuda.current_device())
    return _stream_of(torch, call.stream(), device)


@functools.lru_cache(maxsize=64)  # to make one takes longer than to launch a kernel
def _stream_of(torch: Any, handle: int, device: Any) -> Any:
    # 0 is CUDA's default stream, on which ONNX Runtime runs where others allocate; torch would make one.
    return torch.cuda.ExternalStream(handle, device=device) if handle else torch.cuda.default_stream(device)


def _memory(torch: Any, stream: Any, call: Call) -> AbstractContextManager[Any]:
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
    return torch.cuda.use_mem_pool(pool, stream.device)  # type: ignore[no-any-return] # torch is Any


def _compute_on_torch(
    torch: Any,
    function: Function,
    outputs: int,
    takes_out: bool,
    call: Call,
    inputs: Sequence[Any],
    debug: bool,
) -> None:
    buffers = _buffers(functools.partial(_tensor, torch), call) if takes_out else ()
    if debug:
        inputs = [None if tensor is None else tensor.clone() for tensor in inputs]
    filled = [_poisoned(torch, buffer) for buffer in buffers] if debug else buffers
    out = _out(filled) if takes_out else {}
    result = function(*inputs, **call.attributes(), **out)
    for index, tensor in enumerate(inputs):
        if tensor is not None and tensor._version:
            raise ResultError(
                f"wrote into its input {index}, which may be a weight of the model; "
                "work on a copy (x.clone())"
            )
    if takes_out:
        _refuse_result(result, out)
        for buffer, tensor in zip(buffers, filled, strict=True):
            if tensor is not buffer:
                buffer.copy_(tensor)
        return
    targets: list[Any] = []
    sources: list[Any] = []
    for index, output in enumerate(_results(outputs, result)[: call.output_count()]):
        if not isinstance(output, torch.Tensor):
            raise ResultError(_not_an_array(result, "torch.Tensor", outputs))
        if type(output) is not torch.Tensor and _is_fake(output):
            raise ResultError(f"returned a FakeTensor for output {index}, which has no numbers")
        buffer = call.output(index, tuple(output.shape))
        if buffer is None:
            continue
        target = _tensor(torch, buffer)
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
    sources = [source.clone() if any(_meet(source, t) for t in targets) else source for source in sources]
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _is_fake(tensor: Any) -> bool:
    return bool(importlib.import_module("torch._subclasses.fake_tensor").is_fake(tensor))


def _meet(output: Any, target: Any) -> bool:
    """Tell whether a copy into an output's buffer may change what is yet to be read of a result."""
    try:
        storage = output.untyped_storage()
        start, stop = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
    except (NotImplementedError, RuntimeError):  # sparse, or a subclass without a storage of its own
        return False
    to = target.data_ptr()
    return bool(start < to + target.nbytes and to < stop)


def run_on_dlpack(function: Function, outputs: int, takes_out: bool, on_cuda: bool, call: Call) -> None:
    """Run a kernel on objects that speak DLPack; its results have to speak it, too.

    On a GPU the kernel may work on any stream: what ONNX Runtime launched has ended before it begins, what it
    wrote into ``out`` before it returns; its results are waited for as DLPack says, on ONNX Runtime's stream.
    Since it waits, it can't be captured in a CUDA graph.
    """
    inputs = call.inputs()
    if not on_cuda:
        _compute_on_dlpack(None, function, outputs, takes_out, call, inputs)
        return
    torch = _torch()
    stream = _stream(torch, call, [None if i is None else torch.from_dlpack(i) for i in inputs])
    with torch.cuda.stream(stream):
        if torch.cuda.is_current_stream_capturing():
            raise NotImplementedError(
                "a kernel on DLPack arrays may work on any stream, and so can't be captured in a CUDA graph; "
                'expected one with array="torch", which works on ONNX Runtime\'s'
            )
        stream.synchronize()
        _compute_on_dlpack(torch, function, outputs, takes_out, call, inputs)
    if takes_out:
        torch.cuda.synchronize(stream.device)


def _compute_on_dlpack(
    torch: Any, function: Function, outputs: int, takes_out: bool, call: Call, inputs: Sequence[Any]
) -> None:
    out = _out(_buffers(lambda buffer: buffer, call)) if takes_out else {}
    result = function(*inputs, **call.attributes(), **out)
    if takes_out:
        _refuse_result(result, out)
        return
    from_dlpack: Any = np.from_dlpack if torch is None else torch.from_dlpack
    for index, output in enumerate(_results(outputs, result)[: call.output_count()]):
        if isinstance(output, np.generic):  # what NumPy makes of a sum
            output = np.asarray(output)
        _refuse_mask(output, index)
        if not hasattr(output, "__dlpack__"):
            raise ResultError(_not_an_array(result, "an array with __dlpack__", outputs))
        source = from_dlpack(output)
        buffer = call.output(index, tuple(source.shape))
        if buffer is None:
            continue
        # By the buffer protocol: what NumPy 1 makes of DLPack is read-only.
        target = np.asarray(memoryview(buffer)) if torch is None else from_dlpack(buffer)
        if source.dtype != target.dtype:
            raise ResultError(f"returned {source.dtype} for output {index}; expected {target.dtype}")
        target[...] = source.clone() if torch is not None and _meet(source, target) else source


def _buffers(wrap: Callable[[Any], Any], call: Call) -> Sequence[Any]:
    """Return the buffers of the outputs as arrays, None for one that nobody wants."""
    there = call.output_count()  # a node may leave trailing ones out
    buffers = [call.output(i, shape) if i < there else None for i, shape in enumerate(call.output_shapes())]
    return [None if buffer is None else wrap(buffer) for buffer in buffers]


def _poisoned(torch: Any, buffer: Any) -> Any:
    """Return a tensor like a buffer with every bit set: NaN, -1."""
    if buffer is None:
        return None
    tensor = torch.empty_like(buffer)
    tensor.reshape(-1).view(torch.uint8).fill_(1 if tensor.dtype == torch.bool else 0xFF)
    return tensor


def _out(arrays: Sequence[Any]) -> dict[str, Any]:
    """Return the keyword argument that holds what a kernel is to fill: one array, or a tuple of them."""
    return {"out": arrays[0] if len(arrays) == 1 else tuple(arrays)}


def _refuse_result(result: object, out: Mapping[str, object]) -> None:
    if result is not None and result is not out["out"]:
        raise ResultError("returned a result though it is given out=; expected it to fill out, and None")


def _results(outputs: int, result: object) -> tuple[object, ...]:
    if outputs == 1:
        return (result,)
    if outputs == 0 and result is None:
        return ()
    if not isinstance(result, tuple) or len(result) != outputs:
        raise ResultError(_not_an_array(result, "array", outputs))
    return result


def _not_an_array(result: object, wanted: str, count: int) -> str:
    several = f"a tuple of {count}, each {wanted}: return {', '.join(string.ascii_lowercase[:count])}"
    expected = wanted if count == 1 else "None" if count == 0 else several
    got = "None" if result is None else f"a {type(result).__name__}"
    if isinstance(result, tuple):
        got = f"a tuple of {len(result)} ({', '.join(type(r).__name__ for r in result)})"
    hint = "; did the function forget its return?" if result is None else ""
    if isinstance(result, tuple) and count == 1:
        hint = "; several outputs are declared as -> tuple[A, B]"
    return f"returned {got}; expected {expected}{hint}"


def hides(array: Any) -> bool:
    """Tell whether some elements of an array stand for nothing (numpy.ma), which a tensor can't say."""
    return bool(np.ma.is_masked(array))


def _refuse_mask(item: object, index: int) -> None:
    if np.ma.isMaskedArray(item) and hides(item):
        raise ResultError(
            f"returned masked elements in output {index}, and a tensor has no mask; say what they are: "
            "return result.filled(value)"
        )


def reject(result: object, types: list[int]) -> None:
    """Raise what is wrong with a result that the bridge could not store."""
    items = result if isinstance(result, tuple) and len(types) != 1 else (result,)
    for index, (item, element_type) in enumerate(zip(items, types, strict=False)):
        _refuse_mask(item, index)
        if isinstance(item, np.ndarray | np.generic) and element_type:
            expected = from_onnx(element_type).numpy
            if item.dtype != expected:
                raise ResultError(
                    f"returned dtype {item.dtype} for output {index}; expected {expected}: nothing is cast "
                    f"for you, so return result.astype({expected.name!r}) if that is what you mean"
                )
    raise ResultError(_not_an_array(result, "a NumPy array", len(types)))
