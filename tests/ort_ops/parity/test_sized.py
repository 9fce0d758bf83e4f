"""Outputs whose size depends on values: rounding may decide it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import ort_ops
from ort_ops.export import export
from ort_ops.parity import Verdict, check

from .models import Model, uniform


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.box, self.score = nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        score = self.score(x)[:, 0].sigmoid()
        keep = score > 0.5
        return self.box(x)[keep], score[keep]


def test_faults_are_planted_that_change_the_size(tmp_path: Path) -> None:
    """With 2,000 rows a fault that is only just found moves some of them across the threshold."""
    model, x = Detector().eval(), uniform(2000, 8)
    export(model, (x,), tmp_path / "model.onnx", verbose=False)
    assert check(model, tmp_path / "model.onnx", x).verdict is Verdict.EQUAL


@pytest.mark.parametrize(
    ("forward", "x"),
    [
        (lambda m, x: ((x - 0.1 * (x * 10).round()) == 0).nonzero(), torch.arange(40) / 10),
        (lambda m, x: x[x >= x.mean()], torch.tensor([0.1] * 7)),
    ],
    ids=["places", "numbers"],
)
def test_a_run_that_is_pytorchs_is_right_whatever_size_float64_gives(
    forward: Callable[..., Any], x: Tensor, tmp_path: Path
) -> None:
    model = Model(forward).eval()
    export(model, (x,), tmp_path / "model.onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.array_equal(y, model(x))
    assert check(model, tmp_path / "model.onnx", x).verdict is Verdict.EQUAL


class Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.sized::Kept", x)


def test_a_kernel_that_drops_elements_is_wrong(tmp_path: Path) -> None:
    @ort_ops.onnx_op("tests.sized::Kept", inputs=["float32"])
    def kept(x: Any) -> Any:
        return x * np.where(x > 0.5, 0, 2).astype(np.float32)

    model, x = Model(lambda m, x: (lambda y: y[y > 1e-3])(Kept.apply(x))).eval(), uniform(50)
    export(model, (x,), tmp_path / "model.onnx", verbose=False)
    rows = check(model, tmp_path / "model.onnx", x).rows
    assert [row.verdict for row in rows] == [Verdict.EQUAL, Verdict.RUNTIME_WRONG], str(rows)
