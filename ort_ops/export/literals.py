"""Numbers and tables of them in float64, of which PyTorch's newer exporter writes what float32 has."""

import functools
import math
from collections.abc import Callable, Container, Iterable, Iterator

import numpy as np
import onnx_ir as ir
import torch
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
_SAME, _NEAR = (
    1e-13,
    1e-5,
)  # shares of its largest element by which a table is right, and one of float32's numbers


def put_right(model: ir.Model, program: ExportedProgram) -> bool:
    """Have float64 constants be what a program computes with, in place: its numbers, and tables made of them.

    What the model holds stays as it is, and so does a constant of one number where the model holds the same
    number in float32, and any constant that may be several of the program's. Tells whether any was wrong.
    """
    held = {**program.state_dict, **program.constants}
    constants = [each for each in _constants(model, held) if 0 < each[0].size <= _LARGEST]
    if not constants:
        return False
    wrong = False
    numbers, tables = _numbers(program, held.values()), _tables(program, held.values())
    for tensor, put in constants:
        array: NDArray[np.float64] = tensor.numpy()
        right = _number(array, numbers) if bool((array == array.flat[0]).all()) else _table(array, tables)
        if right is not None:
            put(ir.tensor(right, name=tensor.name))
            wrong = True
    return wrong


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


def _number(array: NDArray[np.float64], numbers: dict[float, float]) -> NDArray[np.float64] | None:
    """Return what a constant of one number should be; None for one that is as it should be."""
    first = float(array.flat[0])
    return np.full(array.shape, numbers[first]) if first in numbers else None


def _table(
    array: NDArray[np.float64], tables: dict[int, list[NDArray[np.float64]]]
) -> NDArray[np.float64] | None:
    """Return the one table that a constant is in float32's numbers; None for one that is as it should be."""
    flat = array.reshape(-1)
    near = []
    for table in tables.get(flat.size, ()):
        distance = np.abs(flat - table).max() / np.abs(table).max(initial=np.finfo(np.float64).tiny)
        if distance <= _SAME:
            return None
        if distance <= _NEAR:  # NaN isn't
            near.append(table)
    return near[0].reshape(array.shape) if len(near) == 1 else None


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


def _tables(program: ExportedProgram, held: Iterable[object]) -> dict[int, list[NDArray[np.float64]]]:
    """Return what a program holds, or computes of nothing but numbers, flat, by the number of elements."""
    found: dict[int, list[NDArray[np.float64]]] = {}
    for tensor in (*held, *_computed(program)):
        if isinstance(tensor, Tensor) and tensor.dtype == torch.float64 and _is_small(tensor):
            flat = tensor.detach().cpu().reshape(-1).numpy()
            tables = found.setdefault(flat.size, [])
            if not any(np.array_equal(flat, other) for other in tables):
                tables.append(flat)
    return found


def _computed(program: ExportedProgram) -> Iterable[Tensor]:
    """Return what a program computes of nothing but its own numbers."""
    values: dict[torch.fx.Node, Tensor] = {}
    for node in program.graph.nodes:
        operator, expected = node.target, node.meta.get("val")
        if (
            isinstance(operator, torch._ops.OpOverload)
            and torch.Tag.nondeterministic_seeded not in operator.tags
            and isinstance(expected, Tensor)
            and _is_small(expected)
            and all(each in values for each in node.all_input_nodes)
        ):
            args, kwargs = pytree.tree_map_only(torch.fx.Node, values.__getitem__, (node.args, node.kwargs))
            values[node] = operator(*args, **kwargs)
    return values.values()


def _is_small(tensor: Tensor) -> bool:
    return all(isinstance(size, int) for size in tensor.shape) and tensor.numel() <= _LARGEST
