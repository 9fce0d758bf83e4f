"""How a kernel is given arrays, how its results are checked, and what becomes of its exceptions."""

import importlib
import itertools
import operator
import re
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from . import _bridge
from .dtypes import DTYPES, from_numpy, from_onnx
from .errors import KernelError, ResultError, SchemaError
from .schema import Dim, OpSchema, Signature, TensorType

__all__ = ["ArrayKind", "Kernel", "set_select_hook", "take_failure"]

ArrayKind = Literal["numpy", "torch", "dlpack"]

_CHARACTERISTIC = {"required": 0, "optional": 1, "variadic": 2}
_ATTRIBUTE_TYPE = {"int": 1, "list[int]": 2, "float": 3, "list[float]": 4, "str": 5, "bool": 100}


@dataclass(frozen=True)
class Kernel:
    """A Python function that computes an operator on some execution providers.

    ``function`` takes one array a input (None where an optional input is absent) and the attributes by
    keyword, and returns one array an output (a tuple where there are several). ``array`` says what kind
    of arrays: NumPy's, torch's on the provider's device, or objects that speak DLPack.
    """

    function: Callable[..., Any]
    schema: OpSchema
    providers: tuple[str, ...]
    array: ArrayKind

    @property
    def where(self) -> str:
        """Return the module and name of the function, for messages and to tell a redefinition."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def bridge_op(
        self, domain: str, name: str, provider: str, signature: Signature, infer: Callable[..., Any] | None
    ) -> _bridge.Op:
        """Return what ONNX Runtime is given for one name, provider and combination of types."""
        inputs = [_characteristic(f.optional, f.variadic) for f in self.schema.inputs]
        return _bridge.Op(
            domain=domain,
            name=name,
            provider=provider,
            kernel_name=self.where,
            inputs=list(zip(signature.inputs, inputs, strict=True)),
            # A node may leave out what it has no use for, but for the first.
            outputs=[(t, _characteristic(i > 0, False)) for i, t in enumerate(signature.outputs)],
            attributes=[(a.name, _ATTRIBUTE_TYPE[a.kind], a.required) for a in self.schema.attributes],
            function=self.function if self.array == "numpy" else self._run_call,
            infer=None if infer is None else _Infer(infer, self.schema, signature),
            by_call=self.array != "numpy",
        )

    def _run_call(self, call: _bridge.Call) -> None:
        if self.array == "torch":
            _run_on_torch(self, call)
        else:
            _run_on_dlpack(self, call)


def _characteristic(optional: bool, variadic: bool) -> int:
    return _CHARACTERISTIC["variadic" if variadic else "optional" if optional else "required"]


class _Infer:
    """Asks a kernel's ``infer`` function for output types and shapes, in the bridge's own terms."""

    def __init__(self, function: Callable[..., Any], schema: OpSchema, signature: Signature) -> None:
        self.function, self.schema, self.signature = function, schema, signature

    def __call__(
        self, inputs: list[tuple[int, tuple[int | str | None, ...] | None]]
    ) -> list[tuple[int, tuple[int | str, ...] | None]]:
        given = [TensorType(from_onnx(t).numpy, shape) if t else None for t, shape in inputs]
        missing = len(self.schema.inputs) - len(given)
        if missing > 0 and not any(f.variadic for f in self.schema.inputs):
            given += [None] * missing
        try:
            result = self.function(*given)
        except Exception:
            if any(t is not None and t.shape is None for t in given):
                return []  # of an unknown rank nothing need follow
            raise
        return [self._output(i, o) for i, o in enumerate(_as_tuple(result))]

    def _output(self, index: int, output: object) -> tuple[int, tuple[int | str, ...] | None]:
        if not isinstance(output, TensorType):
            raise SchemaError(
                f"{self.function.__qualname__}: an infer function returns ort_ops.TensorType "
                f"(a tuple of them for several outputs); got {type(output).__name__}"
            )
        declared = self.signature.outputs[index]
        stated = declared if output.dtype is None else from_numpy(output.dtype).onnx
        if declared and stated != declared:
            raise SchemaError(
                f"{self.function.__qualname__}: output {index} is {from_onnx(stated).name}; "
                f"the kernel declares {from_onnx(declared).name}"
            )
        return stated, None if output.shape is None else tuple(_dim(dim) for dim in output.shape)


_unknown = itertools.count(1)


def _dim(dim: Dim) -> int | str:
    """Return a dimension as ONNX Runtime takes it.

    From an operator it takes no unknown one (it reads -1, and its Concat refuses that); so each gets a
    symbol of its own, one a call, since dimensions of one symbol are taken to be equal.
    """
    if dim is None:
        return f"unknown_{next(_unknown)}"
    return dim if isinstance(dim, str) else operator.index(dim)


def _as_tuple(result: object) -> tuple[object, ...]:
    return result if isinstance(result, tuple) else (result,)


# --- torch and DLPack arrays ---------------------------------------------------------------------


def _run_on_torch(kernel: Kernel, call: _bridge.Call) -> None:
    """Run a kernel on torch tensors over ONNX Runtime's buffers, on its stream where there is one."""
    torch = importlib.import_module("torch")
    # A tensor that is made in inference mode has no version to tell a write by.
    with torch.inference_mode(False), torch.no_grad():
        _run_on_stream(torch, kernel, call)


def _run_on_stream(torch: Any, kernel: Kernel, call: _bridge.Call) -> None:
    inputs = [None if i is None else torch.from_dlpack(i) for i in call.inputs()]
    cuda = "CUDAExecutionProvider" in kernel.providers and call.stream()
    if not cuda:
        _compute_on_torch(torch, kernel, call, inputs)
        return
    # The inputs are on the provider's own device; a kernel without any runs on the current one.
    devices = [i.device for i in inputs if i is not None and i.is_cuda]
    device = devices[0] if devices else torch.device("cuda", torch.cuda.current_device())
    with torch.cuda.stream(torch.cuda.ExternalStream(cuda, device=device)):
        _compute_on_torch(torch, kernel, call, inputs)


def _compute_on_torch(torch: Any, kernel: Kernel, call: _bridge.Call, inputs: Sequence[Any]) -> None:
    result = kernel.function(*inputs, **call.attributes())
    for index, tensor in enumerate(inputs):
        if tensor is not None and tensor._version:
            raise ResultError(
                f"wrote into its input {index}, which may be a weight of the model; "
                "work on a copy (x.clone())"
            )
    for index, output in enumerate(_results(kernel, result)[: call.output_count()]):
        if not isinstance(output, torch.Tensor):
            raise ResultError(_not_an_array(result, "torch.Tensor", len(kernel.schema.outputs)))
        buffer = call.output(index, tuple(output.shape))
        if buffer is None:
            continue
        target = torch.from_dlpack(buffer)
        if output.dtype != target.dtype or output.device != target.device:
            raise ResultError(
                f"returned {output.dtype} on {output.device} for output {index}; "
                f"expected {target.dtype} on {target.device}"
            )
        target.copy_(output)


def _run_on_dlpack(kernel: Kernel, call: _bridge.Call) -> None:
    """Run a kernel on objects that speak DLPack; its results have to speak it, too."""
    torch = importlib.import_module("torch") if "CUDAExecutionProvider" in kernel.providers else None
    result = kernel.function(*call.inputs(), **call.attributes())
    from_dlpack: Any = np.from_dlpack if torch is None else torch.from_dlpack
    for index, output in enumerate(_results(kernel, result)[: call.output_count()]):
        if isinstance(output, np.generic):  # what NumPy makes of a sum
            output = np.asarray(output)
        if not hasattr(output, "__dlpack__"):
            raise ResultError(_not_an_array(result, "an array with __dlpack__", len(kernel.schema.outputs)))
        source = from_dlpack(output)
        buffer = call.output(index, tuple(source.shape))
        if buffer is None:
            continue
        target = from_dlpack(buffer)
        if source.dtype != target.dtype:
            raise ResultError(f"returned {source.dtype} for output {index}; expected {target.dtype}")
        target[...] = source


def _results(kernel: Kernel, result: object) -> tuple[object, ...]:
    declared = len(kernel.schema.outputs)
    if declared == 1:
        return (result,)
    if declared == 0 and result is None:
        return ()
    if not isinstance(result, tuple) or len(result) != declared:
        raise ResultError(_not_an_array(result, "array", declared))
    return result


# --- wrong results and exceptions ----------------------------------------------------------------


def _not_an_array(result: object, wanted: str, count: int) -> str:
    expected = wanted if count == 1 else "None" if count == 0 else f"a tuple of {count}: {wanted}"
    got = "None" if result is None else f"a {type(result).__name__}"
    if isinstance(result, tuple):
        got = f"a tuple of {len(result)} ({', '.join(type(r).__name__ for r in result)})"
    hint = "; did the function forget its return?" if result is None else ""
    return f"returned {got}; expected {expected}{hint}"


def _reject(result: object, types: list[int]) -> None:
    """Raise what is wrong with a result that the bridge could not store."""
    items = result if isinstance(result, tuple) and len(types) != 1 else (result,)
    for index, (item, element_type) in enumerate(zip(items, types, strict=False)):
        if isinstance(item, np.ndarray | np.generic) and element_type:
            expected = from_onnx(element_type).numpy
            if item.dtype != expected:
                raise ResultError(
                    f"returned dtype {item.dtype} for output {index}; expected {expected}: nothing is cast "
                    f"for you, so return result.astype({expected.name!r}) if that is what you mean"
                )
    raise ResultError(_not_an_array(result, "a NumPy array", len(types)))


_KEPT = 64
_failures: OrderedDict[int, tuple[BaseException, str]] = OrderedDict()
_numbers = itertools.count(1)
_MARK = re.compile(r" \(ort_ops failure (\d+)\)")


def _fail(error: BaseException, node: str, kernel_name: str, owned: bool) -> str:
    """Store a kernel's exception and return what ONNX Runtime is told.

    The frames are cleared: their locals are views of buffers that will be freed. ``owned`` says that an
    ``ort_ops.InferenceSession`` will raise the exception; plain onnxruntime can't, so the traceback goes
    into the text.
    """
    text = _plain("".join(traceback.format_exception(error)))
    for link in _chain(error):
        traceback.clear_frames(link.__traceback__)
    what = f"kernel {kernel_name} of node {node!r}" if node else kernel_name
    what = f"{what} failed: {_summary(error)}"
    number = next(_numbers)
    _failures[number] = error, what
    while len(_failures) > _KEPT:
        _failures.popitem(last=False)
    message = f"{what} (ort_ops failure {number})"
    return message if owned else f"{message}\n{text}"


def _summary(error: BaseException) -> str:
    try:
        said = str(error)
    except Exception:
        said = "<its text can't be made>"
    return _plain(said if isinstance(error, ResultError) else f"{type(error).__name__}: {said}")


def _plain(text: str) -> str:
    """Return text that goes through a C string whole, and has no mark of another failure in it."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return _MARK.sub("", text)


def _chain(error: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    pending = [error]
    while pending:
        link = pending.pop()
        if link is not None and not any(link is seen for seen in links):
            links.append(link)
            pending += [link.__cause__, link.__context__]
    return links


def _discard(text: str) -> None:
    """Deal with a view that outlived its run; ``text`` is that of the failure so far, or empty.

    A failed kernel's exception that holds such a view is thrown away for its text alone; where nothing
    has failed so far, the view is the failure.
    """
    advice = "kept a view of an input beyond its call, where its memory is freed; keep a copy (x.copy())"
    if not text:
        raise ResultError(advice)
    match = _MARK.search(text)
    if match and int(match[1]) in _failures:
        lost, what = _failures[int(match[1])]
        _failures[int(match[1])] = KernelError(f"{_summary(lost)} [the exception itself {advice}]"), what


def take_failure(text: str) -> tuple[BaseException, str] | None:
    """Return the exception that a message of ONNX Runtime's speaks of, and what it is told of it.

    None where the message is not of a kernel's failure, or of one so long ago that it is forgotten.
    """
    match = _MARK.search(text)
    return _failures.pop(int(match[1]), None) if match else None


def set_select_hook(
    select: Callable[[str | None, str | None], tuple[list[tuple[str, list[_bridge.Op]]], str]],
) -> None:
    """Hand the bridge the functions that it calls; ``select`` says which operators are registered."""
    dtypes: list[Any] = [None] * (max(dtype.onnx for dtype in DTYPES) + 1)
    for dtype in DTYPES:
        dtypes[dtype.onnx] = dtype.numpy
    _bridge.set_hooks(_fail, _discard, _reject, select, ResultError, dtypes)
