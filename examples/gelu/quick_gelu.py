"""Quick GELU, x·sigmoid(1.702·x), as a torch Function: what trains, and what becomes one ONNX node."""

from typing import Any

import torch
from torch import Tensor, nn


class QuickGelu(torch.autograd.Function):
    """``QuickGelu.apply(x, alpha)``; x and the result: any shape, one dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        """Compute x·sigmoid(alpha·x), and keep x alone: backward computes the sigmoid again."""
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return x * torch.sigmoid(alpha * x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of x, grad·(s + alpha·x·s·(1 - s)) with s = sigmoid(alpha·x), and no other."""
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.alpha * x)
        return grad * (s + ctx.alpha * x * s * (1 - s)), None

    @staticmethod
    def symbolic(g: Any, x: Any, alpha: float) -> Any:
        """Write one node; its output has x's type and shape."""
        return g.op("example::QuickGelu", x, alpha_f=alpha).setType(x.type())


class Net(nn.Module):
    """A curve of one number: linear, quick GELU, linear. x: (batch, 1) -> (batch, 1)."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(1, hidden), nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the curve at x."""
        y: Tensor = self.outer(QuickGelu.apply(self.inner(x), 1.702))
        return y
