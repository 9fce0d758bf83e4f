"""How large a model's weights are, and what fits into one file."""

import onnx_ir as ir

__all__ = ["MAX_FILE", "nbytes"]

MAX_FILE = 2**31 - 2**24
"""Bytes of weights that one file holds: protobuf's limit for a message, less 16 MiB for the graph itself."""


def nbytes(model: ir.Model) -> int:
    """Return the bytes that the model's weights take."""
    weights = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in weights if tensor is not None)
