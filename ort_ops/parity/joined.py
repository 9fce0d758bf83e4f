"""Batch normalisations that an exporter put into the operation before them.

In evaluation mode one is a factor and a summand a channel, which go into the weight and the bias of a
convolution or a matrix product. These are rounded to the model's dtype: in 16 bits a fresh normalisation's
0.999995 is 1, and the weight in the file the model's own, bit by bit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from .folded import Folded

__all__ = ["Joined", "joinable"]

_ATEN = torch.ops.aten
# They are given input, weight, bias, mean, variance, training, momentum, epsilon.
_NORMS = frozenset({_ATEN.native_batch_norm.default, _ATEN.cudnn_batch_norm.default})
_TAKES = frozenset({"Conv", "ConvTranspose", "Gemm"})  # a weight and a bias, second and third
_BY_CHANNEL = frozenset({"BatchNormalization", "Mul", "Div", "Add", "Sub"})
_LAST_PLACES = 2  # two libraries add a number to 16 bits, and round it to them, in either order


def joinable(graph: ir.Graph) -> set[str]:
    """Return the weights and biases that a normalisation may have gone into, since none comes after them."""
    return {
        name
        for name, value in graph.initializers.items()
        if any(use.idx in (1, 2) and use.node.op_type in _TAKES for use in value.uses())
        and not any(_is_normalised(graph, use.node) for use in value.uses())
    }


def _is_normalised(graph: ir.Graph, node: ir.Node) -> bool:
    return any(
        use.node.op_type in _BY_CHANNEL
        and any(each is not None and each.name in graph.initializers for each in use.node.inputs)
        for output in node.outputs
        for use in output.uses()
    )


@dataclass(frozen=True)
class _Product:
    """A convolution or a matrix product: its weight, the axis of channels in it, and itself with others."""

    weight: Tensor
    bias: Tensor | None
    channels: int
    again: Callable[[Tensor, Tensor], Tensor]


class Joined:
    """Computes a normalisation as the file does where it holds the weight of both."""

    def __init__(self, folded: Folded) -> None:
        self._folded = folded
        self._products: Any = WeakIdKeyDictionary()

    def see(self, func: Any, args: Sequence[Any], result: Any) -> None:
        """Remember what a normalisation may have gone into."""
        found = _product(func, args)
        if found is not None:
            self._products[result] = found

    def find(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], Tensor] | None:
        """Return what computes a normalisation with the file's weight; None where the file has none.

        It is to be called where the results of operations are taken from the file, as the bias is.
        """
        product = self._products.get(args[0]) if func in _NORMS and not kwargs else None
        if product is None or args[5]:
            return None
        weight = self._weight(product, args)
        return None if weight is None else lambda: product.again(weight, _bias(product, args))

    def _weight(self, product: _Product, args: Sequence[Any]) -> Tensor | None:
        """Return the file's constant that is the weight times a factor a channel, in either layout."""
        shape = [1] * product.weight.ndim
        shape[product.channels] = -1

        def by_quotient(weight: Tensor, gamma: Tensor | None, variance: Tensor) -> Tensor:
            root = torch.sqrt(variance + args[-1])
            return weight * ((1 if gamma is None else gamma) / root).reshape(shape)

        def by_inverse(weight: Tensor, gamma: Tensor | None, variance: Tensor) -> Tensor:
            inverse = torch.rsqrt(variance + args[-1])
            return weight * (inverse if gamma is None else gamma * inverse).reshape(shape)

        given = (product.weight, args[1], args[4])
        for function in (by_quotient, by_inverse):
            found = self._folded.find(function, given, _LAST_PLACES)
            if found is None and len(shape) == 2:
                turned = self._folded.find(lambda *each: function(*each).t(), given, _LAST_PLACES)  # noqa: B023, called at once
                found = None if turned is None else turned.t()
            if found is not None:
                return found
        return None


def _bias(product: _Product, args: Sequence[Any]) -> Tensor:
    _, gamma, beta, mean, variance, *_, epsilon = args
    moved = -mean if product.bias is None else product.bias - mean
    scaled = moved * torch.rsqrt(variance + epsilon) * (1 if gamma is None else gamma)
    summand: Tensor = scaled if beta is None else scaled + beta
    return summand


def _product(func: Any, args: Sequence[Any]) -> _Product | None:
    """Return what an operation is that a normalisation can go into."""
    if func is _ATEN.convolution.default:
        x, weight, bias, *how = args
        transposed, groups = how[3], how[5]
        if transposed and groups > 1:  # its channels are on two axes
            return None
        return _Product(weight, bias, int(transposed), lambda w, b: func(x, w, b, *how))
    if func is _ATEN.addmm.default and len(args) == 3:
        bias, x, weight = args
        return _Product(weight, bias, 1, lambda w, b: func(b, x, w))
    if func is _ATEN.mm.default:
        x, weight = args
        return _Product(weight, None, 1, lambda w, b: torch.addmm(b, x, w))
    return None
