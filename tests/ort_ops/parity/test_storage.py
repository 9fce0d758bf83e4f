"""What a file alone rounds to 16 bits is a fault of it; what the model does is none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate

from .models import Model, uniform
from .test_hard import exported, linear


def autocast(dtype: torch.dtype) -> Callable[..., Any]:
    def function(m: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            y: Tensor = m.l(x).relu()
        return y.float() * 2

    return function


RIGHT: dict[str, Callable[..., Any]] = {
    "autocast to bfloat16": autocast(torch.bfloat16),
    "autocast to float16": autocast(torch.float16),
    "halves inside": lambda m, x: nn.functional.linear(x.half(), m.l.weight.half(), m.l.bias.half()).float(),
    "an input by halves": lambda m, x: m.l(x.half().float()),
    "a weight by halves": lambda m, x: m.l(x) + m.l.weight.to(torch.bfloat16).to(x.dtype)[0],
    "a layer of halves": lambda m, x: m.h(x.half()).float() + m.l(x),
}


def model_of(function: Callable[..., Any]) -> nn.Module:
    return Model(function, l=linear(), h=nn.Linear(8, 8).half()).eval()


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_a_model_that_casts_is_right(name: str, dynamo: bool, tmp_path: Path) -> None:
    model = model_of(RIGHT[name])
    path = exported(model, (uniform(3, 8),), tmp_path / "model.onnx", dynamo=dynamo)
    report = check(model, path, uniform(3, 8))
    assert (report.rows[0].verdict, report.notes) == (Verdict.EQUAL, ()), str(report)


def file_of(model: nn.Module, path: Path) -> onnx.ModelProto:
    return onnx.load(exported(model, (uniform(3, 8),), path))


def plain() -> nn.Module:
    return Model(lambda m, x: m.l(x), l=linear()).eval()


@pytest.mark.parametrize(
    ("kind", "stored"), [(TensorProto.FLOAT16, "float16"), (TensorProto.BFLOAT16, "bfloat16")]
)
def test_an_input_that_the_file_rounds_is_a_fault(kind: int, stored: str, tmp_path: Path) -> None:
    file = file_of(plain(), tmp_path / "model.onnx")
    name = file.graph.input[0].name
    for node in file.graph.node:
        node.input[:] = ["wide" if each == name else each for each in node.input]
    casts = [
        helper.make_node("Cast", [name], ["narrow"], "there", to=kind),
        helper.make_node("Cast", ["narrow"], ["wide"], "back", to=TensorProto.FLOAT),
    ]
    file.graph.node.extend(casts)  # in no order
    report = check(plain(), file, uniform(3, 8))
    assert report.rows[0].verdict is Verdict.EXPORT_WRONG
    assert report.rows[0].reason == f"node there stores {stored}, which no operation of the model does"
    found = locate(plain(), file, uniform(3, 8))
    assert (found.node, found.rows[0].verdict) == ("there", Verdict.EXPORT_WRONG)


def test_a_weight_that_the_file_rounds_is_a_changed_one(tmp_path: Path) -> None:
    file = file_of(plain(), tmp_path / "model.onnx")
    weight = next(each for each in file.graph.initializer if list(each.dims) == [8, 8])
    cast = helper.make_node("Cast", ["narrow"], [weight.name], "back", to=TensorProto.FLOAT)
    file.graph.node.insert(0, cast)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), "narrow"))
    report = check(plain(), file, uniform(3, 8))
    assert report.rows[0].verdict is Verdict.EXPORT_WRONG
    assert "narrow differs from the model's l.weight, rounded to float16, in 64 of 64" in report.notes[0]


@pytest.mark.parametrize("where", ["at the end", "inside"])
def test_a_float64_result_of_float32_arithmetic_has_no_more_noise_than_any(where: str) -> None:
    def call(m: Any, x: Tensor) -> Tensor:
        if where == "at the end":
            return m.layer(x).tanh().double()
        return m.layer(x).softmax(-1, dtype=torch.float32).type_as(x) @ m.layer.weight

    torch.manual_seed(0)
    dtype = torch.float32 if where == "at the end" else torch.float64
    model, x = Model(call, layer=nn.Linear(8, 8)).to(dtype).eval(), torch.randn(5, 8, dtype=dtype)
    file = export(model, (x,), external_data=False, verbose=False).model_proto
    (row,) = (row for row in check(model, file, x).rows if row.question == "export")
    assert row.verdict is Verdict.EQUAL
    assert row.tolerance < 1e-13
    for weight in file.graph.initializer:
        if len(weight.dims) == 2:
            changed = numpy_helper.to_array(weight).copy()
            changed[0, 0] *= 1 + 1e-6
            weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    assert check(model, file, x).verdict is Verdict.EXPORT_WRONG
