"""A forward exported by itself, all its dimensions free, and the sizes for which alone that holds."""

import io
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor

from .deciding import decided_dims
from .literals import put_right

__all__ = ["Dims", "Pair", "write_alone"]

Dims = frozenset[tuple[int, int]]
"""Inputs and axes."""
Pair = tuple[ModelProto, ModelProto]
"""A model without what is superfluous, and with it."""
_LOWEST_DYNAMO = 18  # the opset from which the newer exporter writes
_HIGHEST_TORCHSCRIPT = 20  # that up to which the older one does
# What the older exporter says where Python code looks at a traced size or value.
_LOOKS = ("Converting a tensor to a Python", "Using len to get tensor shape", "Iterating over a tensor")


def write_alone(
    model: torch.nn.Module, examples: tuple[Tensor, ...], names: list[str], opset: int, static: Dims
) -> tuple[Pair, Dims]:
    """Export a model by the exporter that writes for an opset, with all dimensions free but the static ones.

    Also returns those of the free ones for whose size alone it holds.
    """
    if opset < _LOWEST_DYNAMO:
        return _by_torchscript(model, examples, names, opset, static)
    try:
        return _by_dynamo(model, examples, names, opset, static)
    except Exception as error:
        if opset > _HIGHEST_TORCHSCRIPT or not _lacks_operator(error):
            raise
        try:  # which may have what the newer one has no operator for
            return _by_torchscript(model, examples, names, opset, static, may_look=False)
        except Exception:
            raise error from error.__cause__


def _lacks_operator(error: BaseException | None) -> bool:
    """Tell whether the newer exporter failed over an operation that it has no translation of."""
    while error is not None:
        if type(error).__name__ in ("DispatchError", "UnsupportedOperatorException"):
            return True
        error = error.__cause__
    return False


def _by_dynamo(
    model: torch.nn.Module,
    examples: tuple[Tensor, ...],
    names: list[str],
    opset: int,
    static: Dims,
) -> tuple[Pair, Dims]:
    """Export with all other dimensions free; also returns those of which it holds for some sizes only."""
    auto = torch.export.Dim.AUTO
    free = [
        {axis: auto for axis, size in enumerate(t.shape) if size > 1 and (i, axis) not in static}
        for i, t in enumerate(examples)
    ]
    program: Any = torch.onnx.export(
        model,
        examples,
        dynamo=True,
        dynamic_shapes=tuple(free) if free else None,
        input_names=names,
        opset_version=opset,
        optimize=False,
        verbose=False,
    )
    captured = program.exported_program
    plain = program.model_proto
    program.optimize()
    wrong = put_right(program.model, captured)
    written = program.model_proto
    if wrong:
        plain = written  # whose numbers are in forms that can't be put right
    given = [
        node.meta["val"]
        for node in captured.graph.nodes
        if node.op == "placeholder" and node.name in captured.graph_signature.user_inputs
    ]
    fixed = {
        (i, axis)
        for i, value in enumerate(given)
        for axis, size in enumerate(value.shape)
        if axis in free[i] and not _is_free(size, captured.range_constraints)
    }
    return (written, plain), frozenset(
        fixed | decided_dims(model, written, given, examples, captured.range_constraints)
    )


def _is_free(size: Any, ranges: Mapping[Any, Any]) -> bool:
    """Tell whether a dimension may have several sizes in a captured program."""
    if not isinstance(size, torch.SymInt) or size.node.expr.is_number:  # as torch 2.9 has what was fixed
        return False
    known = ranges.get(size.node.expr)
    return known is None or bool(known.lower < known.upper)


def _by_torchscript(
    model: torch.nn.Module,
    examples: tuple[Tensor, ...],
    names: list[str],
    opset: int,
    static: Dims,
    *,
    may_look: bool = True,
) -> tuple[Pair, Dims]:
    """Export with all other dimensions free; also returns those whose size is in what was written.

    The exporter doesn't say which sizes it took for constants. Its warnings tell where Python code looked at
    a traced size or value, and what it writes for other sizes tells the rest.

    Raises ValueError where code looks at one though it may not.
    """
    free = {(i, axis) for i, t in enumerate(examples) for axis in range(t.dim())} - static
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        written = _trace(model, examples, names, opset, free)
    looked = any(text in str(warning.message) for warning in caught for text in _LOOKS)
    if looked and not may_look:
        raise ValueError("forward looks at a traced size or value")
    doubled = [
        tuple(2 * s if s > 1 and (i, axis) in free else s for axis, s in enumerate(t.shape))
        for i, t in enumerate(examples)
    ]
    same = not looked and _is_same(written, model, doubled, names, free)
    return (written, written), frozenset() if same else frozenset(free)


def _is_same(
    written: ModelProto,
    model: torch.nn.Module,
    shapes: Sequence[tuple[int, ...]],
    names: list[str],
    free: Collection[tuple[int, int]],
) -> bool:
    """Tell whether the exporter writes the same for inputs of other shapes."""
    opset = next(entry.version for entry in written.opset_import if not entry.domain)
    types = [onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in written.graph.input]
    others = tuple(
        torch.zeros(shape).to(getattr(torch, dtype.name)) for shape, dtype in zip(shapes, types, strict=True)
    )
    try:
        again = _trace(model, others, names, opset, free)
    except Exception:  # a constant of the forward's has one size
        return False
    return list(again.graph.node) == list(written.graph.node) and list(again.graph.initializer) == list(
        written.graph.initializer
    )


def _trace(
    model: torch.nn.Module,
    examples: tuple[Tensor, ...],
    names: list[str],
    opset: int,
    free: Collection[tuple[int, int]],
) -> ModelProto:
    file = io.BytesIO()
    axes: dict[str, dict[int, str]] = {}
    for i, axis in free:
        axes.setdefault(names[i], {})[axis] = f"{names[i]}_{axis}"
    torch.onnx.export(
        model,
        examples,
        file,  # type: ignore[arg-type]  # which it takes
        dynamo=False,
        dynamic_axes=axes,
        input_names=names,
        opset_version=opset,
        verbose=False,
    )
    return onnx.load_from_string(file.getvalue())
