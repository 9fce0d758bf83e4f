"""Constants that a file has once and a model perhaps twice: as a weight, and as a number in its code.

A parameter 0.1 is its float32, and ``x * 0.1`` in float64 is not. An exporter may write one for both.
"""

from collections.abc import Iterable
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from .evaluator import FEW
from .graphs import read_tensor

__all__ = ["tell_uses_apart"]


def tell_uses_apart(graph: ir.Graph, weights: Iterable[NDArray[Any]]) -> set[str]:
    """Give each use of a small constant that holds what some weight holds a constant of its own.

    Returns the names of all of these: any may be read as the weight is, or as what was meant by a number.
    """
    held = {_bits(weight) for weight in weights if weight.size <= FEW}
    found: set[str] = set()
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.size > FEW or _bits(read_tensor(tensor)) not in held:
            continue
        found.add(name)
        for number, use in enumerate(list(value.uses())[1:], 2):
            own = f"{name}, use {number}"
            copy = ir.Value(name=own, type=value.type, shape=value.shape)
            copy.const_value = ir.tensor(read_tensor(tensor), name=own)
            graph.register_initializer(copy)
            use.node.replace_input_with(use.idx, copy)
            found.add(own)
    return found


def _bits(array: NDArray[Any]) -> tuple[str, bytes]:
    return array.dtype.name, array.tobytes()
