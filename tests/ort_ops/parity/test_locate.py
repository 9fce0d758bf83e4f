"""The node to blame, under either question."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ort_ops
from mylinear import LinearF, MyLinear
from mylinear.export import export as export_mylinear
from ort_ops.errors import ParityError
from ort_ops.export import export
from ort_ops.parity import ExitCode, Verdict, check, locate
from ort_ops.parity.counterparts import Counterpart, Counterparts
from tests.ort_ops.releases import TORCH

from .faults import ARCHITECTURES
from .models import Model, uniform
from .test_faults import exported, planted

BOTH = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_in_a_right_file_nobody_is_blamed(name: str) -> None:
    case = ARCHITECTURES[name]
    file = onnx.load_from_string(exported(name))
    found = locate(case.model(), file, case.inputs, functions=case.functions)
    assert (found.node, found.question, found.region) == (None, None, ())
    assert found.exit_code is ExitCode.EQUAL
    assert found.matched["export"] >= 0.85
    assert {row.verdict for row in found.rows} <= {Verdict.EQUAL, Verdict.CANNOT_SAY}
    assert {row.verdict for row in found.rows if row.question == "runtime"} == {Verdict.EQUAL}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_node_with_the_fault_is_blamed(name: str) -> None:
    case = ARCHITECTURES[name]
    for each in planted(name):
        found = locate(case.model(), each.model, each.inputs, functions=case.functions)
        assert found.question == "export", each.fault
        assert found.node in each.blamed, each.fault
        assert found.region[0] == found.node
        assert found.exit_code is ExitCode.WRONG


def third_is_wrong(x: Any, weight: Any, bias: Any = None) -> Any:
    y = x @ weight.T
    if weight.shape[0] == 4:
        y = y.astype(np.float16).astype(np.float32)
    return y if bias is None else y + bias


def stack() -> nn.Module:
    torch.manual_seed(0)
    layers = (MyLinear(16, 16), nn.ReLU(), MyLinear(16, 16), nn.ReLU(), MyLinear(16, 4), nn.Tanh())
    return nn.Sequential(*layers, MyLinear(4, 16)).eval()


@pytest.mark.parametrize("memory", [2**30, 300])
def test_a_kernel_that_is_wrong_is_found_in_the_run(tmp_path: Path, memory: int) -> None:
    path = tmp_path / "model.onnx"
    export_mylinear(stack(), path, example=uniform(3, 16), domain="test.locate")
    op = ort_ops.onnx_op("test.locate::MYLINEAR")(third_is_wrong)
    try:
        found = locate(stack(), path, uniform(3, 16), functions=[LinearF], memory=memory)
    finally:
        ort_ops.registry._ops.remove(op)
    assert (found.node, found.question, found.provider) == ("MYLINEAR_2", "runtime", "cpu")
    assert str(found) == "guilty: MYLINEAR_2 (test.locate::MYLINEAR), runtime on cpu"
    assert found.matched["runtime"] == 1.0
    wrong = [row.node for row in found.rows if row.verdict is Verdict.RUNTIME_WRONG]
    assert wrong == ["MYLINEAR_2"]  # what comes after it computes rightly on what it is given
    assert locate(stack(), path, uniform(3, 16), functions=[LinearF], memory=memory).node is None


def finite_alone(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(x), x + x, np.float32(0))


@pytest.mark.parametrize("x", [-1.0, 0.0], ids=["NaN", "infinity"])
def test_a_kernel_that_loses_what_is_not_finite_is_blamed(x: float) -> None:
    file = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 18, "test.locate": 1]>
        g (float[n] x) => (float[n] y) { l = Log(x) y = test.locate.Twice(l) }
        <domain: "test.locate", opset_import: ["": 18]> Twice (a) => (b) { b = Add(a, a) }
    """)
    op = ort_ops.onnx_op("test.locate::Twice")(finite_alone)
    try:
        found = locate(Model(lambda m, x: x.log() * 2).eval(), file, torch.tensor([1.0, x, 3.0]))
    finally:
        ort_ops.registry._ops.remove(op)
    assert found.question == "runtime"
    assert {row.op for row in found.rows if row.node == found.node} == {"test.locate::Twice"}


class Quantize(torch.autograd.Function):
    """Rounds inside of it: of a tie float64 and float32 decide otherwise."""

    @staticmethod
    def forward(ctx: Any, x: Any, step: float) -> Any:
        y = torch.round(x / step)
        return y * step, y.to(torch.int8)

    @staticmethod
    def symbolic(g: Any, x: Any, step: float) -> Any:
        return g.op("test.locate::Quantize", x, step_f=step, outputs=2)


def quantize(x: Any, *, step: float) -> Any:
    y = np.round(x / x.dtype.type(step))
    y.flat[3] += 1
    return y * x.dtype.type(step), y.astype(np.int8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_ties_that_a_forward_breaks_are_not_the_runtimes_fault(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = Model(lambda m, x: Quantize.apply(x, 0.1)).eval()
    x = (torch.arange(1, 61) * 0.05).reshape(6, 10).to(dtype)
    assert not torch.equal(torch.round(x / 0.1).double(), torch.round(x.double() / 0.1))
    ort_ops.export.export(model, (x,), path, verbose=False)
    assert locate(model, path, x, functions=[Quantize]).node is None
    kinds = [str(dtype).removeprefix("torch."), "int8"]
    op = ort_ops.onnx_op("test.locate::Quantize", inputs=kinds[:1], outputs=kinds)(quantize)
    try:
        found = locate(model, path, x, functions=[Quantize])
    finally:
        ort_ops.registry._ops.remove(op)
    assert (found.node, found.question) == ("Quantize_0", "runtime")


def test_fused_kernels_stay_fused_and_say_what_is_in_them() -> None:
    found = locate(
        ARCHITECTURES["CNN, TorchScript"].model(),
        onnx.load_from_string(exported("CNN, TorchScript")),
        ARCHITECTURES["CNN, TorchScript"].inputs,
    )
    fused = [row for row in found.rows if row.fused]
    assert any("Erf" in name for row in fused for name in row.fused)
    assert found.node is None


def test_chance_is_not_the_runtimes_fault() -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n, 4] x) => (float[n, m] y) '
        "{ r = RandomNormalLike(x) s = Mul(r, x) y = Relu(s) }"
    )
    found = locate(Model(lambda m, x: torch.relu(torch.randn_like(x) * x)).eval(), file, uniform(3, 4))
    assert (found.node, found.question) == (None, None)
    verdicts = {row.op: row.verdict for row in found.rows if row.question == "runtime"}
    assert verdicts == {
        "ai.onnx::RandomNormalLike": Verdict.CANNOT_SAY,
        "ai.onnx::Mul": Verdict.EQUAL,
        "ai.onnx::Relu": Verdict.EQUAL,
    }


def test_a_bound_that_an_input_lies_on_is_as_the_file_has_it() -> None:
    # 0.3 in float32 is not greater than itself, and greater than 0.3 in float64.
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n] x) => (float[n] y) <float limit = {0.3}> '
        "{ b = Greater(x, limit) f = Cast<to = 1>(b) y = Mul(f, x) }"
    )
    model = Model(lambda m, x: (x > 0.3).float() * x).eval()
    found = locate(model, file, torch.tensor([0.1, 0.3, 0.5]))
    assert (found.node, found.question) == (None, None)


@pytest.mark.parametrize("scale", [2**-9, 0.0015])
def test_a_quantised_softmax_is_blamed_only_where_it_computes_something_else(scale: float) -> None:
    # ONNX Runtime fuses it into a QLinearSoftmax that takes 1/scale for a whole number: 666 for 666.67.
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n, 16] x) => (float[n, 16] y) '
        f"<float s = {{0.02}}, uint8 z = {{128}}, float t = {{{scale}}}, uint8 zero = {{0}}> "
        "{ a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) c = Softmax(b) "
        "d = QuantizeLinear(c, t, zero) y = DequantizeLinear(d, t, zero) }"
    )
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 16), np.float32))
    found = locate(Model(lambda m, x: x.softmax(-1)).eval(), file, x, questions=["runtime"])
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = file.SerializeToString()
    expected, got = (
        onnxruntime.InferenceSession(data, options).run(None, {"x": x.numpy()})[0]
        for options in (plain, None)
    )
    wrong = [row for row in found.rows if row.verdict is Verdict.RUNTIME_WRONG]
    assert bool(wrong) is not np.array_equal(got, expected)
    assert all(any("Softmax" in name for name in row.fused) for row in wrong)
    if scale == 2**-9:
        assert found.exit_code == ExitCode.EQUAL


MISORDERED = {
    "not transposed": (lambda x: x.relu().T.cumsum(1), "r = Relu(x) t = Identity(r) y = CumSum(t, one)"),
    "transposed before a node that doesn't mind": (
        lambda x: x.relu().cumsum(1),
        "t = Transpose(x) r = Relu(t) y = CumSum(r, one)",
    ),
    "put together the wrong way": (
        lambda x: x.relu().roll(1, 1).cumsum(1),
        "r = Relu(x) a, b = Split<axis = 1>(r, sizes) t = Concat<axis = 1>(a, b) y = CumSum(t, one)",
    ),
    "not reshaped": (
        lambda x: x.relu().reshape(2, 8).cumsum(1),
        "r = Relu(x) t = Identity(r) y = CumSum(t, one)",
    ),
    "not transposed, and nothing after it but a shape": (
        lambda x: x.relu().T.reshape(2, 8),
        "r = Relu(x) t = Identity(r) y = Reshape(t, shape)",
    ),
    "not transposed, and then back": (
        lambda x: x.relu().T.contiguous().T.cumsum(1),
        "r = Relu(x) t = Identity(r) u = Transpose(t) y = CumSum(u, one)",
    ),
    "not transposed, after what is": (
        lambda x: x.relu().reshape(2, 8).T.cumsum(1),
        "r = Relu(x) a = Reshape(r, third) b = Reshape(a, shape) t = Identity(b) y = CumSum(t, one)",
    ),
    "not transposed before a step that the model hasn't": (
        lambda x: torch.addmm(x, x.relu().T, x.relu()),
        "r = Relu(x) t = Identity(r) m = MatMul(t, r) y = Add(m, x)",
    ),
    "in order, but added up wrongly": (
        lambda x: x.relu().T.cumsum(0),
        "r = Relu(x) u = Transpose(r) t = CumSum(u, one) y = Neg(t)",
    ),
}


@pytest.mark.parametrize("name", MISORDERED)
def test_who_misorders_elements_is_blamed_and_not_who_reads_them(name: str) -> None:
    function, nodes = MISORDERED[name]
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[4, 4] x) => (float[n, m] y) '
        "<int64 one = {1}, int64[2] sizes = {3, 1}, int64[2] shape = {2, 8}, int64[3] third = {1, 2, 8}> "
        f"{{ {nodes} }}"
    )
    (guilty,) = (node for node in file.graph.node if node.output[0] == "t")
    guilty.name = "guilty"
    found = locate(Model(lambda m, x: function(x)).eval(), file, uniform(4, 4), questions=["export"])
    assert (found.node, found.region[0]) == ("guilty", "guilty")
    verdicts = [row.verdict for row in found.rows if row.node == "guilty"]
    assert verdicts == [Verdict.EXPORT_WRONG]


NOISE = '<domain: "my", opset_import: ["": 18]> Noise (x) => (y) { r = RandomNormalLike(x) y = Add(x, r) }'
NOTHING_SAID = {
    "ties": ("int64[3]", "{ r = Relu(x) v, y = TopK(r, k) }", lambda m, x: torch.topk(torch.relu(x), 3)[1]),
    "chance": ("float[4]", "{ r = RandomNormalLike(x) y = Add(x, r) }", lambda m, x: x + torch.randn_like(x)),
    "chance inside": ("float[4]", f"{{ y = my.Noise(x) }} {NOISE}", lambda m, x: x + torch.randn_like(x)),
}


@pytest.mark.parametrize("name", NOTHING_SAID)
def test_nobody_is_cleared_where_nothing_can_be_said(name: str) -> None:
    kind, nodes, function = NOTHING_SAID[name]
    head = '<ir_version: 8, opset_import: ["": 18, "my": 1]> g (float[4] x) => '
    head += f"({kind} y) <int64[1] k = {{3}}> "
    found = locate(Model(function).eval(), onnx.parser.parse_model(head + nodes), -uniform(4).abs())
    assert (found.node, found.exit_code) == (None, ExitCode.CANNOT_SAY)
    assert {row.verdict for row in found.unsettled} == {Verdict.CANNOT_SAY}


@pytest.mark.parametrize("questions", [["export", "runtime"], ["runtime"]], ids=len)
def test_nobody_is_cleared_where_the_run_is_wrong(questions: list[Any]) -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n] x) => (float[n] y) { e = Exp(x) y = Log(e) }'
    )
    model = Model(lambda m, x: x + 0).eval()
    # Of 100 Exp is infinite in float32.
    for size, code in ((100.0, ExitCode.CANNOT_SAY), (1.0, ExitCode.EQUAL)):
        x = torch.tensor([size, 2.0])
        found = locate(model, file, x, questions=questions)
        assert (found.node, found.exit_code) == (None, code)
        assert [row.question for row in found.unsettled] == ["runtime"] * (size > 1)
        assert check(model, file, x).exit_code is code


def test_nobody_is_cleared_of_nothing() -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
    )
    for count, code in ((0, ExitCode.CANNOT_SAY), (1, ExitCode.EQUAL)):
        assert locate(Model(lambda m, x: -x).eval(), file, uniform(count)).exit_code is code


@pytest.mark.parametrize("memory", [2**30, 8])
@pytest.mark.parametrize("questions", [["export", "runtime"], ["runtime"]], ids=len)
def test_nodes_may_be_in_any_order(questions: list[Any], memory: int) -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n] x) => (float[n] y) '
        "{ y = Neg(b) b = Exp(a) a = Relu(x) }"
    )
    model = Model(lambda m, x: -x.relu().exp()).eval()
    assert check(model, file, uniform(5)).exit_code is ExitCode.EQUAL
    found = locate(model, file, uniform(5), questions=questions, memory=memory)
    assert found.exit_code is ExitCode.EQUAL
    assert [row.op for row in found.rows[:3]] == ["ai.onnx::Relu", "ai.onnx::Exp", "ai.onnx::Neg"]


def test_nodes_that_depend_on_each_other_are_refused() -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n] x) => (float[n] y) { y = Add(x, a) a = Neg(y) }'
    )
    with pytest.raises(ParityError, match="depend on each other"):
        locate(Model(lambda m, x: x).eval(), file, uniform(5))


@pytest.mark.parametrize("function", [check, locate])
def test_what_nothing_gives_is_said(function: Any) -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n] x) => (float[n] y) { y = Add(x, gone) }'
    )
    file.graph.node[0].name = "sum"
    with pytest.raises(ParityError, match=r"node 'sum' \(Add\) reads 'gone', which nothing gives"):
        function(Model(lambda m, x: x).eval(), file, uniform(4))


def test_views_of_weights_take_none_of_the_memory() -> None:
    weight, result = torch.rand(4, 4, dtype=torch.float64), torch.rand(4, 4, dtype=torch.float64)
    counterparts = Counterparts(result.nbytes, [weight])
    counterparts.see("t", (), [weight.t()])
    counterparts.see("mul", (), [result])
    assert counterparts.find(weight.numpy(), 1e-9) == Counterpart("t", None)
    assert counterparts.find(result.numpy(), 1e-9) == Counterpart("mul", 1)
    other = result.numpy().copy()
    other[0, 0], other[0, 1] = other[0, 0] + other[0, 1] / 2, other[0, 1] / 2  # sums as before
    assert counterparts.find(other, 1e-9) is None


@pytest.mark.parametrize(("last", "guilty"), [("Neg", None), ("Abs", "Abs#2")])
def test_tensors_of_a_type_that_numpy_has_not_are_matched(last: str, guilty: str | None) -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 19]> g (float[n] x) => (float[n] y) '
        f"{{ a = Cast<to = 17>(x) b = Cast<to = 1>(a) y = {last}(b) }}"
    )
    found = locate(Model(lambda m, x: -x.to(torch.float8_e4m3fn).float()).eval(), file, uniform(5))
    assert found.node == guilty
    casts = [row.counterpart for row in found.rows if row.question == "export" and row.op == "ai.onnx::Cast"]
    assert casts == ["aten._to_copy.default"] * 2


class Decaying(nn.Module):
    """Sees its weight only where the sequence is longer than 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(uniform(16))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight * (x.cumsum(1) - x)


@pytest.mark.parametrize("inputs", [None, [(uniform(2, 1, 16),), (uniform(2, 5, 16),)]])
def test_it_is_looked_for_where_a_sample_shows_it(inputs: Any) -> None:
    model = Decaying().eval()
    free = ({0: "batch", 1: "length"},)
    file = export(model, (uniform(2, 5, 16),), dynamic_shapes=free, verbose=False).model_proto
    found = locate(model, file, inputs)
    assert (found.node, str(found)) == (None, "no node is guilty")
    with torch.no_grad():
        model.weight[2] += 0.5
    found = locate(model, file, inputs)
    (reader,) = (node for node in file.graph.node if "weight" in node.input)
    assert found.node == reader.name
    assert str(found).startswith(f"guilty: {reader.name} (ai.onnx::Mul), export")
    one = locate(model, file, (uniform(2, 1, 16),))
    assert one.node is None
    assert str(one).endswith("no node can be blamed, and not all of them can be cleared")


def test_what_was_found_is_json() -> None:
    case = ARCHITECTURES["LSTM"]
    found = locate(case.model(), onnx.load_from_string(exported("LSTM")), case.inputs)
    read = json.loads(found.to_json())
    assert read["node"] is None
    assert {row["question"] for row in read["rows"]} == {"export", "runtime"}
    assert read["matched"].keys() == {"export", "runtime"}


class Masked(nn.Module):
    """Attention with a mask that is added."""

    def __init__(self, low: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.low = nn.Linear(8, 8), nn.Linear(8, 8), low

    def forward(self, x: Any, keep: Any) -> Any:
        scores = self.q(x) @ self.k(x).transpose(-1, -2)
        return (scores + (1 - keep)[:, None] * self.low).softmax(-1) @ x


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("low", [torch.finfo(torch.float32).min, -1e9, -10.0])
def test_a_fault_before_a_mask_is_not_that_of_what_reads_it(low: float, dynamo: bool, tmp_path: Path) -> None:
    model = Masked(low).eval()
    inputs = uniform(2, 5, 8), torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    export(model, inputs, tmp_path / "model.onnx", dynamo=dynamo, verbose=False)
    file = onnx.load(tmp_path / "model.onnx")
    weight = model.q.weight.detach().numpy()
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in file.graph.initializer}
    name = next(n for n, a in arrays.items() if np.array_equal(a, weight) or np.array_equal(a, weight.T))
    changed = arrays[name].copy()
    changed[3, 2] *= 1.01
    next(i for i in file.graph.initializer if i.name == name).CopyFrom(
        onnx.numpy_helper.from_array(changed, name)
    )
    found = locate(model, file, inputs)
    assert found.node in [node.name for node in file.graph.node if name in node.input]


def attention(model: Any, x: Tensor) -> Tensor:
    q, k, v = model.packed(x).chunk(3, -1)
    weights: Tensor = (q @ k.transpose(-1, -2) / 3).softmax(-1)
    return weights @ v


@BOTH
@pytest.mark.parametrize("place", [2, 20], ids=["q", "v"])  # softmax doesn't see a bias of k
def test_a_part_that_is_right_does_not_clear_the_whole(place: int, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Model(attention, packed=nn.Linear(8, 24)).eval(), uniform(2, 5, 8)
    path = tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, external_data=False, verbose=False)
    file = onnx.load(path)
    (bias,) = (each for each in file.graph.initializer if list(each.dims) == [24])
    (reader,) = (node.name for node in file.graph.node if bias.name in node.input)
    values = onnx.numpy_helper.to_array(bias).copy()
    values[place] *= 1.5
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    found = locate(model, file, (x,))
    assert found.question == "export"
    assert reader in found.region[:2]  # the product before it has no counterpart


def rotated(model: Any, x: Tensor) -> Tensor:
    places = torch.outer(torch.arange(x.shape[1]).float(), 1 / 10000 ** (torch.arange(0, 8, 2).float() / 8))
    return x * torch.cat((places, places), -1).cos()


@BOTH
def test_a_table_made_in_the_file_may_be_to_blame(dynamo: bool, tmp_path: Path) -> None:
    model, x, path = Model(rotated).eval(), uniform(2, 5, 8), tmp_path / "model.onnx"
    free: Any = (
        {"dynamic_shapes": (({1: "n"},),)}
        if dynamo
        else {"input_names": ["x"], "dynamic_axes": {"x": {1: "n"}}}
    )
    export(model, (x,), path, dynamo=dynamo, verbose=False, **free)
    file = onnx.load(path)
    (table,) = (node for node in file.graph.node if node.op_type == "Cos")
    assert locate(model, file, (x,)).node is None
    table.op_type = "Sin"
    assert locate(model, file, (x,)).node == table.name


def test_what_the_runtime_hands_out_in_16_bits_is_not_all_that_it_goes_on_with(tmp_path: Path) -> None:
    """Without kernels for float16 it computes in float32, and casts what it hands out."""

    def call(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)

    model, path = Model(call).eval(), tmp_path / "model.onnx"
    generator = torch.Generator().manual_seed(0)
    inputs = tuple((torch.randn(4, 8, 9, 8, generator=generator) / 2).half() for _ in range(3))
    given = (*inputs, torch.ones(9, 9, dtype=torch.bool).tril())
    export(model, given, path, verbose=False)
    assert check(model, path, given).verdict is Verdict.EQUAL
    assert locate(model, path, given).node is None


class Rounded(torch.autograd.Function):
    """A quantiser of weights."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        return (w / 0.05).round().clamp(-8, 7) * 0.05

    @staticmethod
    def symbolic(g: Any, w: Any) -> Any:
        return g.op("tests.locate::Rounded", w)


class Pair(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.sin(), y.cos()

    @staticmethod
    def symbolic(g: Any, x: Any, y: Any) -> Any:
        return g.op("tests.locate::Pair", x, y, outputs=2)


def quantised(model: Any, x: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, Rounded.apply(model.layer.weight), model.layer.bias)


def paired(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = Pair.apply(model.layer(x), x)
    return first * 2, second


@BOTH
def test_what_is_made_of_a_weight_may_be_to_blame(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x, path = Model(quantised, layer=nn.Linear(8, 4)).eval(), uniform(3, 8), tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, functions="attach", verbose=False)
    file = onnx.load(path)
    assert locate(model, file, (x,)).node is None
    (quantiser,) = (node for node in file.graph.node if node.op_type == "Rounded")
    next(node for node in file.functions[0].node if node.op_type == "Round").op_type = "Floor"
    assert locate(model, file, (x,)).node == quantiser.name


@BOTH
def test_one_result_of_a_node_does_not_clear_what_others_come_of(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x, path = Model(paired, layer=nn.Linear(8, 8)).eval(), uniform(2, 8), tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, functions="attach", external_data=False, verbose=False)
    file = onnx.load(path)
    weight = next(each for each in file.graph.initializer if list(each.dims) == [8, 8])
    (reader,) = (node.name for node in file.graph.node if weight.name in node.input)
    turned = np.ascontiguousarray(onnx.numpy_helper.to_array(weight).T)
    weight.CopyFrom(onnx.numpy_helper.from_array(turned, weight.name))
    assert locate(model, file, (x,)).node == reader


STEPS = {
    "round": lambda h: (3 * h).round(),
    "sign": torch.sign,
    "clamp": lambda h: h.clamp(-0.1, 0.1),
    "relu": torch.relu,
    "amax": lambda h: h.amax(-1),
}


@pytest.mark.parametrize("step", STEPS)
def test_what_many_others_give_too_clears_nobody(step: str, tmp_path: Path) -> None:
    def call(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        h = model.layer(x)
        return STEPS[step](h), h.tanh()

    torch.manual_seed(0)
    model, x, path = Model(call, layer=nn.Linear(8, 4)).eval(), uniform(3, 8), tmp_path / "model.onnx"
    export(model, (x,), path, external_data=False, verbose=False)
    file = onnx.load(path)
    assert locate(model, file, (x,)).node is None
    bias = next(each for each in file.graph.initializer if list(each.dims) == [4])
    values = onnx.numpy_helper.to_array(bias).copy()
    values[1] *= 1.01
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    (reader,) = (node.name for node in file.graph.node if bias.name in node.input)
    assert reader in locate(model, file, (x,)).region


class Windowed(nn.Module):
    """Attention to the three places before, by a mask that depends on the size."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Linear(8, 24)

    # By its name: over *inputs and a free size torch 2.9 fails.
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.packed(x).chunk(3, -1)
        i, j = torch.arange(x.shape[1])[:, None], torch.arange(x.shape[1])[None]
        keep = (j <= i) & (j > i - 3)
        weights: Tensor = (q @ k.transpose(1, 2)).masked_fill(~keep, float("-inf")).softmax(-1)
        return weights @ v


def test_a_mask_made_in_the_file_may_be_to_blame(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x, path = Windowed().eval(), uniform(2, 6, 8), tmp_path / "model.onnx"
    export(model, (x,), path, dynamic_shapes=({1: "n"},), verbose=False)
    file = onnx.load(path)
    assert locate(model, file, (x,)).node is None
    (greater,) = (node for node in file.graph.node if node.op_type == "Greater")
    greater.op_type = "GreaterOrEqual"
    assert locate(model, file, (x,)).node == greater.name


class Bags(nn.Module):
    """Sums rows of a table, which the newer exporter does in a Loop over sequences."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bags = nn.EmbeddingBag(50, 8, mode="sum")
        self.first, self.last = nn.Linear(5, 8), nn.Linear(16, 3)

    def forward(self, x: Tensor, places: Tensor, starts: Tensor) -> Tensor:
        return self.last(torch.cat([self.bags(places, starts), self.first(x)], 1))


def test_what_a_loop_reads_is_vouched_for_by_what_comes_of_it() -> None:
    model = Bags().eval()
    inputs = (torch.randn(3, 5), torch.randint(0, 50, (10,)), torch.tensor([0, 3, 6]))
    file = export(model, inputs, external_data=False, verbose=False).model_proto
    assert locate(model, file, inputs).node is None
    (weight,) = (each for each in file.graph.initializer if each.name == "first.weight")
    changed = onnx.numpy_helper.to_array(weight).copy()
    changed.flat[np.abs(changed).argmax()] *= 1.001
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    found = locate(model, file, inputs)
    (guilty,) = (node for node in file.graph.node if node.name == found.node)
    assert "first.weight" in guilty.input


class Scaled(nn.Module):
    """Computes upon a weight of few elements before it meets an input, as a logit scale."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.randn(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.transpose(-1, -2) * self.scale.clamp(max=4.6).exp()).softmax(-1)


def test_the_reader_of_a_wrong_weight_is_blamed_where_it_reads_no_input() -> None:
    model, x = Scaled().eval(), torch.randn(3, 2, 5, 4)
    file = export(model, (x,), dynamo=False, verbose=False).model_proto
    (weight,) = (each for each in file.graph.initializer if each.name == "scale")
    weight.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.001), "scale")
    )
    found = locate(model, file, x)
    (guilty,) = (node for node in file.graph.node if node.name == found.node)
    assert "scale" in guilty.input


class Normalised(nn.Module):
    """Attention whose queries are normalised again, so that a norm's epsilon shows in the values alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.v = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.layer_norm(x, (8,))
        q = nn.functional.normalize(self.q(y), dim=-1)
        return (q @ q.transpose(-1, -2)).softmax(-1) @ self.v(y)


class Halved(nn.Module):
    """Rounds to few levels, whose numbers it multiplies back besides (finite scalar quantisation)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("halves", torch.tensor([4.0, 2.0, 2.0, 2.0]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.round(4 * x) / self.halves
        return y.reshape(-1), (y * self.halves + 1).sum(-1)


@BOTH
@pytest.mark.parametrize(("model", "x"), [(Normalised(), uniform(2, 5, 8)), (Halved(), uniform(3, 4))])
def test_a_fault_that_cancels_on_one_way_is_not_the_others(
    model: nn.Module, x: Tensor, dynamo: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    export(model.eval(), (x,), path, dynamo=dynamo, external_data=False, verbose=False)
    file = onnx.load(path)
    assert locate(model, file, (x,)).node is None
    if isinstance(model, Normalised):
        (guilty,) = (node for node in file.graph.node if node.op_type == "LayerNormalization")
        next(each for each in guilty.attribute if each.name == "epsilon").f *= 3
    else:
        (guilty,) = (node for node in file.graph.node if node.op_type == "Div")
        halves = next(each for each in file.graph.initializer if list(each.dims) == [4])
        values = onnx.numpy_helper.to_array(halves) * np.float32([1.001, 1, 1, 1])
        halves.CopyFrom(onnx.numpy_helper.from_array(values, halves.name))
    assert locate(model, file, (x,)).node == guilty.name


@pytest.mark.parametrize("ones", [True, False])
def test_who_hands_on_what_it_is_given_is_not_cleared_by_that(ones: bool) -> None:
    model = Model(lambda m, x: (m.layer.weight[0] * x.cumsum(1)).tanh(), layer=nn.Linear(8, 1)).eval()
    with torch.no_grad():
        model.layer.weight.fill_(1.0) if ones else None
    file = export(model, (uniform(3, 8),), external_data=False, verbose=False).model_proto
    (guilty,) = (node for node in file.graph.node if node.op_type == "Mul")
    if ones:
        with torch.no_grad():
            model.layer.weight[0, 2] = 1.5
    else:
        guilty.op_type = "Identity"
        del guilty.input[:]
        guilty.input.append(next(node for node in file.graph.node if node.op_type == "CumSum").output[0])
    assert locate(model, file, uniform(3, 8)).node == guilty.name


@BOTH
@pytest.mark.parametrize(("kind", "other"), [("Sin", "Cos"), ("Cos", "Sin")])
def test_who_gives_what_another_should_is_blamed(kind: str, other: str, dynamo: bool) -> None:
    def call(model: Any, x: Tensor) -> Tensor:
        angles = model.layer(x)
        a, b = angles.sin(), angles.cos()
        return torch.cat([x * a - b, x * b + a], -1)

    torch.manual_seed(0)
    model, x = Model(call, layer=nn.Linear(8, 8)).eval(), uniform(3, 8)
    file = export(model, (x,), dynamo=dynamo, verbose=False).model_proto
    (guilty,) = (node for node in file.graph.node if node.op_type == kind)
    guilty.op_type = other
    assert locate(model, file, (x,)).node == guilty.name


class LayerScaled(nn.Module):
    """Two blocks of which the later adds a small share, as with LayerScale, and alone is seen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1e-4 * torch.tanh(self.first(x))
        z: Tensor = self.head(x + 1e-5 * torch.tanh(self.second(y)))
        return z


def test_a_fault_that_hardly_shows_is_not_the_last_nodes() -> None:
    torch.manual_seed(0)
    model, x = LayerScaled().eval(), torch.randn(2, 16)
    file = export(model, (x,), external_data=False, verbose=False).model_proto
    (bias,) = (each for each in file.graph.initializer if each.name == "first.bias")
    changed = onnx.numpy_helper.to_array(bias).copy()
    changed[3] *= 1.01
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
    (guilty,) = (node for node in file.graph.node if "first.bias" in node.input)
    found = locate(model, file, x)
    assert 0.0 < found.outputs[0].max_abs < 1e-12
    assert found.node == guilty.name


class Biased(nn.Module):
    """Layers that PyTorch computes in one operation, and the exporters write as several nodes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm = nn.Linear(8, 8), nn.GroupNorm(2, 4)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return (x + torch.tanh(self.norm(self.linear(x)))).exp()


BIASED = {
    "weight of a product": (lambda node: node.op_type == "MatMul", 0),
    "bias of a product": (lambda node: node.op_type == "Add", 0),
    "statistics of a norm": (lambda node: node.op_type == "InstanceNormalization", 0),
    "weight of a norm": (lambda node: node.op_type == "Mul", 0),
    "bias of a norm": (lambda node: node.op_type == "Add", 1),
}


@BOTH
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of torch's own group_norm
@pytest.mark.parametrize("name", BIASED)
def test_of_the_nodes_for_one_step_of_the_model_the_wrong_one_is_blamed(name: str, dynamo: bool) -> None:
    model, x = Biased().eval(), uniform(3, 4, 8)
    file = export(model, (x,), dynamo=dynamo, external_data=False, verbose=False).model_proto
    is_meant, number = BIASED[name]
    guilty = [node for node in file.graph.node if is_meant(node)][number]
    if guilty.op_type == "InstanceNormalization":
        next(each for each in guilty.attribute if each.name == "epsilon").f *= 3
    else:
        (weight,) = (each for each in file.graph.initializer if each.name in guilty.input)
        changed = onnx.numpy_helper.to_array(weight) * np.float32(1.001)
        weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    assert locate(model, file, x, questions=["export"]).node == guilty.name


def test_a_bias_that_is_missing_is_not_that_of_who_adds_something_else() -> None:
    model = Model(lambda m, x: x + m.layer(x), layer=nn.Linear(8, 8)).eval()
    file = export(model, (uniform(3, 4, 8),), external_data=False, verbose=False).model_proto
    product, bias, residual = file.graph.node
    residual.input[list(residual.input).index(bias.output[0])] = product.output[0]
    file.graph.node.remove(bias)
    assert locate(model, file, uniform(3, 4, 8), questions=["export"]).node == product.name


class Newton(nn.Module):
    """Computes a root until it changes no more: how much it changed last is rounding alone."""

    def forward(self, a: Tensor) -> Tensor:
        def body(x: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
            n = 0.5 * (x + a / x)
            return n, n - x

        start = (a.clone(), torch.ones_like(a))
        root: Tensor = torch.while_loop(lambda x, change: change.abs().max() > 1e-6, body, start)[0]
        return root


@pytest.mark.skipif(TORCH < (2, 13), reason="torch 2.9 doesn't convert while_loop")
def test_a_result_that_nothing_reads_is_nobodys_fault() -> None:
    model, a = Newton().eval(), torch.tensor([1.3, 1.7, 1.1])
    file = export(model, (a,), verbose=False)
    assert check(model, file, (a,)).verdict is Verdict.EQUAL
    assert locate(model, file, (a,)).node is None


class Recurrent(nn.Module):
    """Gives the last states of both layers, which the file puts together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.GRU(6, 8, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, last = self.layers(x)
        return y, last


@BOTH
@pytest.mark.parametrize("free", [True, False])
def test_of_recurrent_layers_the_wrong_one_is_blamed(free: bool, dynamo: bool) -> None:
    model, x = Recurrent().eval(), uniform(2, 5, 6)
    options: dict[str, Any] = {"input_names": ["x"], "verbose": False, "external_data": False}
    if free:
        options |= {"dynamic_shapes": ({0: "b"},)} if dynamo else {"dynamic_axes": {"x": {0: "b"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own layers, with a batch that may vary
        right = export(model, (x,), dynamo=dynamo, **options).model_proto
    layers = [node for node in right.graph.node if node.op_type == "GRU"]
    assert locate(model, right, (x,)).node is None
    for layer in layers:
        file = onnx.ModelProto()
        file.CopyFrom(right)
        (weight,) = (each for each in file.graph.initializer if each.name == layer.input[1])
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0, 3] *= 1.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        assert locate(model, file, (x,)).node == layer.name


def test_what_passes_over_some_of_its_input_does_not_vouch_for_it() -> None:
    def call(model: Any, x: Tensor) -> Tensor:
        y = model.stem(x)
        z: Tensor = model.beside(y) + model.main(y)
        return z

    torch.manual_seed(0)
    layers = {
        "stem": nn.Conv2d(3, 4, 3, padding=1),
        "beside": nn.Conv2d(4, 4, 1, 2),  # reads every second row and column
        "main": nn.Conv2d(4, 4, 3, 2, 1),
    }
    model, x = Model(call, **layers).eval(), uniform(2, 3, 8, 8)
    file = export(model, (x,), verbose=False).model_proto
    (stem,) = (node for node in file.graph.node if "x" in node.input or "tensors_0" in node.input)
    next(each for each in stem.attribute if each.name == "pads").ints[:] = [1, 1, 1, 0]
    del file.graph.value_info[:]
    assert locate(model, file, (x,)).node == stem.name
