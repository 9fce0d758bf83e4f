"""Operators that ONNX Runtime's optimiser fuses others into, in float64: a saved optimised file has them.

What they compute is in ONNX Runtime's ContribOperators.md.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from torch.nn import functional

from .windows import convolve

__all__ = ["CONTRIB"]

Array = NDArray[Any]


class _Contrib(OpRun):
    """An operator of ONNX Runtime's own, whose attributes have no defaults in a schema of onnx's."""

    op_domain = "com.microsoft"
    op_schema = None  # onnx would take that of its operator of the same name

    def attribute(self, name: str, default: Any) -> Any:
        """Return what the node has by a name, or its default."""
        return getattr(self, name, default)

    def activated(self, x: Array, parameters: Sequence[float]) -> Array:
        """Return what the activation that was fused into the node makes of its result."""
        name = self.attribute("activation", "")
        if not name:
            return x
        if name not in _ACTIVATIONS:  # the evaluator then has ONNX Runtime compute it
            raise NotImplementedError(f"the activation {name!r} is not known")
        return _ACTIVATIONS[name](x, *parameters)


class FusedMatMul(_Contrib):
    """alpha times a product, its factors transposed or not."""

    def _run(self, a: Any, b: Any, **_: Any) -> tuple[Any]:
        a, b = self._turned(a, "A"), self._turned(b, "B")
        return (self.attribute("alpha", 1.0) * (a @ b),)

    def _turned(self, factor: Array, which: str) -> Array:
        """Return a factor with its batch first and its rows before its columns."""
        factor = np.moveaxis(factor, 0, -2) if self.attribute(f"transBatch{which}", 0) else factor
        return factor.swapaxes(-1, -2) if self.attribute(f"trans{which}", 0) else factor


class FusedGemm(_Contrib):
    """alpha times a product and beta times a summand, and an activation of it."""

    def _run(self, a: Any, b: Any, c: Any = None, **_: Any) -> tuple[Any]:
        a, b = (each.T if self.attribute(f"trans{n}", 0) else each for each, n in ((a, "A"), (b, "B")))
        product = self.attribute("alpha", 1.0) * (a @ b)
        total = product if c is None else product + self.attribute("beta", 1.0) * c
        names = (f"activation_{each}" for each in ("alpha", "beta", "gamma"))
        return (self.activated(total, [vars(self)[name] for name in names if name in vars(self)]),)


class FusedConv(_Contrib):
    """A convolution, what is added to it, and an activation of both."""

    def _run(self, x: Any, w: Any, b: Any = None, z: Any = None, **_: Any) -> tuple[Any]:
        y = convolve(x, w, b, vars(self))
        return (self.activated(y if z is None else y + z, self.attribute("activation_params", ())),)


class Gelu(_Contrib):
    """x times the normal distribution's integral up to x."""

    def _run(self, x: Any, **_: Any) -> tuple[Any]:
        return (_gelu(x, "none"),)


class BiasGelu(_Contrib):
    """Gelu of a sum."""

    def _run(self, x: Any, bias: Any, **_: Any) -> tuple[Any]:
        return (_gelu(x + bias, "none"),)


class FastGelu(_Contrib):
    """Gelu's approximation by tanh, of a sum."""

    def _run(self, x: Any, bias: Any = None, **_: Any) -> tuple[Any]:
        return (_gelu(x if bias is None else x + bias, "tanh"),)


class QuickGelu(_Contrib):
    """x times the logistic function of alpha·x."""

    def _run(self, x: Any, **_: Any) -> tuple[Any]:
        return (x / (1 + np.exp(-self.attribute("alpha", 1.702) * x)),)


class SkipLayerNormalization(_Contrib):
    """A layer normalisation of a sum, which is an output, too."""

    def _run(
        self, x: Any, skip: Any, scale: Any, shift: Any = None, bias: Any = None, **_: Any
    ) -> tuple[Any, ...]:
        total = x + skip if bias is None else x + skip + bias
        mean = total.mean(-1, keepdims=True)
        return _normalised(self, total, mean, scale, shift)


class SkipSimplifiedLayerNormalization(_Contrib):
    """A division of a sum by its root mean square."""

    def _run(self, x: Any, skip: Any, scale: Any, bias: Any = None, **_: Any) -> tuple[Any, ...]:
        total = x + skip if bias is None else x + skip + bias
        return _normalised(self, total, np.zeros((*total.shape[:-1], 1)), scale, None)


def _normalised(node: _Contrib, total: Array, mean: Array, scale: Array, shift: Any) -> tuple[Any, ...]:
    """Return the normalised sum, and its mean, its inverse deviation and the sum where the node has them."""
    epsilon = node.attribute("epsilon", 1e-12)
    inverse = 1 / np.sqrt(np.square(total - mean).mean(-1, keepdims=True) + epsilon)
    y = (total - mean) * inverse * scale
    return (y if shift is None else y + shift, mean, inverse, total)[: len(node.onnx_node.output)]


_ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x < 0, alpha * x, x),
    "Clip": np.clip,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
}


def _gelu(x: Array, approximate: str) -> Array:
    tensor = torch.from_numpy(np.ascontiguousarray(x))
    y: Array = functional.gelu(tensor, approximate=approximate).numpy()
    return y.reshape(x.shape)


CONTRIB: tuple[type[OpRun], ...] = (
    *(FusedMatMul, FusedGemm, FusedConv, Gelu, BiasGelu, FastGelu, QuickGelu),
    *(SkipLayerNormalization, SkipSimplifiedLayerNormalization),
)
"""Implementations for ``ReferenceEvaluator``'s ``new_ops``."""
