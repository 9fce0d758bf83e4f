"""From the operator ``ort_ops::call`` in a captured program to the nodes that ``symbolic`` writes for it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import evaluator
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from .calls import ELEMENT_TYPES, find_call
from .record import Record
from .symbolic import Written, write

__all__ = ["translation"]

_TORCH = {number: dtype for dtype, number in ELEMENT_TYPES.items()}


def translation(record: Record) -> Callable[..., Sequence[ir.Value]]:
    """Return the function that torch.onnx.export's custom_translation_table wants for the operator.

    What it writes is noted in ``record``.
    """

    def translate(
        tensors: Sequence[ir.Value], sizes: Sequence[int | ir.Value], key: str
    ) -> Sequence[ir.Value]:
        call = find_call(key)
        recorder: Any = evaluator.default()
        constants, literals = _constants(tensors, record.program)
        written = write(
            call,
            [_torch_type(value) for value in tensors],
            constants,
            literals,
            [size if isinstance(size, int) else None for size in sizes],
            recorder.opset.version,
        )
        record.note(call, written.whole)
        given = [*tensors, *(size for size in sizes if not isinstance(size, int))]
        nodes, outputs = _to_ir(written, given)
        recorder.nodes.extend(nodes)
        return outputs

    return translate


def _constants(
    tensors: Sequence[ir.Value], program: ExportedProgram | None
) -> tuple[dict[int, Tensor], set[int]]:
    """Return the values that are known: buffers, and constants that the model makes; the latter's indices."""
    if program is None:
        return {}, set()
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
    found, literals = {}, set()
    for index, value in enumerate(tensors):
        spec = specs.get(_source(value).name or "")
        if spec is None or spec.target is None:
            continue
        if spec.kind is InputKind.CONSTANT_TENSOR:
            found[index] = program.constants[spec.target]
            literals.add(index)
        elif spec.kind is InputKind.BUFFER:
            buffers = program.state_dict if spec.persistent else program.constants
            found[index] = buffers[spec.target]
    return {i: tensor.detach().cpu() for i, tensor in found.items()}, literals


def _source(value: ir.Value) -> ir.Value:
    """Return the value that this one is a copy of."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _torch_type(value: ir.Value) -> Any:
    kind: Any = torch._C.TensorType.get()
    if value.dtype is not None:
        kind = kind.with_dtype(_TORCH[int(value.dtype)])
    if value.shape is not None:
        kind = kind.with_sizes([size if isinstance(size, int) else None for size in value.shape])
    return kind


def _to_ir(written: Written, given: Sequence[ir.Value]) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the nodes with the given values in the place of the graph's inputs, and the results."""
    graph: Any = ir.from_proto(written.model.graph)
    actual = dict(zip(graph.inputs, given, strict=True))
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for index, value in enumerate(node.inputs):
            if value in actual:
                node.replace_input_with(index, actual[value])
        for value in node.outputs:
            _set_type(value, written.types)
    outputs = list(graph.outputs)
    graph.outputs.clear()
    nodes = list(graph)
    graph.remove(nodes)
    for node in nodes:
        node.name = None  # the exporter names what has no name
        for value in node.outputs:
            value.name = None
    return nodes, outputs


def _set_type(value: ir.Value, types: Mapping[str, Any]) -> None:
    """Keep the type that ``symbolic`` or the exporter's inference gave a value inside."""
    kind = types.get(value.name or "")
    if not isinstance(kind, torch._C.TensorType) or value.dtype is not None or kind.dtype() is None:
        return
    if kind.dtype() in ELEMENT_TYPES:
        value.dtype = ir.DataType(ELEMENT_TYPES[kind.dtype()])
    sizes = kind.varyingSizes()
    if sizes is not None:
        value.shape = ir.Shape(sizes)
