"""Kernels that are given objects that speak DLPack, over ONNX Runtime's buffers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._bridge import Call
from .errors import ResultError
from .results import buffers_of, not_an_array, out_of, refuse_mask, refuse_result, results_of

__all__ = ["Library", "run_on_dlpack"]


@dataclass(frozen=True)
class Library:
    """How a library of arrays reads what speaks DLPack, takes a buffer that is to be filled, and copies.

    apart: returns a result that shares no memory with any of some buffers.
    """

    read: Callable[[Any], Any]
    target_of: Callable[[Any], Any]
    apart: Callable[[Any, Sequence[Any]], Any]
    copy: Callable[[Any, Any], object]


def _apart(source: NDArray[Any], targets: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return source.copy() if any(np.may_share_memory(source, target) for target in targets) else source


# By the buffer protocol, since what NumPy 1 makes of DLPack is read-only.
_NUMPY = Library(np.from_dlpack, lambda buffer: np.asarray(memoryview(buffer)), _apart, np.copyto)


def run_on_dlpack(
    function: Callable[..., Any],
    outputs: int,
    takes_out: bool,
    call: Call,
    inputs: Sequence[Any],
    library: Library = _NUMPY,
) -> None:
    """Run a kernel on objects that speak DLPack; its results have to speak it, too.

    ``outputs`` is how many the operator has; a kernel that ``takes_out`` fills their buffers by itself.
    ``inputs`` are the call's, ``library`` stores results.
    """
    out = out_of(buffers_of(lambda buffer: buffer, call)) if takes_out else {}
    result = function(*inputs, **call.attributes(), **out)
    if takes_out:
        refuse_result(result, out)
        return
    sources, targets = [], []
    for index, output in enumerate(results_of(outputs, result)[: call.output_count()]):
        if isinstance(output, np.generic):  # what NumPy makes of a sum
            output = np.asarray(output)
        refuse_mask(output, index)
        if not hasattr(output, "__dlpack__"):
            raise ResultError(not_an_array(result, "an array with __dlpack__", outputs))
        source = library.read(output)
        buffer = call.output(index, tuple(source.shape))
        if buffer is None:
            continue
        target = library.target_of(buffer)
        if source.dtype != target.dtype:
            raise ResultError(f"returned {source.dtype} for output {index}; expected {target.dtype}")
        sources.append(source)
        targets.append(target)
    # An output may be bound to the memory of an input, of which a result may be a view.
    for target, source in zip(targets, [library.apart(source, targets) for source in sources], strict=True):
        library.copy(target, source)
