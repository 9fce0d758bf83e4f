"""A session's inputs and outputs in buffers that stay where they are: NumPy arrays or torch tensors."""

import math
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from ._bridge import address
from .dtypes import DType, find_dtype, from_numpy
from .packing import PACKED
from .results import hides

__all__ = ["Binding"]


class _Buffer(NamedTuple):
    """Where an array's elements are."""

    dtype: DType
    shape: tuple[int, ...]
    pointer: int
    device: str
    device_id: int

    @property
    def place(self) -> tuple[int, tuple[int, ...]]:
        """Return what has to stay as it is while a session uses the buffer."""
        return self.pointer, self.shape

    def overlaps(self, other: "_Buffer") -> bool:
        """Tell whether bytes of this one are the other's, too, on one device."""
        if (self.device, self.device_id) != (other.device, other.device_id):
            return False
        ends = (self.pointer + self.nbytes, other.pointer + other.nbytes)
        return max(self.pointer, other.pointer) < min(ends)

    @property
    def nbytes(self) -> int:
        """Return how much memory the elements take."""
        return math.prod(self.shape) * self.dtype.numpy.itemsize

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Return what ``bind_input`` and ``bind_output`` take behind the name."""
        # ONNX Runtime takes NumPy's types by themselves from its first release on, others by ONNX's number.
        kind = self.dtype.numpy.type if self.dtype.numpy.isbuiltin == 1 else self.dtype.onnx
        # It takes no null, which torch's tensors without elements have, and reads nothing of those.
        return self.device, self.device_id, kind, tuple(self.shape), self.pointer or 1


class Binding:
    """Inputs and outputs of a session, bound once and used by every run; ``InferenceSession.bind`` makes it.

    inputs, outputs: the arrays by name. Write the next inputs into those, ``run``, and read the outputs,
    which the next run overwrites; no other array can take the place of one. A binding is for one thread at a
    time; another thread has one of its own.

    capture: gives the options of runs that are captured as one more CUDA graph; None where none are.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any] | None = None,
        capture: Callable[[], onnxruntime.RunOptions] | None = None,
    ) -> None:
        self._session, self._capture = session, capture
        self._run_options = None if capture is None else capture()
        self._binding = session.io_binding()
        self.inputs: Mapping[str, Any] = MappingProxyType(dict(inputs))
        ends = {end.name: end.type for end in session.get_inputs()}
        if ends.keys() != inputs.keys():
            raise ValueError(f"the inputs are {', '.join(inputs)}; the model's are {', '.join(ends)}")
        buffers = {name: self._checked(name, array, ends[name]) for name, array in inputs.items()}
        for name, buffer in buffers.items():
            self._binding.bind_input(name, *buffer.arguments)
        self._places = [(name, self.inputs[name], buffer.place) for name, buffer in buffers.items()]
        self._devices = {buffer.device_id for buffer in buffers.values() if buffer.device == "cuda"}
        outputs = self._allocate() if outputs is None else outputs
        self.outputs: Mapping[str, Any] = MappingProxyType(dict(outputs))
        there = {end.name: end.type for end in session.get_outputs()}
        if there.keys() != outputs.keys():
            raise ValueError(
                f"the outputs are {', '.join(outputs)}; the model's are {', '.join(there)}; expected one "
                "array for each, or none at all"
            )
        written: dict[str, _Buffer] = {}
        for name, declared in there.items():
            written[name] = buffer = self._checked(name, self.outputs[name], declared, written=True)
            _refuse_overlap(name, buffer, buffers, written)
            self._binding.bind_output(name, *buffer.arguments)
            self._places.append((name, self.outputs[name], buffer.place))
            self._devices |= {buffer.device_id} if buffer.device == "cuda" else set()

    def run(self) -> Mapping[str, Any]:
        """Run the model on what the inputs hold now; returns ``outputs``.

        Raises as ``InferenceSession.run`` does; where an output's shape depends on values, and is another
        than that of its array, too; ValueError where an array was resized or has other memory since.
        """
        for name, array, place in self._places:
            if _place(array) != place:
                raise ValueError(
                    f"{name!r} has other memory or another shape than when it was bound; bind anew"
                )
        try:
            self._run(self._run_options)
        except BaseException:
            # A graph whose capture a node broke off is there all the same, without that node and those behind
            # it, and later runs would replay it: they capture another.
            self._run_options = None if self._capture is None else self._capture()
            raise
        return self.outputs

    def _run(self, run_options: onnxruntime.RunOptions | None) -> None:
        for device in self._devices:
            # What was written into the inputs on torch's stream is there when ONNX Runtime reads it, and what
            # was read of the outputs was read before it writes them.
            sys.modules["torch"].cuda.current_stream(device).synchronize()
        self._session.run_with_iobinding(self._binding, run_options)

    def _checked(self, name: str, array: Any, declared: str, *, written: bool = False) -> _Buffer:
        buffer = _checked(name, array, declared, written=written)
        if self._capture is not None and buffer.device != "cuda":
            raise ValueError(
                f"{name!r} is on the {buffer.device.upper()}; a CUDA graph knows of no copies from there or "
                "to there: expected a torch tensor on CUDA"
            )
        return buffer

    def _allocate(self) -> dict[str, Any]:
        """Return arrays like the first input's, of the shapes that the outputs of one run have."""
        like = next(iter(self.inputs.values()), np.empty(0))
        ends = self._session.get_outputs()
        for end in ends:
            if not end.type.startswith("tensor(") or end.type == "tensor(string)":
                raise ValueError(f"output {end.name!r} is a {end.type}, which can't be bound to a buffer")
            self._binding.bind_output(end.name, "cpu")
        self._run(None)
        values = self._binding.get_outputs()
        return {
            end.name: _empty_like(like, tuple(value.shape()), find_dtype(end.type))
            for end, value in zip(ends, values, strict=True)
        }


def _checked(name: str, array: Any, declared: str, *, written: bool = False) -> _Buffer:
    """Return an array's buffer; raises ValueError where ONNX Runtime could not use it as it is."""
    if written and isinstance(array, np.ndarray) and not array.flags.writeable:
        raise ValueError(f"{name!r} is read-only; expected an array that a run may write into")
    buffer = _numpy_buffer(name, array) if isinstance(array, np.ndarray) else _torch_buffer(name, array)
    if buffer.dtype.onnx in PACKED:
        raise ValueError(f"{name!r} is {buffer.dtype.name}, of which ONNX Runtime has two elements in a byte")
    if declared != f"tensor({buffer.dtype.ort})" or buffer.dtype.ort == "string":
        raise ValueError(f"{name!r} is {buffer.dtype.name}; the model has a {declared}")
    return buffer


def _refuse_overlap(
    name: str, buffer: _Buffer, inputs: Mapping[str, _Buffer], outputs: Mapping[str, _Buffer]
) -> None:
    """Raise ValueError for an output in another's memory, or in a part of an input's."""
    for other, taken in (*inputs.items(), *outputs.items()):
        same = other in inputs and (taken.pointer, taken.nbytes) == (buffer.pointer, buffer.nbytes)
        if other != name and not same and taken.overlaps(buffer):
            raise ValueError(f"{name!r} lies in the memory of {other!r}; expected an array of its own")


def _numpy_buffer(name: str, array: Any) -> _Buffer:
    if hides(array):
        raise ValueError(f"{name!r} has masked elements, and a tensor has no mask; give x.filled(value)")
    if not array.flags.c_contiguous or not array.dtype.isnative:
        raise ValueError(f"{name!r} is not contiguous in C's order, in this machine's byte order")
    return _Buffer(from_numpy(array.dtype), array.shape, address(array), "cpu", 0)


def _place(array: Any) -> tuple[int, tuple[int, ...]]:
    """Return where an array's elements are, and its shape."""
    return (address(array) if isinstance(array, np.ndarray) else array.data_ptr()), array.shape


def _torch_buffer(name: str, tensor: Any) -> _Buffer:
    if not hasattr(tensor, "data_ptr"):
        raise ValueError(f"{name!r} is a {type(tensor).__name__}; expected a NumPy array or a torch tensor")
    if not tensor.is_contiguous():
        raise ValueError(f"{name!r} is not contiguous")
    if tensor.is_neg():
        raise ValueError(f"{name!r} is a view that negates what lies in memory; give x.resolve_neg()")
    dtype = find_dtype(str(tensor.dtype).removeprefix("torch."))
    device, (pointer, shape) = tensor.device, _place(tensor)
    if pointer == 0 and tensor.numel() != 0:
        raise ValueError(f"{name!r} is a {type(tensor).__name__} without memory; expected a torch.Tensor")
    return _Buffer(dtype, shape, pointer, device.type, device.index or 0)


def _empty_like(like: Any, shape: tuple[int, ...], dtype: DType) -> Any:
    if isinstance(like, np.ndarray):
        return np.empty(shape, dtype.numpy)
    if dtype.torch is None:
        raise ValueError(f"torch has no {dtype.name}; give the outputs as NumPy arrays")
    return like.new_empty(shape, dtype=getattr(sys.modules["torch"], dtype.torch))
