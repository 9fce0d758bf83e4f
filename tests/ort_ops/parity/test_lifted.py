"""Casts in a Function's forward are lifted where it computes a node in float64, as they are in the model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate

from .models import uniform


class Norm(torch.autograd.Function):
    """Computes in float32, whatever it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)).to(x.dtype) * weight

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, epsilon: float) -> Any:
        return g.op("tests.lifted::Norm", x, weight, eps_f=epsilon)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.weight = nn.Linear(8, 8), nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Any:
        return Norm.apply(self.first(x), self.weight, 1e-6)


@pytest.mark.parametrize("options", [{}, {"functions": [Norm]}, {"trust": [__name__]}], ids=str)
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_a_forward_that_computes_in_float32_is_right(
    dynamo: bool, options: dict[str, Any], tmp_path: Path
) -> None:
    model, path = Model().eval(), tmp_path / "model.onnx"
    export(model, (uniform(4, 8),), path, dynamo=dynamo, verbose=False)
    rows = check(model, path, uniform(4, 8), **options).rows
    assert [row.verdict for row in rows] == [
        Verdict.EQUAL,
        Verdict.EQUAL if options else Verdict.CANNOT_SAY,
    ]
    assert rows[0].tolerance < 1e-12
    if options:
        assert locate(model, path, uniform(4, 8), **options).node is None


def test_a_fault_beside_it_is_found(tmp_path: Path) -> None:
    model, path = Model().eval(), tmp_path / "model.onnx"
    export(model, (uniform(4, 8),), path, verbose=False)
    with torch.no_grad():
        model.weight[3] *= 1 + 1e-6
    assert check(model, path, uniform(4, 8), functions=[Norm]).verdict is Verdict.EXPORT_WRONG
