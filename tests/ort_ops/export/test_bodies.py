"""A file with function bodies runs in a stock ONNX Runtime, and a kernel still takes over."""

import functools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from ort_ops.errors import ExportError
from ort_ops.export import Program, export
from ort_ops.export.quiet import quiet
from tests.ort_ops.releases import ORT, TORCH

from .functions import CASES, AddThenTwice, Calls, Case, Twice, x
from .test_nodes import by_us, to_numpy

# Why forward has no form in standard operators, or its node doesn't stand for the whole call.
NO_BODY = {
    "a forward in NumPy": "no form in standard operators",
    "a forward in NumPy, a dynamic batch": "no form in standard operators",
    "a forward that branches on values": "no form in standard operators",
    "a standard operator before it": "no one node stands for the call",
    "several custom nodes": "no one node stands for the call",
    "symbolic_helper and the opset modules": "no one node stands for the call",
}


def run_stock(program: Program, inputs: tuple[Tensor, ...]) -> list[Any]:
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = {i.name: to_numpy(t) for i, t in zip(session.get_inputs(), inputs, strict=True)}
    outputs: list[Any] = session.run(None, feed)
    return outputs


@pytest.mark.filterwarnings("ignore:.* has no function body:UserWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_stock_runtime_runs_a_file_with_bodies(case: Case) -> None:
    program = by_us(case, dynamo=True, functions="attach")
    reasons = {call.no_body for call in program.calls if call.nodes and not call.body}
    if case.name in NO_BODY:
        assert reasons
        assert all(NO_BODY[case.name] in reason for reason in reasons)
        return
    assert not reasons
    if case.name in ("torch.bfloat16", "under autocast"):
        return  # ONNX Runtime's CPU provider has no bfloat16 Mul and MatMul
    with quiet():  # torch.cond compiles, and that makes an instance of Function
        expected = case.model()(*case.inputs)
    outputs = run_stock(program, case.inputs)
    for output, tensor in zip(outputs, expected if isinstance(expected, tuple) else (expected,), strict=True):
        assert output.dtype == to_numpy(tensor).dtype
        np.testing.assert_allclose(output, to_numpy(tensor), rtol=1e-5, atol=1e-6)


class Scaled(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float, shift: int) -> Tensor:
        return x * alpha + shift

    @staticmethod
    def symbolic(g: Any, x: Any, alpha: float, shift: int) -> Any:
        return g.op("my::Scaled", x, alpha_f=alpha, shift_i=shift)


class Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        return g.op("my::Linear", x, weight, *([] if bias is None else [bias]))


def export_calls(call: Any, *inputs: Tensor, **options: Any) -> Program:
    with warnings.catch_warnings():
        # The tracer's, that a branch on a size is not in the trace: that is what is tested.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return export(Calls(call).eval(), inputs, functions="attach", verbose=False, **options)


def check_in_stock_runtime(program: Program, call: Any, *inputs: Tensor) -> None:
    model = Calls(call).eval()
    for output, tensor in zip(run_stock(program, inputs), model(*inputs), strict=True):
        assert output.dtype == to_numpy(tensor).dtype
        np.testing.assert_allclose(output, to_numpy(tensor), rtol=1e-5, atol=1e-6)


def kinds(program: Program) -> list[str]:
    return [call.body for call in program.calls]


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_one_body_serves_every_value_of_an_attribute(opset: int) -> None:
    def call(model: nn.Module, x: Tensor) -> Any:
        return tuple(Scaled.apply(x, alpha, 1) for alpha in (0.1, 2.0, 3.0))

    program = export_calls(call, x(3, 4), opset_version=opset, dynamo=opset >= 18)
    assert kinds(program) == ["function"] * 3
    assert len(program.model.functions) == 1
    check_in_stock_runtime(program, call, x(3, 4))


def test_one_body_serves_every_element_type() -> None:
    def call(model: nn.Module, x: Tensor) -> Any:
        return Scaled.apply(x, 0.5, 0), Scaled.apply(x.half(), 0.5, 0), Scaled.apply(x.double(), 0.5, 0)

    program = export_calls(call, x(3, 4))
    assert kinds(program) == ["function"] * 3
    check_in_stock_runtime(program, call, x(3, 4))


@pytest.mark.parametrize("dynamo", [True, False])
def test_one_body_serves_every_rank(dynamo: bool) -> None:
    def call(model: nn.Module, x: Tensor, y: Tensor, w: Tensor) -> Any:
        return Linear.apply(x, w), Linear.apply(y, w), Linear.apply(y[0, 0], w)

    inputs = (x(3, 4), x(2, 3, 4), x(5, 4))
    program = export_calls(call, *inputs, dynamo=dynamo)
    assert kinds(program) == ["function"] * 3
    check_in_stock_runtime(program, call, *inputs)


def test_a_node_that_needs_another_body_becomes_plain_operators() -> None:
    def call(model: nn.Module, x: Tensor, w: Tensor, b: Tensor) -> Any:
        return Linear.apply(x, w, b), Linear.apply(x, w), Linear.apply(x * 2, w, b)

    inputs = (x(3, 4), x(5, 4), x(5))
    program = export_calls(call, *inputs)
    assert kinds(program) == ["function", "inlined", "function"]
    assert [len(report.nodes) for report in program.calls] == [1, 0, 1]
    check_in_stock_runtime(program, call, *inputs)


@pytest.mark.skipif(ORT < (1, 27), reason="ONNX Runtime 1.27 is the first that tells overloads apart")
def test_overloads_are_written_on_request_only() -> None:
    def call(model: nn.Module, x: Tensor, w: Tensor, b: Tensor) -> Any:
        return Linear.apply(x, w, b), Linear.apply(x, w)

    inputs = (x(3, 4), x(5, 4), x(5))
    program = export_calls(call, *inputs, overloads=True)
    assert kinds(program) == ["function", "overload"]
    assert program.model.ir_version == 10
    check_in_stock_runtime(program, call, *inputs)


def test_a_body_holds_for_sizes_that_were_not_seen() -> None:
    def call(model: nn.Module, x: Tensor, w: Tensor) -> Any:
        return (Linear.apply(x, w).flatten(1),)

    shapes = ({0: "batch", 1: "steps"}, None)
    program = export_calls(call, x(1, 3, 4), x(5, 4), dynamic_shapes=shapes)
    for batch, steps in ((0, 3), (1, 1), (7, 2)):
        check_in_stock_runtime(program, call, x(batch, steps, 4), x(5, 4))


class BySize(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * (2.0 if x.shape[0] > 4 else 3.0)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::BySize", x)


@pytest.mark.parametrize(("dynamo", "opset"), [(True, 18), (False, 18), (False, 15)])
def test_a_forward_that_asks_for_a_size_gets_no_body_where_the_size_may_vary(
    dynamo: bool, opset: int
) -> None:
    def call(model: nn.Module, x: Tensor) -> Any:
        return (BySize.apply(x),)

    free: dict[str, Any] = (
        {"dynamic_shapes": ({0: "batch"},)} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    )
    with pytest.warns(UserWarning, match=r"BySize: node '\S+' has no function body: .*size"):
        program = export_calls(call, x(3, 4), input_names=["x"], dynamo=dynamo, opset_version=opset, **free)
    assert kinds(program) == [""]
    assert "size" in program.calls[0].no_body
    check_in_stock_runtime(export_calls(call, x(3, 4)), call, x(3, 4))
    check_in_stock_runtime(export_calls(call, x(6, 4)), call, x(6, 4))


def function_of(way: Callable[[Tensor], Tensor]) -> Any:
    class Made(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return way(x)

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("my::Made", x)

    return Made


DECIDED: dict[str, Any] = {
    "even or odd": lambda x: x * 2 if x.shape[-1] % 2 == 0 else x * 3,
    "a multiple of four": lambda x: x * 2 if x.shape[-1] % 4 == 0 else x * 3,
    "a multiple of a hundred": lambda x: x * 2 if x.shape[-1] % 100 == 0 else x * 3,
    "a share, rounded in Python": lambda x: x[..., : int(x.shape[-1] * 0.5)],
    "windows that follow from the size": lambda x: nn.functional.adaptive_avg_pool1d(x, 2),
    "a longer one": lambda x: x * 2 if x.shape[-1] > 4 else x * 3,
}


@pytest.mark.filterwarnings("ignore:The delegation of int:DeprecationWarning")  # in torch 2.9
@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("name", DECIDED)
@pytest.mark.parametrize("dynamo", [True, False])
def test_a_forward_that_decides_by_a_size_gets_a_body_for_this_size_only(
    dynamo: bool, name: str, size: int
) -> None:
    if name == "windows that follow from the size" and TORCH < (2, 13):
        pytest.skip("torch 2.9 fixes the other sizes, too")

    decides = function_of(DECIDED[name])

    def call(model: nn.Module, x: Tensor) -> Any:
        return (decides.apply(x),)

    options: dict[str, Any] = {"input_names": ["x"], "dynamo": dynamo}
    key, axes = (
        ("dynamic_shapes", lambda dims: (dims,)) if dynamo else ("dynamic_axes", lambda dims: {"x": dims})
    )
    with pytest.warns(UserWarning, match="depends on the size of dimension 2"):
        free = export_calls(call, x(2, 5, size), **options, **{key: axes({0: "batch", 2: "n"})})
    assert kinds(free) == [""]
    assert "depends on the size of dimension 2" in free.calls[0].no_body
    fixed = export_calls(call, x(2, 5, size), **options, **{key: axes({0: "batch"})})
    assert kinds(fixed) == ["function"]
    for batch in (2, 3, 4):
        check_in_stock_runtime(fixed, call, x(batch, 5, size))


@pytest.mark.parametrize(
    "way",
    [
        lambda x: x.flatten(1) if x.shape[-1] % 2 else x.reshape(x.shape[0], -1),
        lambda x: x.reshape(x.shape[0], x.shape[1], -1, 2).sum(-1),  # of an even size only
    ],
)
def test_a_size_that_decides_between_equal_ways_or_errors_leaves_the_body(way: Any) -> None:
    either = function_of(way)

    def call(model: nn.Module, x: Tensor) -> Any:
        return (either.apply(x),)

    program = export_calls(call, x(2, 5, 6), dynamic_shapes=({0: "batch", 2: "n"},))
    assert kinds(program) == ["function"], program.calls
    for size in (2, 4, 10):
        check_in_stock_runtime(program, call, x(3, 5, size))


@pytest.mark.parametrize("dynamo", [True, False])
def test_what_has_a_form_for_the_sizes_that_are_known_gets_a_body_for_them(dynamo: bool) -> None:
    class Gate(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            a, b = x.chunk(2, -1)  # into two where the size is known
            return a * torch.sigmoid(b)

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("my::Gate", x)

    def call(model: nn.Module, x: Tensor) -> Any:
        return (Gate.apply(x),)

    free: dict[str, Any] = (
        {"dynamic_shapes": ({0: "batch"},)} if dynamo else {"dynamic_axes": {"x": {0: "b"}}}
    )
    program = export_calls(call, x(2, 8), input_names=["x"], dynamo=dynamo, **free)
    assert kinds(program) == ["function"], program.calls
    check_in_stock_runtime(program, call, x(5, 8))


class Blur(Function):
    """A convolution of each channel by itself: their number is an attribute, which has to be a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        channels = x.shape[1]
        return torch.nn.functional.conv1d(x, kernel.expand(channels, 1, -1), padding=1, groups=channels)

    @staticmethod
    def symbolic(g: Any, x: Any, kernel: Any) -> Any:
        return g.op("my::Blur", x, kernel)


def blurred(model: nn.Module, x: Tensor, kernel: Tensor) -> Any:
    return Blur.apply(x, kernel), Blur.apply(x * 2, kernel)


def test_a_size_that_stands_in_an_attribute_is_the_one_that_the_file_says() -> None:
    program = export_calls(blurred, x(2, 4, 9), x(1, 1, 3), dynamic_shapes=({0: "batch", 2: "n"}, None))
    assert kinds(program) == ["function"] * 2
    for batch, n in ((0, 9), (1, 1), (3, 20)):
        check_in_stock_runtime(program, blurred, x(batch, 4, n), x(1, 1, 3))


def test_nodes_of_other_sizes_in_an_attribute_need_other_bodies() -> None:
    def call(model: nn.Module, x: Tensor, kernel: Tensor) -> Any:
        return *blurred(model, x, kernel), Blur.apply(x[:, 1:], kernel)

    program = export_calls(call, x(2, 4, 9), x(1, 1, 3), dynamic_shapes=({0: "batch"}, None))
    assert kinds(program) == ["function", "function", "inlined"]
    check_in_stock_runtime(program, call, x(3, 4, 9), x(1, 1, 3))


def test_no_body_where_a_size_in_an_attribute_may_vary() -> None:
    with pytest.warns(UserWarning, match="no form in standard operators"):
        program = export_calls(blurred, x(2, 4, 9), x(1, 1, 3), dynamic_shapes=({1: "channels"}, None))
    assert kinds(program) == ["", ""]
    assert all("no form in standard operators" in report.no_body for report in program.calls)


def test_a_kernel_takes_over() -> None:
    program = by_us(CASES[0], dynamo=True, functions="attach")
    (run,) = program.session().explain()
    assert run.runner == "kernel"
    (run,) = program.session(prefer="body").explain()
    assert run.runner == "function body"


def test_inline_leaves_no_custom_node() -> None:
    program = by_us(CASES[0], dynamo=True, functions="inline")
    assert {node.domain for node in program.model.graph} == {""}
    assert not program.model.functions
    assert kinds(program) == ["inlined"]


def test_no_body_where_another_node_of_the_operator_is_not_a_whole_call() -> None:
    def call(model: nn.Module, x: Tensor) -> Any:
        return Twice.apply(x), AddThenTwice.apply(x)

    with pytest.warns(UserWarning, match=r"Twice: node .* has no function body") as warned:
        program = export_calls(call, x(3, 4))
    assert kinds(program) == ["", ""]
    assert "doesn't stand for a whole call" in program.calls[0].no_body
    assert len(warned) == 2


class Highest(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.cummax(x, -1)[0]

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Highest", x)


def highest_twice(model: nn.Module, x: Tensor) -> Any:
    return Highest.apply(Highest.apply(x))


def test_a_bare_node_is_said_once_a_function_where_the_caller_is() -> None:
    model = Calls(highest_twice).eval()
    with pytest.warns(
        UserWarning, match="Highest: node 'Highest_0' has no function body: .*cummax"
    ) as warned:
        program = export(model, (x(3, 4),), functions="attach", verbose=False)
    (warning,) = warned
    assert warning.filename == __file__
    assert "or the Function itself (program.session())" in str(warning.message)
    assert kinds(program) == ["", ""]


def test_a_node_that_stands_for_no_call_is_said_to_need_a_kernel() -> None:
    model = Calls(lambda model, x: AddThenTwice.apply(x)).eval()
    with pytest.warns(UserWarning, match="no one node stands for the call; .* it is run by a kernel, and by"):
        export(model, (x(3, 4),), functions="attach", verbose=False)


@pytest.mark.parametrize(
    "call", [highest_twice, lambda model, x: AddThenTwice.apply(x)], ids=["body", "node"]
)
def test_inline_refuses_what_stays_a_node(call: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"\.\w+: node '\w+_0' does not become plain operators: .*; expected"
    ):
        export(Calls(call).eval(), (x(3, 4),), tmp_path / "f.onnx", functions="inline", verbose=False)
    assert not list(tmp_path.iterdir())
    program = export(Calls(call).eval(), (x(3, 4),), verbose=False)
    assert {len(report.nodes) for report in program.calls} == {1}


class ByHand(Function):
    """Has one input and one output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, k: float) -> Tensor:
        return x * k

    @staticmethod
    def symbolic(g: Any, x: Any, k: float) -> Any:
        return g.op("my::ByHand", x, k_f=k)


CONSTANT = "c = Constant <value_float: float = @k> ()"
WRITTEN = {
    "right": (f"(x) => (y) {{ {CONSTANT} y = Mul(x, c) }}", None),
    "two inputs": (f"(x, z) => (y) {{ {CONSTANT} y = Mul(z, c) }}", "has 2 inputs, and its node 1"),
    "two outputs": (f"(x) => (y, z) {{ {CONSTANT} y = Mul(x, c) z = Neg(y) }}", "has 2 outputs, and its"),
    "an output of nothing": (
        f"(x) => (q) {{ {CONSTANT} y = Mul(x, c) }}",
        "nothing in its body gives output",
    ),
    "an unknown operator": (
        "(x) => (y) { y = Mull(x, x) }",
        "has a node Mull, an operator that ONNX",
    ),
    "nothing": (None, "its body is a NoneType; expected an onnx.FunctionProto"),
}


@pytest.mark.parametrize("functions", ["attach", "inline"])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_body_by_hand_is_looked_at(name: str, functions: Any) -> None:
    text, says = WRITTEN[name]

    def maker(stand_ins: Any, domain: str, opset: int, version: int = 0) -> Any:
        head = f'<opset_import: ["" : {version or opset}], domain: "{domain}"> Another <k>'
        return None if text is None else onnx.parser.parse_function(f"{head} {text}")

    def make(maker: Any) -> Any:
        model = Calls(lambda m, x: ByHand.apply(x, 2.5)).eval()
        return export(model, (x(3),), functions=functions, bodies={ByHand: maker}, verbose=False)

    if says is not None:
        with pytest.raises(ExportError, match=rf"ByHand: .*{re.escape(says)}"):
            make(maker)
        return
    session = onnxruntime.InferenceSession(make(maker).model_proto.SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"x": x(3).numpy()})[0], 2.5 * x(3).numpy())
    if functions == "inline":
        with pytest.raises(ExportError, match="its body is of opset 17, and its nodes go into a model"):
            make(functools.partial(maker, version=17))


class FakeQuantised(Function):
    """Of an operation for which the newer exporter has no translation where sizes are free."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, 2 / 255, 0, -128, 127)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.bodies::FakeQuantised", x)


def test_what_the_newer_exporter_has_no_operator_for_the_older_one_writes() -> None:
    model = Calls(lambda m, x: FakeQuantised.apply(x * 2)).eval()
    free: Any = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    program = export(model, (torch.rand(3, 6),), dynamo=False, functions="attach", verbose=False, **free)
    assert [call.body for call in program.calls] == ["function"]
    given = torch.rand(5, 6)
    (y,) = run_stock(program, (given,))
    np.testing.assert_allclose(y, model(given).detach().numpy(), atol=1e-6)


class ByValues(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        repeats = [int(n) for n in torch.ones(x.dim()).tolist()] + [4]
        return (x.unsqueeze(-1).repeat(repeats) - torch.linspace(0, 1, 4)).abs().amin(-1)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.bodies::ByValues", x)


def test_what_can_not_be_derived_prints_no_graph(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(
            Calls(lambda m, x: ByValues.apply(x * 2)).eval(),
            (torch.rand(3, 4),),
            dynamic_shapes={"x": {0: "n"}},
            functions="attach",
            verbose=False,
        )
    assert program.calls[0].no_body
    assert "def forward" not in "".join(capfd.readouterr())
