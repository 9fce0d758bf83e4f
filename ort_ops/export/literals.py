"""Numbers and tables of them in float64, of which PyTorch's newer exporter writes what float32 has."""

import functools
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
_SAME = 1e-13  # of an element's size, by which libraries differ
_WAYS = 3  # in which a table is computed
_RANGES = ("arange", "linspace", "logspace")


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
    numbers, tables = _numbers(program, held.values()), _tables(program, held)
    for tensor, put in constants:
        array: NDArray[np.float64] = tensor.numpy()
        flat = array.reshape(-1)
        alike = tables.get(flat.size, ())
        if any(np.array_equal(flat, table.right) for table in alike):
            continue  # as the program has it: what it computes in float32 itself, too
        if bool((flat == flat[0]).all()) and float(flat[0]) in numbers:
            right = np.full(flat.shape, numbers[float(flat[0])])
        else:
            means = {table.right.tobytes(): table.right for table in alike if table.explains(flat)}
            if len(means) != 1:
                continue
            (right,) = means.values()
        put(ir.tensor(right.reshape(array.shape), name=tensor.name))
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


def _numbers(program: ExportedProgram, held: Iterable[object]) -> dict[float, float]:
    """Return the numbers in a program that float32 doesn't have, by what it has of them."""
    found: dict[float, set[float]] = {}
    for number in (*_floats(program), *_ITS_OWN):
        found.setdefault(_to_float32(number), set()).add(number)
    for tensor in held:
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel() <= _FEW:
            for element in tensor.detach().cpu().double().flatten().tolist():
                found.pop(element, None)
    single = ((rounded, number) for rounded, (number, *others) in found.items() if not others)
    return {rounded: number for rounded, number in single if number != rounded}


def _floats(program: ExportedProgram) -> Iterator[float]:
    for module in program.graph_module.modules():
        graph = getattr(module, "graph", None)
        for node in graph.nodes if graph is not None else ():
            leaves = pytree.tree_leaves((node.args, node.kwargs))
            yield from (leaf for leaf in leaves if isinstance(leaf, float) and math.isfinite(leaf))


@dataclass(frozen=True)
class _Table:
    """What a program computes of numbers and what it holds, and what that is with float32's numbers."""

    right: NDArray[np.float64]
    rounded: tuple[NDArray[np.float64], ...] = ()

    def explains(self, flat: NDArray[np.float64]) -> bool:
        """Tell whether this is what was to be written."""
        limits = ((each, _SAME * (np.abs(each) + _SAME * np.abs(each).max())) for each in self.rounded)
        return any(bool((np.abs(flat - each) <= limit).all()) for each, limit in limits)


def _tables(program: ExportedProgram, held: Mapping[str, object]) -> dict[int, list[_Table]]:
    """Return what a program holds and what it computes without its inputs, by the number of elements."""
    found: dict[int, list[_Table]] = {}
    for right, *rounded in _computed(program, held):
        if right.is_floating_point() and _is_small(right):
            table = _Table(_flat(right), tuple(map(_flat, rounded)))
            found.setdefault(table.right.size, []).append(table)
    return found


def _computed(program: ExportedProgram, held: Mapping[str, object]) -> Iterable[Sequence[Tensor]]:
    """Return what a program holds, and what it computes without its inputs.

    That also with its numbers rounded to float32, and where it makes ranges also with these in float32.
    """
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    values: dict[torch.fx.Node, list[Tensor]] = {}
    for node in program.graph.nodes:
        operator, expected = node.target, node.meta.get("val")
        if node.op == "placeholder" and isinstance(given := held.get(names.get(node.name, "")), Tensor):
            values[node] = [given.detach()] * _WAYS
        elif (
            isinstance(operator, torch._ops.OpOverload)
            and operator.namespace == "aten"  # no code of anybody's
            and torch.Tag.nondeterministic_seeded not in operator.tags
            and isinstance(expected, Tensor)
            and _is_small(expected)
            and all(each in values for each in node.all_input_nodes)
        ):
            values[node] = [_compute(node, way, values) for way in range(_WAYS)]
    return values.values()


def _compute(node: torch.fx.Node, way: int, values: Mapping[torch.fx.Node, Sequence[Tensor]]) -> Tensor:
    """Run a node on the values of one way: exact numbers, float32's, or these in ranges of float32."""
    args, kwargs = pytree.tree_map_only(
        torch.fx.Node, lambda each: values[each][way], (node.args, node.kwargs)
    )
    if way:
        args, kwargs = pytree.tree_map_only(float, _to_float32, (args, kwargs))
    operator: Any = node.target
    if (
        way == _WAYS - 1
        and kwargs.get("dtype") is torch.float64
        and operator.overloadpacket.__name__ in _RANGES
    ):
        made: Tensor = operator(*args, **{**kwargs, "dtype": torch.float32}).double()
        return made
    result: Tensor = operator(*args, **kwargs)
    return result


def _to_float32(number: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def _flat(tensor: Tensor) -> NDArray[np.float64]:
    flat: NDArray[np.float64] = tensor.detach().cpu().double().reshape(-1).numpy()
    return flat


def _is_small(tensor: Tensor) -> bool:
    return all(isinstance(size, int) for size in tensor.shape) and tensor.numel() <= _LARGEST
