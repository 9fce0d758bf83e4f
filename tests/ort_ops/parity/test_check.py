"""What a check refuses, what it compares strictly, and what it says of what it found."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import parser
from torch import nn
from torch.autograd import Function

import ort_ops
from mylinear import LinearF, MyLinear
from mylinear.export import export as export_mylinear
from ort_ops.errors import ParityError, ProviderError
from ort_ops.export import export
from ort_ops.parity import ExitCode, Report, Row, Verdict, check, locate
from ort_ops.parity.constants import meant
from ort_ops.parity.inputs import make_inputs

from .models import Model, uniform


def text(body: str, *, inputs: str = "float[n, 4] x", outputs: str = "float[n, m] y") -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )


def model_of(function: Callable[..., Any]) -> nn.Module:
    return Model(lambda m, *tensors: function(*tensors)).eval()


def only(report: Report, question: str) -> Row:
    (row,) = (row for row in report.rows if row.question == question)
    return row


def test_a_model_in_training_mode_is_refused() -> None:
    model = nn.Sequential(nn.Dropout())
    with pytest.raises(ParityError, match=r"0 is in training mode|Sequential is in training mode"):
        check(model, text("y = Identity(x)"), uniform(3, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": []}, "no inputs were given"),
        ({"inputs": (uniform(3, 4), uniform(3, 4))}, "2 inputs were given but the file takes 1: x"),
        ({"inputs": {"z": uniform(3, 4)}}, "inputs are named z"),
        ({"inputs": uniform(3, 5)}, "input 'x' is of shape"),
        ({"inputs": uniform(3, 4).double()}, "input 'x' is float64; the file takes float32"),
        ({"inputs": uniform(3, 4), "providers": []}, "no provider was given"),
        ({"inputs": uniform(3, 4), "levels": []}, "no level was given"),
        ({"inputs": uniform(3, 4), "threads": []}, "no number of threads was given"),
        (
            {"inputs": uniform(3, 4), "levels": ["fast"]},
            "'fast' is no optimisation level; expected one of disable",
        ),
        ({"inputs": uniform(3, 4), "threads": [-3]}, "-3 is no number of threads; expected 1 or more"),
        ({"inputs": uniform(3, 4), "ranges": {"x": (0.0, 1.0)}}, "expected them or inputs, not both"),
        ({"inputs": uniform(3, 4), "dims": {"n": 3}}, "expected them or inputs, not both"),
        ({"inputs": uniform(3, 4), "rule": (float("nan"), 0.0)}, "expected .atol, rtol."),
        ({"inputs": uniform(3, 4), "rule": (0.0, -1.0)}, "expected .atol, rtol."),
        ({"ranges": {"x": (1.0, 0.0)}}, "the range of 'x' is 1 to 0"),
        ({"ranges": {"x": (0.0, float("nan"))}}, "the range of 'x' is 0 to nan"),
    ],
)
def test_what_compares_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParityError, match=message):
        check(model_of(torch.relu), text("y = Relu(x)"), **options)


@pytest.mark.parametrize("questions", [[], ["zz"], "export"])
def test_questions_that_nobody_asks_are_refused(questions: Any) -> None:
    with pytest.raises(ParityError, match="expected some of 'export' and 'runtime'"):
        locate(model_of(torch.relu), text("y = Relu(x)"), uniform(3, 4), questions=questions)


@pytest.mark.parametrize(
    "options",
    [
        {"levels": "all"},
        {"threads": 2},
        {"providers": "cpu"},
        {"libraries": "libx.so"},
        {"functions": Function},
    ],
)
def test_one_is_no_list(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="expected a list"):
        check(model_of(torch.relu), text("y = Relu(x)"), uniform(3, 4), **options)


def test_an_iterator_of_providers_is_one_for_all_that_is_asked() -> None:
    report = check(model_of(torch.relu), text("y = Relu(x)"), uniform(3, 4), iter(["cpu"]))  # type: ignore[arg-type]
    assert {row.question for row in report.rows} == {"export", "runtime"}


def test_locate_asks_the_same_of_its_providers() -> None:
    model, file = model_of(torch.relu), text("y = Relu(x)")
    assert locate(model, file, uniform(3, 4), providers=["cuda"], questions=["export"]).node is None
    with pytest.raises(ParityError, match="no provider was given"):
        locate(model, file, uniform(3, 4), providers=[])
    with pytest.raises(TypeError, match="expected a list"):
        locate(model, file, uniform(3, 4), providers="cpu")
    with pytest.raises(TypeError, match="expected a text, such as 'cuda:use_tf32=0'"):
        locate(model, file, uniform(3, 4), providers=[("CPUExecutionProvider", {})])  # type: ignore[list-item]


def test_a_provider_that_is_not_there_is_an_error() -> None:
    if "CUDAExecutionProvider" in ort_ops.providers.session_providers(None):
        pytest.skip("the provider is there")
    with pytest.raises(ProviderError):
        check(model_of(torch.relu), text("y = Relu(x)"), uniform(3, 4), providers=["cuda"])


@pytest.mark.parametrize("level", [None, "all"])
def test_a_kernel_that_turns_out_not_to_fit_leaves_the_body_at_every_level(level: str | None) -> None:
    @ort_ops.onnx_op("tests.unfit::Op")
    def kernel(x: NDArray[np.float64]) -> NDArray[np.float64]:
        raise AssertionError

    file = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 18, "tests.unfit": 1]>
        g (float[n, 4] x) => (float[n, m] y) { v = Identity (x) y = tests.unfit.Op (v) }
        <domain: "tests.unfit", opset_import: ["": 18]> Op (a) => (b) { b = Neg (a) }
    """)
    x = uniform(3, 4)
    report = check(model_of(torch.neg), file, x, levels=[level])
    assert report.verdict is Verdict.EQUAL
    assert "tests.unfit::Op: function body" in only(report, "runtime").ran
    assert locate(model_of(torch.neg), file, x).node is None


def test_of_a_session_that_the_runtime_refuses_nothing_can_be_said() -> None:
    file = text("y = LRN<size = 2>(x)", inputs="float[n, 4, 3, 3] x", outputs="float[n, 4, 3, 3] y")
    report = check(
        model_of(lambda x: torch.nn.functional.local_response_norm(x, 2)), file, uniform(1, 4, 3, 3)
    )
    row = only(report, "runtime")
    assert row.verdict is Verdict.CANNOT_SAY
    assert row.reason.startswith("no session could be made: ")
    assert "\n" not in row.reason


def test_no_elements_are_no_equality() -> None:
    report = check(model_of(torch.relu), text("y = Relu(x)"), torch.zeros(0, 4))
    assert report.verdict is Verdict.CANNOT_SAY
    assert report.exit_code is ExitCode.CANNOT_SAY
    assert check(model_of(torch.relu), text("y = Relu(x)"), uniform(3, 4)).exit_code is ExitCode.EQUAL


def test_a_sample_that_the_runtime_refuses_leaves_the_others_judged() -> None:
    # ONNX Runtime fuses these into a Reshape to (0, 2, -1), which it doesn't take where there is nothing.
    file = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n, 4] x) => (float[n, 2, 2] y) '
        "<int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64[1] axis = {0}, int64[1] rows = {2}> "
        "{ size = Shape(x) a = Gather(size, zero) n = Unsqueeze(a, axis) b = Gather(size, one) "
        "h = Div(b, two) m = Unsqueeze(h, axis) s = Concat<axis = 0>(n, rows, m) y = Reshape(x, s) }"
    )
    samples = [uniform(3, 4), uniform(0, 4), uniform(2, 4)]
    report = check(model_of(lambda x: x.reshape(-1, 2, 2)), file, samples)
    assert only(report, "export").verdict is Verdict.EQUAL
    row = only(report, "runtime")
    assert (row.verdict, row.sample, row.elements) == (Verdict.CANNOT_SAY, 1, 3 * 4 + 2 * 4)
    assert row.reason.startswith("sample 1, x (0, 4): the run fails: ")


@pytest.mark.parametrize(
    ("function", "body", "outputs", "message"),
    [
        (
            lambda x: x,
            "y = Identity(x) z = Relu(x)",
            "float[n, m] y, float[n, m] z",
            "2 outputs and the model 1",
        ),
        (
            lambda x: x.double(),
            "y = Identity(x)",
            "float[n, m] y",
            "the file gives float32, the model float64",
        ),
        (
            lambda x: x > 0,
            "a = Relu(x) y = Cast<to = 6>(a)",
            "int32[n, m] y",
            "the file gives int32, the model bool",
        ),
        (lambda x: x.T, "y = Identity(x)", "float[n, m] y", r"the shape \(3, 4\), the model \(4, 3\)"),
        (lambda x: x.sum(1), "y = ReduceSum(x)", "float[k, l] y", "gives the shape"),
    ],
)
def test_count_dtype_and_shape_are_strict(
    function: Callable[..., Any], body: str, outputs: str, message: str
) -> None:
    report = check(model_of(function), text(body, outputs=outputs), uniform(3, 4))
    assert report.verdict is Verdict.EXPORT_WRONG
    assert any(re.search(message, row.reason) for row in report.rows), str(report)


def test_integers_are_the_same_or_not_and_the_difference_is_exact() -> None:
    right = text("y = Identity(x)", inputs="int64[n] x", outputs="int64[n] y")
    wrong = text(
        "o = Constant<value = int64[1] {1}>() y = Add(x, o)", inputs="int64[n] x", outputs="int64[n] y"
    )
    given = torch.tensor([100_000, 2**62, -(2**62)])
    assert check(model_of(lambda x: x * 1), right, given).verdict is Verdict.EQUAL
    row = only(check(model_of(lambda x: x * 1), wrong, given), "export")
    assert (row.verdict, row.got, row.expected) == (Verdict.EXPORT_WRONG, 100_001, 100_000)


def test_unsigned_bytes_are_not_compared_around_the_corner() -> None:
    kind = {"inputs": "uint8[n] x", "outputs": "uint8[n] y"}
    model = model_of(lambda x: x)
    given = torch.zeros(3, dtype=torch.uint8)
    body = "o = Constant<value = uint8[1] {255}>() y = Add(x, o)"
    report = check(model, text(body, **kind), given)
    assert report.verdict is Verdict.EXPORT_WRONG
    assert only(report, "export").got == 255


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_nan_and_infinities_are_compared_by_place(value: str) -> None:
    given = uniform(3, 4)
    given[1, 2] = float(value)
    assert check(model_of(lambda x: x * 1), text("y = Identity(x)"), given).verdict is Verdict.EQUAL
    report = check(model_of(lambda x: torch.nan_to_num(x, 0.0, 0.0, 0.0)), text("y = Identity(x)"), given)
    row = only(report, "export")
    assert (row.verdict, row.index) == (Verdict.EXPORT_WRONG, (1, 2))


def test_a_weight_that_differs_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Linear(16, 16).eval()
    program = export(model, (uniform(3, 16),), verbose=False)
    weight = program.model.graph.initializers["weight"]
    assert weight.const_value is not None
    changed = weight.const_value.numpy().copy()
    changed[3, 5] *= np.float32(1 + 1e-6)
    weight.const_value = ir.tensor(changed)
    report = check(model, program, uniform(3, 16))
    assert report.verdict is Verdict.EXPORT_WRONG
    assert "weight differs from the model's weight in 1 of 256 elements" in only(report, "export").reason
    assert only(report, "runtime").verdict is Verdict.EQUAL


def test_a_node_of_a_function_that_was_not_given_says_which(tmp_path: Path) -> None:
    model, path = MyLinear(4, 2).eval(), tmp_path / "model.onnx"
    domains = {"mylinear": "test.parity"}  # for which no kernel is registered
    ort_ops.export.export(model, (uniform(3, 4),), path, domains=domains, verbose=False)
    said = r"the file names mylinear\.function:LinearF for it, .*trust=\['mylinear'\]"
    with pytest.raises(ParityError, match=said):
        check(nn.Linear(4, 2).eval(), path)
    report = check(model, path)
    assert only(report, "export").verdict is Verdict.EQUAL
    assert only(report, "runtime").verdict is Verdict.CANNOT_SAY
    assert re.search(said, only(report, "runtime").reason)
    with pytest.raises(ParityError, match=said):
        locate(model, path)
    assert check(model, path, functions=[LinearF]).verdict is Verdict.EQUAL


class Through(torch.autograd.Function):
    """Takes a module, which no file can record."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, x: Any) -> Any:
        return module(x)

    @staticmethod
    def symbolic(g: Any, module: nn.Module, x: Any) -> Any:
        return g.op("test.parity::Through", x)


class ByModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Tanh()

    def forward(self, x: Any) -> Any:
        return Through.apply(self.inner, x)


def test_a_node_that_its_function_cannot_run_says_why(tmp_path: Path) -> None:
    model, path = ByModule().eval(), tmp_path / "model.onnx"
    ort_ops.export.export(model, (uniform(3, 4),), path, verbose=False)
    with pytest.raises(ParityError, match="Through, which can't run it: a Tanh can't be recorded"):
        check(model, path, functions=[Through])


def wrong_mylinear(x: Any, weight: Any, bias: Any = None) -> Any:
    y = x @ weight.T * np.float32(1 + 1e-4)
    return y if bias is None else y + bias


def test_a_kernel_that_is_wrong_is_the_runtimes_fault(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(MyLinear(16, 16), nn.ReLU(), MyLinear(16, 4)).eval()
    path = tmp_path / "model.onnx"
    export_mylinear(model, path, example=uniform(3, 16), domain="test.parity")
    assert check(model, path, uniform(3, 16), functions=[LinearF]).verdict is Verdict.EQUAL
    op = ort_ops.onnx_op("test.parity::MYLINEAR")(wrong_mylinear)
    try:
        report = check(model, path, uniform(3, 16), functions=[LinearF])
    finally:
        ort_ops.registry._ops.remove(op)
    assert only(report, "export").verdict is Verdict.EQUAL
    runtime = only(report, "runtime")
    assert runtime.verdict is Verdict.RUNTIME_WRONG
    assert "test.parity::MYLINEAR: kernel" in runtime.ran
    assert report.exit_code is ExitCode.WRONG


def test_a_custom_node_that_only_a_kernel_computes_is_noted() -> None:
    op = ort_ops.onnx_op("test.parity::Twice")(twice)
    try:
        file = parser.parse_model(
            '<ir_version: 8, opset_import: ["": 18, "test.parity": 1]> g (float[n, 4] x) => (float[n, m] y) '
            "{ y = test.parity.Twice(x) }"
        )
        report = check(model_of(lambda x: x * 2), file, uniform(3, 4))
    finally:
        ort_ops.registry._ops.remove(op)
    assert report.verdict is Verdict.EQUAL
    assert len(report.notes) == 1
    assert "a fault is not told from one of the file" in report.notes[0]


def twice(x: Any) -> Any:
    return x * 2


def test_a_node_without_float64_is_computed_as_the_file_has_it_and_noted() -> None:
    file = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]> g (float[n, n] x) => (float[n, n] y) '
        "{ z = Exp(x) y = com.microsoft.Inverse(z) }"
    )
    report = check(model_of(lambda x: torch.linalg.inv(torch.exp(x))), file, uniform(3, 3))
    assert len(report.notes) == 1
    assert "com.microsoft::Inverse" in report.notes[0]
    assert only(report, "runtime").verdict in (Verdict.EQUAL, Verdict.LESS_PRECISE)


def test_chance_in_the_file_is_its_fault_and_in_both_nobodys() -> None:
    file = text("r = RandomNormalLike(x) y = Add(x, r)")
    report = check(model_of(lambda x: x * 1), file, uniform(3, 4))
    assert report.verdict is Verdict.EXPORT_WRONG
    assert "depends on chance" in only(report, "export").reason
    report = check(model_of(lambda x: x + torch.randn_like(x)), file, uniform(3, 4))
    assert report.verdict is Verdict.CANNOT_SAY


def test_the_plain_rule_is_there_for_those_who_want_it() -> None:
    file = text("c = Constant<value = float {1.001}>() y = Mul(x, c)")
    loose = check(model_of(lambda x: x * 1), file, uniform(3, 4), rule=(0.0, 1e-2))
    assert only(loose, "runtime").verdict is Verdict.EQUAL
    assert only(loose, "export").verdict is Verdict.EXPORT_WRONG
    tight = check(model_of(lambda x: x * 1), file, uniform(3, 4), rule=(0.0, 1e-4))
    assert only(tight, "runtime").verdict is Verdict.RUNTIME_WRONG
    assert "atol=0, rtol=0.0001" in only(tight, "runtime").reason


def test_inputs_are_made_within_what_the_file_says() -> None:
    file = text(
        "e = Gather(t, i) s = Cast<to = 1>(b) y = Mul(e, s)",
        inputs="int64[n] i, bool[n] b, float[7] t",
        outputs="float[n] y",
    )
    file.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(7, np.float32), "t"))
    made = make_inputs(ir.from_proto(file), sample=2)
    assert made.keys() == {"i", "b"}
    assert made["i"].shape == made["b"].shape == (7,)
    assert set(made["i"].tolist()) <= set(range(7))
    assert made["b"].dtype == np.bool_
    several = text("y = Neg(a)", inputs="float[n, m, k] a", outputs="float[n, m, k] y")
    sizes = {make_inputs(ir.from_proto(file), sample=i)["i"].shape for i in range(4)}
    assert len(sizes) == 4
    for name in ("n", "m", "k"):  # one, an even and an odd size for each, in three samples
        three = [make_inputs(ir.from_proto(several), sample=i)["a"].shape for i in range(3)]
        place = "nmk".index(name)
        assert {min(shape[place], 2 + shape[place] % 2) for shape in three} == {1, 2, 3}
        assert all(len(set(shape)) == 3 for shape in three)
    ranged = make_inputs(ir.from_proto(file), ranges={"i": (3, 3)}, dims={"n": 9})
    assert ranged["i"].tolist() == [3] * 9


def test_a_report_has_everything_and_is_json() -> None:
    report = check(model_of(torch.tanh), text("y = Tanh(x)"), providers=["cpu"], dims={"n": 2})
    row = only(report, "runtime")
    assert row.elements == 3 * 2 * 4
    assert row.ran == "1 on CPU"
    assert row.smallest_fault is not None
    assert row.smallest_fault > row.tolerance
    read = json.loads(report.to_json())
    assert read["verdict"] == report.verdict
    assert {r["question"] for r in read["rows"]} == {"export", "runtime"}
    assert read["versions"].keys() == {"onnx", "onnxruntime", "ort-ops", "torch"}


@pytest.mark.parametrize(
    ("exact", "dtype"),
    [
        *(
            (value, dtype)
            for value in (0.1, 1 / 3, 2**0.5, 0.5**0.5, 1e-5)
            for dtype in (np.float32, np.float16)
        ),
        *((value, np.float32) for value in (np.pi, 0.044715, (2 / np.pi) ** 0.5, 64**-0.25, 1.702, -1 / 7)),
    ],
)
def test_a_constant_is_read_as_what_was_meant(exact: float, dtype: Any) -> None:
    if dtype is np.float16 and exact == 1e-5:
        pytest.skip("float16 has two digits of it")
    assert meant(dtype(exact)) == pytest.approx(exact, rel=1e-15)


def test_an_arbitrary_constant_is_not_read() -> None:
    assert meant(np.float32(0.123456789)) is None


def test_a_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    program = export(model, (uniform(3, 4),), verbose=False)
    state = torch.get_rng_state()
    check(model, program, uniform(3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() is torch.float32
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_branch_that_no_sample_runs_is_noted() -> None:
    def call(model: Any, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.cond(x.max() > 10, lambda x: x * 3, lambda x: x * 2, (x,))
        return result

    model, x = Model(call).eval(), uniform(3, 4)
    file = export(model, (x,), verbose=False).model_proto
    (node,) = (each for each in file.graph.node if each.op_type == "If")
    (branch,) = (each.g for each in node.attribute if each.name == "then_branch")
    (step,) = (each for each in branch.node if each.op_type == "Mul")
    step.op_type = "Add"
    report = check(model, file, (x,))
    assert report.verdict is Verdict.EQUAL
    (note,) = report.notes
    assert note.startswith(f"node {node.name} (If): no sample ran its then_branch")
    report = check(model, file, [(x,), (x + 20,)])
    assert (report.verdict, report.notes) == (Verdict.EXPORT_WRONG, ())


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "size"),
    [(4, 3, 0, 20), (3, 3, 0, 10), (5, 3, 0, 12), (3, 3, 1, 11), (4, 4, 1, 9)],
)
def test_a_last_window_that_reaches_beyond_the_data(
    kernel: int, stride: int, pad: int, size: int, counted: bool
) -> None:
    pool = nn.AvgPool2d(kernel, stride, pad, ceil_mode=True, count_include_pad=counted).eval()
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    file = export(pool, (x,), verbose=False)
    assert {row.verdict for row in check(pool, file, (x,)).rows} == {Verdict.EQUAL}
