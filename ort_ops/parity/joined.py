"""Batch normalisations that an exporter put into the operation before them.

In evaluation mode one is a factor and a summand a channel, which go into the weight and the bias of a
convolution or a matrix product. These are rounded to the model's dtype: in 16 bits a fresh normalisation's
0.999995 is 1, and the weight in the file the model's own, bit by bit.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from .folded import Folded

__all__ = ["NORMS", "Joined", "joinable"]

_ATEN = torch.ops.aten
NORMS = frozenset({_ATEN.native_batch_norm.default, _ATEN.cudnn_batch_norm.default})
"""Normalisations, which are given input, weight, bias, mean, variance, training, momentum and epsilon."""

# They are given a weight and a bias, second and third.
_TAKES = frozenset({"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm"})
_LAST_PLACES = 2  # two libraries add a number to 16 bits, and round it to them, in either order


def joinable(graph: ir.Graph) -> set[str]:
    """Return the weights and biases that a normalisation may have gone into, since none comes after them."""
    found = set()
    for name, value in graph.initializers.items():
        uses = list(_uses(value))
        takes = any(use.idx in (1, 2) and use.node.op_type in _TAKES for use in uses)
        if takes and not any(_is_normalised(use.node) for use in uses):
            found.add(name)
    return found


def _uses(value: ir.Value) -> Iterator[Any]:
    """Give who reads a value, and who reads it cast."""
    for use in value.uses():
        if use.node.op_type == "Cast":
            yield from _uses(use.node.outputs[0])
        else:
            yield use


def _is_normalised(node: ir.Node) -> bool:
    if "activation" in node.attributes:  # between the product and what comes after the node
        return False
    readers = {use.node.op_type for output in node.outputs for use in _uses(output)}
    return "BatchNormalization" in readers


@dataclass(frozen=True)
class _Product:
    """A convolution or a matrix product: its weight, the axis of channels in it, and itself with others.

    norms: how many normalisations are in its weight and bias already.
    """

    weight: Tensor
    bias: Tensor | None
    channels: int
    again: Callable[[Tensor, Tensor], Tensor]
    norms: int = 0


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

    def find(self, args: Sequence[Any]) -> Callable[[], Tensor] | None:
        """Return what computes a normalisation with the file's weight; None where the file has none.

        It is to be called where the results of operations are taken from the file, as the bias is.
        """
        product = self._before(args)
        if product is None:
            return None
        weight = self._weight(product, args)
        return None if weight is None else lambda: product.again(weight, _bias(product, args))

    def follow(self, args: Sequence[Any], result: Any) -> None:
        """Remember a normalisation whose weight the file doesn't have: another one may follow it.

        It is to be called where ``find``'s result is.
        """
        product = self._before(args)
        if product is not None:
            weight = _by_quotient(product.weight, args[1], args[4], args[-1], product.channels)
            bias, norms = _bias(product, args), product.norms + 1
            self._products[result[0]] = replace(product, weight=weight, bias=bias, norms=norms)

    def _before(self, args: Sequence[Any]) -> _Product | None:
        """Return what a normalisation is of that takes its mean and variance from the model."""
        return None if args[5] else self._products.get(args[0])

    def _weight(self, product: _Product, args: Sequence[Any]) -> Tensor | None:
        """Return the file's constant that is the weight times a factor a channel, in either layout."""
        given = (product.weight, args[1], args[4], args[-1], product.channels)
        places = _LAST_PLACES * (1 + product.norms)
        for function in (_by_quotient, _by_inverse):
            found = self._folded.find(function, _plain, given, places)
            if found is not None:
                return found
            if product.weight.ndim == 2:
                turned, plain = (functools.partial(_turned, each) for each in (function, _plain))
                found = self._folded.find(turned, plain, given, places)
                if found is not None:
                    return found.t()
        return None


def _by_quotient(
    weight: Tensor, gamma: Tensor | None, variance: Tensor, epsilon: float, channels: int
) -> Tensor:
    factor = (1 if gamma is None else gamma) / torch.sqrt(variance + epsilon)
    return weight * _along(channels, weight, factor)


def _by_inverse(
    weight: Tensor, gamma: Tensor | None, variance: Tensor, epsilon: float, channels: int
) -> Tensor:
    inverse = torch.rsqrt(variance + epsilon)
    return weight * _along(channels, weight, inverse if gamma is None else gamma * inverse)


def _along(axis: int, weight: Tensor, factor: Tensor) -> Tensor:
    shape = [1] * weight.ndim
    shape[axis] = -1
    return factor.reshape(shape)


def _plain(weight: Tensor, *_: Any) -> Tensor:
    return weight


def _turned(function: Callable[..., Tensor], *given: Any) -> Tensor:
    return function(*given).t()


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
