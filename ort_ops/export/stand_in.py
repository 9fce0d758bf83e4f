"""A node that stands for a whole call, as the choice of its body sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ort_ops.schema import TensorType

from .arguments import Held
from .calls import Call, Size, Slot, to_array
from .symbolic import Whole

__all__ = ["StandIn"]

# Types whose repr tells all of a value.
_PLAIN = {
    *(type(None), bool, int, float, complex, str, bytes, Slot, Size),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
}


@dataclass(frozen=True)
class StandIn:
    """A node, its call, and what the file says of the node.

    ``inputs`` are the types and shapes of the node's inputs, None for one that is absent: dimensions are
    sizes, symbols, or None. ``attributes`` are the node's.
    """

    node: ir.Node = field(repr=False)
    call: Call = field(repr=False)
    whole: Whole = field(repr=False)
    inputs: tuple[TensorType | None, ...]
    attributes: Mapping[str, Any]

    def constants(self) -> tuple[Any, ...]:
        """Return what decides, besides the inputs, what the call computes: equal means the same."""
        leaves = tuple(_describe(leaf) for leaf in (*self.call.leaves, *self.whole.tensors))
        grads = self.call.differentiable if self.call.goes_by_gradients else ()
        return self.call.function, leaves, repr(self.call.structure), self.call.autocast, grads


def _describe(value: Any) -> Any:
    """Return something hashable that is equal for values that are the same, to the bit."""
    if isinstance(value, Held):
        attributes = sorted(value.attributes().items())
        return _describe(value.argument), tuple((name, _describe(each)) for name, each in attributes)
    if isinstance(value, Tensor):
        value = to_array(value)
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return value.dtype.str, value.shape, value.tobytes()
    if type(value) in _PLAIN:
        return type(value), repr(value)
    return id(value)  # an object's text may leave out what it computes with
