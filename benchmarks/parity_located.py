"""Is the node with the fault the one that locate names? Run: python -m benchmarks.parity_located.

Every weight and every operator of four models gets a fault in turn, as both exporters write them; nothing is
timed.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.report import environment, write
from ort_ops.errors import ParityError
from ort_ops.export import export
from ort_ops.parity import Verdict, locate

QUESTION = "Is the node with the fault the one that locate names?"
COLUMNS = ("model", "exporter", "faults that show", "named", "in the region", "missed")
NOTE = (
    "Each weight by itself has its largest element off by 1 %, each operator of a table has another one "
    "in its place (Add and Sub, Mul and Div, Sin and Cos, Sigmoid and Tanh, ...), and each epsilon is "
    "five times as large; what changes no output beyond float64's rounding, or no runtime can compute, "
    "doesn't count. Named: the node itself, or one that reads the weight. In the region: a node before it "
    "is named, of which the model has nothing, and the node is among those that come of that. Missed are "
    "operators that give what the model has elsewhere (a sine for a cosine, where it has both), and those "
    "that make a number of sizes."
)
_PAIRS = [("Add", "Sub"), ("Mul", "Div"), ("Sin", "Cos"), ("Sigmoid", "Tanh"), ("Sqrt", "Exp")]
OTHERS = {"Relu": "Abs", "ReduceMean": "ReduceMax", **dict(_PAIRS), **{b: a for a, b in _PAIRS}}


class RootMeanSquare(nn.Module):
    """Normalises by the root of the mean square, in steps."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class Decoder(nn.Module):
    """A block of a decoder: rotated queries and keys, each normalised, a causal mask, a gated layer."""

    def __init__(self, size: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = RootMeanSquare(size), RootMeanSquare(size)
        self.of_q, self.of_k = RootMeanSquare(size // heads), RootMeanSquare(size // heads)
        self.packed, self.out = nn.Linear(size, 3 * size, bias=False), nn.Linear(size, size, bias=False)
        self.gate, self.up, self.down = (nn.Linear(*ends) for ends in ((16, 32), (16, 32), (32, 16)))
        self.head = nn.Linear(size, 7)

    @staticmethod
    def rotated(x: Tensor) -> Tensor:
        """Compute."""
        rates = 10.0 ** (torch.arange(x.shape[-1] // 2, dtype=x.dtype) / 4)
        angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] / rates
        a, b = x.chunk(2, -1)
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        batch, length, size = x.shape
        packed = self.packed(self.first(x)).chunk(3, -1)
        q, k, v = (each.reshape(batch, length, self.heads, -1).transpose(1, 2) for each in packed)
        q, k = self.rotated(self.of_q(q)), self.rotated(self.of_k(k))
        hidden = torch.ones(length, length).triu(1).bool()
        weights = (q @ k.transpose(-1, -2) / 4).masked_fill(hidden, float("-inf")).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, length, size))
        y = self.second(x)
        logits: Tensor = self.head(x + self.down(functional.silu(self.gate(y)) * self.up(y)))
        return logits


class Residual(nn.Module):
    """Convolutions with each kind of normalisation, a squeeze and excitation, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.SiLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
        )
        self.beside = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
        self.squeeze = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Sigmoid())
        self.up, self.head = nn.ConvTranspose2d(8, 4, 2, 2), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute."""
        y = functional.relu(self.main(x) + self.beside(x))
        y = y * self.squeeze(y.mean((2, 3)))[:, :, None, None]
        y = functional.gelu(self.up(functional.max_pool2d(y, 2)))
        return self.head(functional.adaptive_avg_pool2d(y, 1).flatten(1)), functional.normalize(y.flatten(1))


class Cosine(nn.Module):
    """Attention by cosines, before which a norm's faults cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.LayerNorm(8), nn.LayerNorm(8)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        y = self.first(x)
        q, k = (functional.normalize(layer(y), dim=-1) for layer in (self.q, self.k))
        attended = (q @ k.transpose(-1, -2) * self.scale.exp()).softmax(-1) @ self.v(y)
        z: Tensor = self.last(x + attended)
        return z


def encoder() -> nn.Module:
    before, after = (
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=first) for first in (True, False)
    )
    return nn.Sequential(before, after)


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "decoder": (Decoder, (2, 5, 16)),
    "two encoder layers": (encoder, (2, 4, 16)),
    "residual block": (Residual, (2, 3, 8, 8)),
    "attention by cosines": (Cosine, (2, 5, 8)),
}


def build(make: Any) -> nn.Module:
    """Return a model none of whose weights is zeros: another's would look like it."""
    torch.manual_seed(0)
    model: nn.Module = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn_like(parameter))
    return model


@dataclass(frozen=True)
class Planted:
    """A file with a fault, what that is, and the nodes that may be named for it."""

    file: onnx.ModelProto
    fault: str
    guilty: frozenset[str]


def planted(right: onnx.ModelProto) -> Iterator[Planted]:
    """Give the files with one fault each."""
    for place, weight in enumerate(right.graph.initializer):
        values = onnx.numpy_helper.to_array(weight).copy()
        if values.dtype != np.float32 or not values.size:
            continue
        file = copy_of(right)
        values.flat[np.abs(np.where(np.isfinite(values), values, 0)).argmax()] *= 1.01
        file.graph.initializer[place].CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        readers = frozenset(node.name for node in file.graph.node if weight.name in node.input)
        yield Planted(file, f"weight {weight.name}", readers)
    for place, node in enumerate(right.graph.node):
        if node.op_type in OTHERS:
            file = copy_of(right)
            file.graph.node[place].op_type = OTHERS[node.op_type]
            yield Planted(file, f"{OTHERS[node.op_type]} for {node.op_type}", frozenset([node.name]))
        for index, attribute in enumerate(node.attribute):
            if attribute.name == "epsilon":
                file = copy_of(right)
                file.graph.node[place].attribute[index].f *= 5
                yield Planted(file, "epsilon", frozenset([node.name]))


def copy_of(file: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(file)
    return other


def located(model: nn.Module, x: Tensor, each: Planted) -> str:
    """Return whether the guilty node is named, or "" where no output shows the fault."""
    try:
        found = locate(model, each.file, (x,), questions=["export"])
    except ParityError:  # sizes that don't fit together
        return ""
    if all(row.verdict is not Verdict.EXPORT_WRONG for row in found.outputs):
        return ""
    if found.node in each.guilty:
        return "named"
    return "in the region" if each.guilty & {*found.region} else "missed"


def main() -> None:
    warnings.simplefilter("ignore")
    rows, raw = [], []
    for name, (make, shape) in MODELS.items():
        model = build(make)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for dynamo in (True, False):
            right = export(model, (x,), dynamo=dynamo, verbose=False, external_data=False).model_proto
            assert locate(model, right, (x,), questions=["export"]).node is None, name
            found = [(located(model, x, each), each) for each in planted(right)]
            counts = Counter(how for how, _ in found if how)
            exporter = "newer" if dynamo else "older"
            numbers = [counts.total(), *(counts[column] for column in COLUMNS[3:])]
            rows.append((name, exporter, *map(str, numbers)))
            missed = [f"{each.fault}: {', '.join(each.guilty)}" for how, each in found if how == "missed"]
            raw.append({**dict(zip(COLUMNS, rows[-1], strict=True)), "which": missed})
    write("parity_located", QUESTION, NOTE, COLUMNS, rows, raw, environment(["torch", "onnx"]))


if __name__ == "__main__":
    main()
