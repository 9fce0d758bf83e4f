"""What a rounding error decides: in the model, too, or only in a file that isn't the model's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from onnx import numpy_helper
from torch import Tensor, nn

from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate

from .models import Model, uniform

CONSTANTS = "<float two = {2}, int64[1] k = {2}, float[6] ones = {1, 1, 1, 1, 1, 1}>"


def parsed(outputs: str, nodes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> g (float[n, 6] x) => ({outputs}) {CONSTANTS} {{ {nodes} }}'
    )


ODD = torch.arange(1.0, 24.0, 2.0).reshape(2, 6)
EQUAL = torch.tensor([[0.7], [1 / 3]]).expand(2, 6).contiguous()

# The model, what it is given, and the file, whose guilty node gives "t".
ANOTHER: dict[str, tuple[Callable[..., Any], Tensor, str, str]] = {
    "halves are rounded and not cut off": (
        lambda m, x: torch.floor(x / 2) + 1,
        ODD,
        "float[a, b] y",
        "h = Div(x, two) t = Round(h) one = Div(two, two) y = Add(t, one)",
    ),
    "the largest of what is all the same": (
        lambda m, x: torch.topk(x.softmax(-1), 2)[1],
        uniform(4, 6),
        "int64[a, b] t",
        "s = Softmax(x) z = Sub(s, s) v, t = TopK(z, k)",
    ),
    "nothing keeps from dividing by what is left of nothing": (
        lambda m, x: F.layer_norm(x * 0.3, (6,)),
        EQUAL,
        "float[a, b] t",
        "c = Constant<value = float {0.3}>() s = Mul(x, c) t = LayerNormalization<epsilon = 0.0>(s, ones)",
    ),
}


@pytest.mark.parametrize("name", ANOTHER)
def test_a_file_that_turns_where_the_model_does_not_is_wrong(name: str) -> None:
    function, given, outputs, nodes = ANOTHER[name]
    file = parsed(outputs, nodes)
    model = Model(function).eval()
    (row,) = (row for row in check(model, file, given).rows if row.question == "export")
    assert row.verdict is Verdict.EXPORT_WRONG, row
    places = {node.op_type: node for node in file.graph.node}
    guilty = places["Sub"] if "Sub" in places else next(n for n in file.graph.node if "t" in n.output)
    guilty.name = "guilty"
    assert locate(model, file, given, questions=["export"]).node == "guilty"


def copied(x: Tensor) -> Tensor:
    return x.clone().div_(0.1).floor_()


def through_a_view(x: Tensor) -> Tensor:
    y = x / 0.1
    y.view(-1).floor_()
    return y


TENTHS = (torch.arange(12.0).reshape(2, 6) * 0.1).double().round(decimals=1)
ALIKE: dict[str, Callable[..., Any]] = {
    "in one operation": lambda m, x: x // 0.1,
    "in two": lambda m, x: (x / 0.1).floor(),
    "in place": lambda m, x: copied(x),
    "through a view": lambda m, x: through_a_view(x),
    "compiled": torch.compile(lambda m, x: (x / 0.1).floor(), backend="eager"),
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_file_that_turns_where_the_model_does_is_not(name: str) -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (double[n, 6] x) => (double[n, 6] y) <double ten = {10}> '
        "{ t = Mul(x, ten) y = Floor(t) }"
    )
    model = Model(ALIKE[name]).eval()
    row = check(model, file, TENTHS).rows[0]
    assert row.verdict is Verdict.CANNOT_SAY, row
    assert "turn on a rounding error of float64" in row.reason
    assert locate(model, file, TENTHS, questions=["export"]).node is None
    assert torch.equal(TENTHS, (torch.arange(12.0).reshape(2, 6) * 0.1).double().round(decimals=1))


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.steps::Rounded", x)


def after_relu(model: Any, x: Tensor) -> Tensor:
    return model.b(torch.floor(torch.relu(model.a(x)) * 3 / 0.7))  # type: ignore[no-any-return]


def by_ties(model: Any, x: Tensor) -> Tensor:
    """Quantise the weight by its largest element, which lies between two codes."""
    scale = model.b.weight.abs().amax(1, keepdim=True) / 7.5
    weight = torch.clamp(Rounded.apply(model.b.weight * (1 / scale)), -8, 7) * scale
    return F.linear(model.a(x), weight, model.b.bias)


def masked(model: Any, x: Tensor) -> Tensor:
    mask = (x > 0).float()
    return (x * mask) * mask


BEHIND: dict[str, tuple[Callable[..., Any], str]] = {
    "a step after a relu, whose zeros are zeros": (after_relu, "b.weight"),
    "a step that rounding errors decide": (by_ties, "b.bias"),
    "a mask": (masked, ""),
}


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("name", BEHIND)
def test_a_fault_does_not_hide_behind(name: str, dynamo: bool, tmp_path: Path) -> None:
    function, weight = BEHIND[name]
    torch.manual_seed(0)
    model, x = Model(function, a=nn.Linear(8, 8), b=nn.Linear(8, 5)).eval(), uniform(3, 8)
    options: Any = {"external_data": False} if dynamo else {}
    path = tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, functions="attach", verbose=False, **options)
    file = onnx.load(path)
    assert check(model, file, x).verdict is Verdict.EQUAL
    if weight:
        (tensor,) = (each for each in file.graph.initializer if each.name == weight)
        changed = numpy_helper.to_array(tensor).copy()
        changed[2] *= 1.002
        tensor.CopyFrom(numpy_helper.from_array(changed, weight))
        (guilty,) = (node for node in file.graph.node if weight in node.input)
    else:
        guilty = [node for node in file.graph.node if node.op_type == "Mul"][-1]
        guilty.op_type = "Div"  # 0 / 0
    assert check(model, file, x).rows[0].verdict is Verdict.EXPORT_WRONG
    assert locate(model, file, x, questions=["export"]).node == guilty.name


class Checked(torch.nn.Module):
    """Looks at its numbers, which rounding errors make none that it takes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes = torch.round(x * 4) + 2
        if not torch.equal(codes, codes.round()):
            raise ValueError("codes must be whole")
        return codes, x // 0.1


# Of several steps a few evaluations show few of what comes of them; a tie is left by any rounding error.
SEVERAL: dict[str, Callable[..., Any]] = {
    "an exponential of two steps": lambda m, x: ((x[:, :2] // 0.1).sum(-1) * 0.01).exp(),
    "shares of steps": lambda m, x: ((x // 0.1) / 10).softmax(-1),
    "signs of what is nothing": lambda m, x: (F.normalize(x + 1).square().sum(-1) - 1).sign(),
}


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("name", SEVERAL)
def test_what_comes_of_several_steps_is_not_called_wrong(name: str, dynamo: bool, tmp_path: Path) -> None:
    model, x = Model(SEVERAL[name]).eval(), (torch.arange(3600.0).reshape(600, 6) % 37 * 0.1).double()
    x = x.round(decimals=1)
    options: Any = {"external_data": False} if dynamo else {}
    export(model, (x,), tmp_path / "model.onnx", dynamo=dynamo, verbose=False, **options)
    report = check(model, tmp_path / "model.onnx", (x,))
    assert report.rows[0].verdict in (Verdict.EQUAL, Verdict.CANNOT_SAY), str(report)
    assert locate(model, tmp_path / "model.onnx", (x,), questions=["export"]).node is None


def test_a_model_that_fails_over_a_rounding_error_is_checked_all_the_same() -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (double[n, 6] x) => (double[n, 6] c, double[n, 6] y) '
        "<double ten = {10}, double four = {4}, double two = {2}> "
        "{ a = Mul(x, four) r = Round(a) c = Add(r, two) t = Mul(x, ten) y = Floor(t) }"
    )
    rows = check(Checked().eval(), file, TENTHS).rows
    assert [row.verdict for row in rows[:2]] == [Verdict.EQUAL, Verdict.CANNOT_SAY]
