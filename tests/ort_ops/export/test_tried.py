"""A function body is tried before it is taken: on numbers of both signs, at other sizes, by ONNX Runtime."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from ort_ops.export import Program, export

from .functions import Calls, Twice, x

BOTH = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


def function_of(name: str, forward: Callable[..., Tensor]) -> Any:
    class Made(torch.autograd.Function):
        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op(f"tests.tried::{name}", x)

    Made.forward = staticmethod(lambda ctx, x: forward(x))  # type: ignore[method-assign]
    return Made


def attach(call: Callable[..., Any], *inputs: Tensor, dynamo: bool = True, **options: Any) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a node has no body, and what the tracer says
        return export(Calls(call).eval(), inputs, functions="attach", dynamo=dynamo, verbose=False, **options)


def free(dynamo: bool) -> dict[str, Any]:
    more: dict[str, Any] = {"dynamic_shapes": ({0: "n"},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    return {"input_names": ["x"], **more}


@BOTH
def test_what_ranks_decide_shows_below_zero(dynamo: bool) -> None:
    clamped = function_of("ByRank", lambda x: x.clamp(-1, 1) if x.dim() == 4 else x.clamp(0, 6))

    def call(model: Any, x: Tensor, y: Tensor) -> Any:
        return clamped.apply(x), clamped.apply(y)

    inputs = -x(4, 3), -x(1, 1, 2, 2)
    program = attach(call, *inputs, dynamo=dynamo)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    feed = {each.name: value.numpy() for each, value in zip(session.get_inputs(), inputs, strict=True)}
    for got, expected in zip(session.run(None, feed), call(None, *inputs), strict=True):
        np.testing.assert_array_equal(got, expected)


@BOTH
def test_what_sizes_decide_shows_below_zero(dynamo: bool) -> None:
    odd = function_of("BySize", lambda x: x.relu() if x.shape[0] % 2 else x.abs())
    program = attach(lambda m, x: odd.apply(x), x(4, 3), dynamo=dynamo, **free(dynamo))
    assert [call.body for call in program.calls] == [""]
    assert "size of dimension 0" in program.calls[0].no_body


@pytest.mark.parametrize("most", [20_000, 300_000])
def test_what_the_number_of_elements_decides(most: int) -> None:
    either = function_of("ByElements", lambda x: x * 2 if x.numel() <= most else x * 3)
    names = {0: "n", 1: "m"}
    program = attach(lambda m, x: either.apply(x), x(4, 3), dynamic_shapes=(names,), input_names=["x"])
    assert [call.body for call in program.calls] == [""]
    assert "size of dimension 0" in program.calls[0].no_body


@pytest.mark.parametrize("opset", [15, 17, 18])
def test_len_is_a_size_to_the_older_exporter(opset: int) -> None:
    long = function_of("Len", lambda x: x * 3 if len(x) > 20 else x * 2)
    program = attach(lambda m, x: long.apply(x), x(4, 2), dynamo=False, opset_version=opset, **free(False))
    assert [call.body for call in program.calls] == [""]
    assert "size of dimension 0" in program.calls[0].no_body


def test_what_gives_something_else_than_forward_is_no_body() -> None:
    """PyTorch's exporter takes away a dimension that was not 1."""
    squeezed = function_of("Squeezed", lambda x: x.squeeze(0))
    program = attach(lambda m, x: squeezed.apply(x), x(4, 6), **free(True))
    assert [call.body for call in program.calls] == [""]
    assert "gives something else than forward" in program.calls[0].no_body
    # Of the size that the file says it is one.
    program = attach(lambda m, x: squeezed.apply(x), x(1, 6))
    assert [call.body for call in program.calls] == ["function"]


@pytest.mark.parametrize("seed", range(4))
def test_a_result_may_be_of_a_wider_type_than_what_it_was_computed_in(seed: int) -> None:
    torch.manual_seed(seed)
    wide = function_of("Wide", lambda x: torch.sin(x).double())
    program = attach(lambda m, x: wide.apply(x), torch.randn(8, 32))
    assert [call.body for call in program.calls] == ["function"]


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_a_result_has_not_the_tolerance_of_another(narrow: torch.dtype) -> None:
    class Unlike(Function):
        """Is captured as something else than it computes."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * (1.0 if torch.compiler.is_exporting() else 1.01), x.to(narrow).to(x.dtype)

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("my::Unlike", x, outputs=2)

    program = attach(lambda m, x: Unlike.apply(x), torch.randn(3, 3))
    assert [call.body for call in program.calls] == [""]


def test_what_no_runtime_takes_is_no_body() -> None:
    """PyTorch's exporter writes a shift of uint8 as one, and then a mask of int8 for it."""
    unpacked = function_of("Unpacked", lambda x: ((x >> 4) & 15).float())
    program = attach(lambda m, x: unpacked.apply(x), torch.arange(24, dtype=torch.uint8).reshape(4, 6))
    assert [call.body for call in program.calls] == [""]
    assert "is no valid file" in program.calls[0].no_body


@BOTH
def test_an_operator_of_onnx_itself_needs_no_body(dynamo: bool) -> None:
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return nn.functional.hardswish(x)

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("HardSwish", x)

    program = attach(lambda m, x: Swish.apply(x), x(4, 6), dynamo=dynamo)
    assert [(call.body, call.nodes) for call in program.calls] == [("", ())]
    assert program.calls[0].no_body == "symbolic writes an operator of ONNX itself, which needs none"


def test_a_forward_that_draws_has_a_body() -> None:
    noisy = function_of("Noisy", lambda x: x + torch.rand_like(x))
    program = attach(lambda m, x: noisy.apply(x), x(4, 6))
    assert [call.body for call in program.calls] == ["function"]


@BOTH
@pytest.mark.parametrize(
    "compute",
    [
        lambda a: a[a > 0],
        lambda a: np.pad(a, (0, -len(a) % 8)),
        lambda a: a[:8],
    ],
    ids=["positive", "padded", "the first"],
)
def test_sizes_of_a_forward_in_numpy_are_those_of_any_input(
    compute: Any, dynamo: bool, tmp_path: Path
) -> None:
    ours = function_of("Numpy", lambda x: torch.from_numpy(compute(x.numpy())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(
            Calls(lambda m, x: ours.apply(x) * 1.5).eval(),
            (x(16),),
            dynamo=dynamo,
            verbose=False,
            **free(dynamo),
        )
    session = program.session(providers=["CPUExecutionProvider"])
    for size in (16, 17, 3):
        given = x(size).numpy()
        np.testing.assert_array_equal(session.run(None, {"x": given})[0], compute(given) * np.float32(1.5))


class Both(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        Twice.apply(x + 1)
        return Twice.apply(x.double())


@BOTH
def test_a_call_that_nothing_reads_is_not_taken_for_one_of_another_type(dynamo: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(Both().eval(), (x(3),), dynamo=dynamo, functions="attach", verbose=False)
    for session in (
        program.session(providers=["CPUExecutionProvider"]),
        onnxruntime.InferenceSession(program.model_proto.SerializeToString()),
    ):
        (y,) = session.run(None, {session.get_inputs()[0].name: x(3).numpy()})
        np.testing.assert_array_equal(y, Both()(x(3)))
        assert y.dtype == np.float64


def quantiser(bits: int) -> Any:
    class Quantise(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return torch.round(x * (2**bits - 1)) / (2**bits - 1)

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("tests.tried::Quantise", x, bits_i=bits)

    return Quantise


@pytest.mark.parametrize("functions", ["attach", "inline"])
@BOTH
def test_functions_of_one_name_have_bodies_each_of_its_own(dynamo: bool, functions: Any) -> None:
    four, two = quantiser(4), quantiser(2)
    model = Calls(lambda m, x: four.apply(x) + two.apply(x)).eval()
    program = export(model, (x(3, 5),), dynamo=dynamo, functions=functions, verbose=False)
    assert [bool(call.body) for call in program.calls] == [True, True], program.calls
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x(3, 5).numpy()})
    np.testing.assert_allclose(y, model(x(3, 5)), rtol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_a_size_that_forward_needs_leaves_the_body(count: int) -> None:
    """Fewer are an error of forward's own."""
    best = function_of("Best", lambda x: x.topk(count, -1)[0])
    program = attach(lambda m, x: best.apply(x), x(4, 6), dynamic_shapes=({1: "n"},), input_names=["x"])
    assert [call.body for call in program.calls] == ["function"], program.calls
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for size in (count, 6, 50):
        (y,) = session.run(None, {"x": x(4, size).numpy()})
        np.testing.assert_array_equal(y, x(4, size).topk(count, -1)[0])


@pytest.mark.parametrize("least", [2, 5])
def test_a_size_that_forward_is_another_below_takes_the_body(least: int) -> None:
    other = function_of("Below", lambda x: x * 2 if x.shape[-1] >= least else x * 3)
    program = attach(lambda m, x: other.apply(x), x(4, 6), dynamic_shapes=({1: "n"},), input_names=["x"])
    assert [call.body for call in program.calls] == [""], program.calls
