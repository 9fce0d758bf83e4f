"""How far a run of a model of MyLinear and ReLU may be from the exact answer, for certain."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mylinear import MyLinear
from ort_ops.errors import ParityError
from ort_ops.parity import Arithmetic, dot_error

__all__ = ["error_bound"]

Array = NDArray[np.float64]


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
