"""Models whose exports are right, and the inputs that they take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from torch import Tensor, nn

__all__ = ["CLEAN", "Clean", "Model", "uniform"]


def uniform(*shape: int) -> Tensor:
    """Return numbers between -2 and 2 that are no round ones, the same each time."""
    generator = np.random.default_rng(list(shape))
    return torch.from_numpy(generator.uniform(-2, 2, shape).astype(np.float32))


class Model(nn.Module):
    """A model of one function, with what it calls as its modules."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(self, *tensors)


@dataclass(frozen=True)
class Clean:
    """A model, made when it is asked for, and its inputs."""

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    torchscript: bool = True
    """Whether the TorchScript exporter knows it."""

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    def __str__(self) -> str:
        return self.name


CLEAN: list[Clean] = []


def clean(
    name: str, function: Callable[..., Any], *inputs: Tensor, **modules: Callable[[], nn.Module]
) -> None:
    def make() -> nn.Module:
        return Model(function, **{key: made() for key, made in modules.items()})

    CLEAN.append(Clean(name, make, inputs, name not in ("expm1", "rms norm")))


# What a plain ratio to PyTorch's error fails on, first of all.
clean("cumsum", lambda m, x: x.cumsum(0), uniform(5000, 3))
clean("cumsum of one sign", lambda m, x: x.abs().cumsum(-1), uniform(2, 5000))
clean("column sum", lambda m, x: x.sum(0), uniform(4096, 17))
clean("sum of everything", lambda m, x: x.sum(), uniform(300, 300))
clean("sum of equal numbers", lambda m, x: (x * 0 + 0.1).sum(), uniform(1000, 100))
clean("mean of many", lambda m, x: x.mean(), uniform(1000, 1000))
clean("norm", lambda m, x: torch.linalg.vector_norm(x, dim=-1), uniform(8, 3000))
clean("variance", lambda m, x: x.var(-1), uniform(8, 3000))
clean("deviation around a large mean", lambda m, x: (x + 100).std(-1), uniform(8, 300))
clean("tanh", lambda m, x: torch.tanh(x), uniform(64, 64))
clean("log1p", lambda m, x: torch.log1p(x.abs() * 1e-3), uniform(64, 64))
clean("expm1", lambda m, x: torch.expm1(x * 1e-3), uniform(64, 64))
clean("average pool", lambda m, x: F.avg_pool2d(x, 3, 2, 1), uniform(2, 4, 33, 33))
clean("max pool", lambda m, x: F.max_pool2d(x, 3, 2, 1), uniform(2, 4, 33, 33))
clean("adaptive pool", lambda m, x: F.adaptive_avg_pool2d(x, 1), uniform(2, 4, 64, 64))
clean("softmax", lambda m, x: (50 * x).softmax(-1), uniform(8, 1000))
clean("log softmax", lambda m, x: (50 * x).log_softmax(-1), uniform(8, 1000))
clean("logsumexp", lambda m, x: x.logsumexp(-1), uniform(8, 1000))
clean("sigmoid", lambda m, x: torch.sigmoid(20 * x), uniform(64, 64))
clean("exp and log", lambda m, x: (x.exp() + 1).log(), uniform(64, 64))
clean("sine and cosine", lambda m, x: (30 * x).sin() * x.cos(), uniform(64, 64))
clean("power", lambda m, x: x.abs() ** 2.7, uniform(64, 64))
clean("reciprocal root", lambda m, x: torch.rsqrt(x.abs() + 1e-6), uniform(64, 64))
clean("gelu", lambda m, x: F.gelu(x), uniform(64, 64))
clean("gelu by tanh", lambda m, x: F.gelu(x, approximate="tanh"), uniform(64, 64))
clean("silu and softplus", lambda m, x: F.silu(x) + F.softplus(x), uniform(64, 64))
clean("a division by a third", lambda m, x: x / 3 + x * (1 / 3), uniform(64, 64))
clean("cancellation", lambda m, x: (x + 1e4) - 1e4, uniform(64, 64))
clean("layer norm", lambda m, x: m.norm(x), uniform(4, 7, 64), norm=lambda: nn.LayerNorm(64))
clean("group norm", lambda m, x: m.norm(x), uniform(2, 8, 9, 9), norm=lambda: nn.GroupNorm(2, 8))
clean("instance norm", lambda m, x: m.norm(x), uniform(2, 8, 9, 9), norm=lambda: nn.InstanceNorm2d(8))
clean("rms norm", lambda m, x: m.norm(x), uniform(4, 7, 64), norm=lambda: nn.RMSNorm(64))
clean("batch norm", lambda m, x: m.norm(x), uniform(2, 8, 9, 9), norm=lambda: nn.BatchNorm2d(8))
clean("linear", lambda m, x: m.l(x), uniform(5, 257), l=lambda: nn.Linear(257, 33))
clean("a long product", lambda m, x: x @ x.T, uniform(9, 4096))
clean("three axes", lambda m, x: m.l(x), uniform(2, 5, 64), l=lambda: nn.Linear(64, 33))
clean("einsum", lambda m, x: torch.einsum("bij,bkj->bik", x, x), uniform(3, 5, 64))
clean(
    "convolution and norm",
    lambda m, x: m.n(m.c(x)).relu(),
    uniform(2, 3, 17, 17),
    c=lambda: nn.Conv2d(3, 8, 3, 2, 1),
    n=lambda: nn.BatchNorm2d(8),
)
clean(
    "grouped and dilated",
    lambda m, x: m.c(x),
    uniform(2, 4, 17, 17),
    c=lambda: nn.Conv2d(4, 8, 3, dilation=2, groups=2),
)
clean("one axis", lambda m, x: m.c(x), uniform(2, 4, 50), c=lambda: nn.Conv1d(4, 8, 5))
clean("transposed", lambda m, x: m.c(x), uniform(2, 4, 9, 9), c=lambda: nn.ConvTranspose2d(4, 3, 3, 2, 1))
clean("attention", lambda m, x: F.scaled_dot_product_attention(x, x, x), uniform(2, 4, 7, 16))
clean(
    "causal attention",
    lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    uniform(2, 4, 7, 16),
)
clean(
    "multi-head attention",
    lambda m, x: m.a(x, x, x, need_weights=False)[0],
    uniform(2, 7, 16),
    a=lambda: nn.MultiheadAttention(16, 4, batch_first=True),
)
clean("LSTM", lambda m, x: m.r(x), uniform(6, 2, 8), r=lambda: nn.LSTM(8, 12, bidirectional=True))
clean("GRU", lambda m, x: m.r(x), uniform(6, 2, 8), r=lambda: nn.GRU(8, 12))
clean("embedding", lambda m, i: m.e(i), torch.arange(12).reshape(3, 4), e=lambda: nn.Embedding(12, 8))
clean("integers and booleans", lambda m, x: (x.argmax(-1), x > 0.5, (x * 3).long()), uniform(9, 30))
clean("largest five", lambda m, x: x.topk(5), uniform(9, 30))
clean("bilinear", lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), uniform(1, 2, 7, 7))
clean("float16", lambda m, x: m.l(x.half()), uniform(5, 64), l=lambda: nn.Linear(64, 33).half())
clean("NaN and infinities", lambda m, x: (x / (x * 0), x.clamp_min(0).log()), uniform(5, 64))
