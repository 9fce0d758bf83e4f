"""Outputs of which nothing is left but rounding errors are compared all the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from torch import nn

from ort_ops.export import export
from ort_ops.parity import Verdict, check

from .models import Model, uniform

CANCELLING: dict[str, Callable[..., Any]] = {
    "a mean of what is normalised": lambda m, x: F.layer_norm(m.l(x), (16,)).mean(-1),
    "deviations from a mean": lambda m, x: (m.l(x) - m.l(x).mean(-1, keepdim=True)).sum(-1),
    "shares that add up": lambda m, x: m.l(x).softmax(-1).sum(-1) - 1,
}


def model_of(function: Callable[..., Any]) -> nn.Module:
    torch.manual_seed(0)
    return Model(function, l=nn.Linear(16, 16)).eval()


@pytest.mark.parametrize("name", CANCELLING)
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_nothing_that_is_left_is_equal(name: str, dynamo: bool, tmp_path: Path) -> None:
    model, path = model_of(CANCELLING[name]), tmp_path / "model.onnx"
    export(model, (uniform(40, 16),), path, dynamo=dynamo, verbose=False)
    rows = check(model, path, uniform(40, 16)).rows
    assert [row.verdict for row in rows] == [Verdict.EQUAL, Verdict.EQUAL], str(rows)
    assert rows[0].tolerance < 1e-12
    assert rows[1].tolerance < 1e-5


def test_something_that_is_left_is_not(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export(model_of(CANCELLING["shares that add up"]), (uniform(40, 16),), path, verbose=False)
    other = model_of(lambda m, x: m.l(x).softmax(-1).sum(-1) - (1 + 1e-6))
    assert check(other, path, uniform(40, 16)).verdict is Verdict.EXPORT_WRONG
