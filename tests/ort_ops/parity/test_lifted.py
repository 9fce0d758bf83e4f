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


class Asks(nn.Module):
    """Computes something else for each dtype that it is given or holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        y = self.first(x)
        if y.dtype == torch.float16:  # as T5 does
            y = y.clamp(max=torch.finfo(y.dtype).max - 1000) * 0.25
        if torch.get_default_dtype() == torch.float32:
            y = y + 0.75  # in a float64 model the exporter would write 0.7 as float32 has it
        if torch.result_type(y, 1.0) == torch.float64:
            y = y.sin()
        return (y * y.float().exp()).to(x.dtype), torch.ones(8, dtype=y.dtype) * y


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_model_that_asks_for_its_dtype_is_told_its_own(dtype: torch.dtype, tmp_path: Path) -> None:
    model, path = Asks().eval().to(dtype), tmp_path / "model.onnx"
    export(model, (uniform(4, 8).to(dtype),), path, verbose=False)
    report = check(model, path, uniform(4, 8).to(dtype))
    assert report.verdict is Verdict.EQUAL, str(report)
    assert torch.get_default_dtype() == torch.float32


def test_one_that_holds_nothing_is_told_that_of_its_inputs(tmp_path: Path) -> None:
    class Parameterless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sin() if x.dtype == torch.float16 else x.cos()

    path = tmp_path / "model.onnx"
    for dtype in (torch.float16, torch.float32):
        export(Parameterless().eval(), (uniform(4, 8).to(dtype),), path, verbose=False)
        report = check(Parameterless().eval(), path, uniform(4, 8).to(dtype))
        assert report.verdict is Verdict.EQUAL, f"{dtype}: {report}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_what_a_normalisation_adds_by_itself_is_that_of_its_arithmetic(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """It is float32's in 16 bits, too, where small numbers show it."""
    model, given = nn.RMSNorm(8).eval().to(dtype), (uniform(4, 8) * 2**-10).to(dtype)
    export(model, (given,), tmp_path / "model.onnx", verbose=False)
    report = check(model, tmp_path / "model.onnx", given)
    assert report.rows[0].verdict is Verdict.EQUAL, str(report)
