"""Weights that PyTorch's newer exporter puts a normalisation into, in bfloat16 models."""

import ml_dtypes
import onnx_ir as ir

from .nodes import nodes_of

__all__ = ["narrow_weights"]

_FUSED = ("Conv", "ConvTranspose", "Gemm")


def narrow_weights(model: ir.Model) -> None:
    """Round weights in float32 to bfloat16 where a node takes them beside an input of that, in place.

    PyTorch's exporter computes them in float32 and leaves them so, in a file that no runtime takes.
    """
    for node in nodes_of(model):
        if not _is_in_bfloat16(node):
            continue
        for value in node.inputs[1:]:
            if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
                continue
            if all(_is_in_bfloat16(use.node) for use in value.uses()):
                rounded = value.const_value.numpy().astype(ml_dtypes.bfloat16)
                value.const_value = ir.tensor(rounded, name=value.name)
                value.dtype = ir.DataType.BFLOAT16


def _is_in_bfloat16(node: ir.Node) -> bool:
    first = node.inputs[0] if node.op_type in _FUSED and node.domain == "" else None
    return first is not None and first.dtype == ir.DataType.BFLOAT16
