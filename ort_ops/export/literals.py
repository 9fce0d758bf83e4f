"""Python numbers in float64, of which PyTorch's newer exporter writes what float32 has."""

import functools
import math
from collections.abc import Callable, Container, Iterable, Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from .nodes import nodes_of

__all__ = ["put_right"]

# What its translations of log2, log10, deg2rad and rad2deg compute with.
_ITS_OWN = (math.log(2), math.log(10), math.pi / 180, 180 / math.pi)
_LARGEST = 2**20  # elements of a constant that is looked at
_FEW = 64  # elements of what a model holds, which may be such a number in float32 by itself


def put_right(model: ir.Model, program: ExportedProgram) -> None:
    """Have float64 constants of one number be the number that a program computes with, in place.

    What the model holds stays as it is, and so does a constant where that holds the same number in float32,
    or where several numbers are one in float32.
    """
    held = {**program.state_dict, **program.constants}
    constants = list(_constants(model, held))
    numbers = _numbers(program, held.values()) if constants else {}
    for tensor, put in constants:
        right = _right(tensor, numbers)
        if right is not None:
            put(right)


def _constants(
    model: ir.Model, held: Container[str]
) -> Iterator[tuple[ir.TensorProtocol, Callable[[ir.TensorProtocol], None]]]:
    """Give the float64 constants that the model doesn't hold, and what puts another in the place of each."""
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype == ir.DataType.DOUBLE and name not in held:
            yield tensor, functools.partial(setattr, value, "const_value")
    for node in nodes_of(model):
        attribute = node.attributes.get("value") if node.op_type == "Constant" else None
        if attribute is not None and attribute.as_tensor().dtype == ir.DataType.DOUBLE:
            yield attribute.as_tensor(), functools.partial(_put_into, node)


def _put_into(node: ir.Node, tensor: ir.TensorProtocol) -> None:
    node.attributes["value"] = ir.AttrTensor("value", tensor)


def _right(tensor: ir.TensorProtocol, numbers: dict[float, float]) -> ir.TensorProtocol | None:
    """Return a constant of the number that is meant by it; None for one that is as it should be."""
    if not 0 < tensor.size <= _LARGEST:
        return None
    array: NDArray[np.float64] = tensor.numpy()
    first = float(array.reshape(-1)[0])
    if first not in numbers or not bool((array == first).all()):
        return None
    return ir.tensor(np.full(array.shape, numbers[first]), name=tensor.name)


def _numbers(program: ExportedProgram, held: Iterable[object]) -> dict[float, float]:
    """Return the numbers in a program that float32 doesn't have, by what it has of them."""
    found: dict[float, set[float]] = {}
    for number in (*_floats(program), *_ITS_OWN):
        with np.errstate(over="ignore"):
            rounded = float(np.float32(number))
        if rounded != number:  # NaN is never one
            found.setdefault(rounded, set()).add(number)
    for tensor in held:
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel() <= _FEW:
            for element in tensor.detach().cpu().double().flatten().tolist():
                found.pop(element, None)
    return {rounded: number for rounded, (number, *others) in found.items() if not others}


def _floats(program: ExportedProgram) -> Iterator[float]:
    for module in program.graph_module.modules():
        graph = getattr(module, "graph", None)
        for node in graph.nodes if graph is not None else ():
            leaves = pytree.tree_leaves((node.args, node.kwargs))
            yield from (leaf for leaf in leaves if isinstance(leaf, float) and math.isfinite(leaf))
