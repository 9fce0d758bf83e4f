"""Branches of a model are computed in float64 as all else is, and seen in what they store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from ort_ops.export import export
from ort_ops.parity import Verdict, check

from .models import Model, uniform

BRANCHES: dict[str, Callable[[Tensor], Tensor]] = {
    "no cast": lambda x: x * 1.7 * 1.3,
    "a cast to 16 bits and back": lambda x: (x * 1.7).half().float() * 1.3,
    "a dtype that is written": lambda x: (x > 0).to(torch.float32) * 0.7 + x.mean(),
    "zeros of a dtype that is written": lambda x: x + torch.zeros(5, dtype=torch.float32) * 1.3,
}


@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_is_computed_in_float64(name: str, tmp_path: Path) -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        result: Tensor = torch.cond(x.sum() > -1e9, BRANCHES[name], lambda x: x * 2, (x,))
        return result

    model = Model(forward).eval()
    export(model, (uniform(4, 5),), tmp_path / "model.onnx", verbose=False)
    row, *_ = check(model, tmp_path / "model.onnx", uniform(4, 5)).rows
    assert row.verdict is Verdict.EQUAL, row
    assert row.max_abs < 1e-12


def test_a_branch_excuses_nothing_that_the_file_stores_in_16_bits() -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        result: Tensor = torch.cond(x.sum() > -1e9, lambda x: x * 1.7, lambda x: x * 2, (x,))
        return result.tanh()

    model = Model(forward).eval()
    file = export(model, (uniform(4, 5),), verbose=False).model_proto
    assert check(model, file, uniform(4, 5)).rows[0].verdict is Verdict.EQUAL
    tanh = next(node for node in file.graph.node if node.op_type == "Tanh")
    down = helper.make_node("Cast", [tanh.input[0]], ["narrow"], "down", to=TensorProto.FLOAT16)
    up = helper.make_node("Cast", ["narrow"], ["wide"], "up", to=TensorProto.FLOAT)
    tanh.input[0] = "wide"
    file.graph.node.extend([down, up])
    row = check(model, file, uniform(4, 5)).rows[0]
    assert (row.verdict, "node down stores float16" in row.reason) == (Verdict.EXPORT_WRONG, True)


HEADER = (
    '<ir_version: 8, opset_import: ["": 18, "my": 1]> g (float[n, 8] x) => (float[n, 8] y) <float c={1.5}> '
)
INSIDE = {
    "a function body": "{ a = Mul(x, c) f = my.Down(a) y = Relu(f) } "
    '<domain: "my", opset_import: ["": 18]> Down (a) => (b) { h = Cast<to = 10>(a) b = Cast<to = 1>(h) }',
    "a branch": "{ a = Mul(x, c) s = ReduceSum<keepdims = 0>(x) z = Sub(s, s) q = Equal(z, z) f = If(q) <"
    "then_branch = t1 () => (float[n, 8] b) { h = Cast<to = 10>(a) b = Cast<to = 1>(h) }, "
    "else_branch = e1 () => (float[n, 8] d) { d = Identity(a) }> y = Relu(f) }",
}


@pytest.mark.parametrize("where", INSIDE)
def test_what_is_stored_in_16_bits_inside_of_a_node_is_found(where: str) -> None:
    model = Model(lambda m, x: torch.relu(x * 1.5)).eval()
    row, *_ = check(model, onnx.parser.parse_model(HEADER + INSIDE[where]), uniform(4, 8)).rows
    assert (row.verdict, "stores float16" in row.reason) == (Verdict.EXPORT_WRONG, True)


class Sharing(nn.Module):
    """Two modules with one buffer."""

    def __init__(self) -> None:
        super().__init__()
        scale = torch.rand(8)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.a.register_buffer("scale", scale)
        self.b.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.b(self.a(x) * self.a.scale) * self.b.scale
        return result


def test_a_buffer_of_two_modules_is_one(tmp_path: Path) -> None:
    model = Sharing().eval()
    export(model, (uniform(4, 8),), tmp_path / "model.onnx", verbose=False)
    assert check(model, tmp_path / "model.onnx", uniform(4, 8)).verdict is Verdict.EQUAL


class Nested(nn.Module):
    """Holds a state in a dictionary of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {"layers": [torch.zeros(8)]}

    def forward(self, x: Tensor) -> Tensor:
        self.state["layers"][0] = self.state["layers"][0] + x.mean(0)
        result: Tensor = x + self.state["layers"][0]
        return result


def test_what_is_held_in_one_another_is_put_back(tmp_path: Path) -> None:
    model = Nested().eval()
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n, 8] x) => (float[n, 8] y) <int64[1] axis = {0}> '
        "{ m = ReduceMean<keepdims = 0>(x, axis) y = Add(x, m) }"
    )
    samples = [(uniform(4, 8),), (uniform(2, 8),)]
    assert check(model, file, samples).verdict is Verdict.EQUAL
    assert not model.state["layers"][0].any()
