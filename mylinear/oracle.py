"""What the exact answer is, and how far from it an answer may be.

A file is evaluated in float64 by onnx's own reference evaluator, in which MYLINEAR is its definition. A model
of MyLinear and ReLU is followed layer by layer for the bound of its rounding errors.
"""

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import nn

from ort_ops.errors import ParityError
from ort_ops.parity import Arithmetic, dot_error

from .bodies import OP_TYPE
from .module import MyLinear

__all__ = ["error_bound", "evaluate_file", "terms_of"]

Array = NDArray[np.float64]


def evaluate_file(model: onnx.ModelProto, x: Array) -> Array:
    """Return what a file computes for x, every weight and every step in float64."""
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    del exact.functions[:]  # MYLINEAR by its definition, not by the body that stands in for it
    del exact.graph.value_info[:]
    for end in (*exact.graph.input, *exact.graph.output):
        end.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for index, weights in enumerate(exact.graph.initializer):
        values = onnx.numpy_helper.to_array(weights).astype(np.float64)
        exact.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    domains = {node.domain for node in exact.graph.node if node.op_type == OP_TYPE}
    evaluator = ReferenceEvaluator(exact, new_ops=[_definition(domain) for domain in domains])
    results: Any = evaluator.run(None, {exact.graph.input[0].name: x})
    return np.asarray(results[0])


def _definition(domain: str) -> type[OpRun]:
    """Return MYLINEAR for onnx's reference evaluator."""

    def _run(self: OpRun, x: Array, weight: Array, bias: Array | None = None) -> tuple[Array]:
        return (x @ weight.T if bias is None else x @ weight.T + bias,)

    return type(OP_TYPE, (OpRun,), {"op_domain": domain, "_run": _run})


def error_bound(model: nn.Module, x: Array, arithmetic: Arithmetic) -> Array:
    """Return how far, element by element, a correct run of the model may be from the exact answer.

    x: the input, exactly. What a layer gets wrong is carried through the weights of the next. Raises
    ParityError for a model with other layers than MyLinear and ReLU.
    """
    value, error = x, np.zeros_like(x)
    for layer in _layers(model):
        if isinstance(layer, nn.ReLU):
            value = np.maximum(value, 0)  # never widens the error: |max(a, 0) - max(b, 0)| <= |a - b|
            continue
        weight, bias = _double(layer.weight), 0.0 if layer.bias is None else _double(layer.bias)
        magnitude = (np.abs(value) + error) @ np.abs(weight.T) + np.abs(bias)
        error = error @ np.abs(weight.T) + dot_error(weight.shape[1] + 1, magnitude, arithmetic)
        value = value @ weight.T + bias
    return error


def terms_of(model: nn.Module) -> list[int]:
    """Return how many terms each MyLinear adds up for one element, its bias among them."""
    return [layer.in_features + 1 for layer in _layers(model) if isinstance(layer, MyLinear)]


def _layers(model: nn.Module) -> list[MyLinear | nn.ReLU]:
    known: list[MyLinear | nn.ReLU] = []
    for layer in model if type(model) is nn.Sequential else [model]:
        if not isinstance(layer, MyLinear | nn.ReLU):
            raise ParityError(
                f"the rounding errors of a {type(layer).__name__} are not known here; "
                "expected a MyLinear, or a Sequential of MyLinear and ReLU"
            )
        known.append(layer)
    return known


def _double(parameter: torch.Tensor) -> Array:
    array: Array = parameter.detach().cpu().double().numpy()
    return array
