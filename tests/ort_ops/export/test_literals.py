"""Numbers in the code of a float64 model are in its file as they are, and not as float32 has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ort_ops.export import export, keep_functions

from .functions import Calls

FORWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: x * 0.1 + 0.7,
    "quotient": lambda x: 0.7 / (x.abs() + 1),
    "clamped": lambda x: x.clamp(-0.3, 0.7),
    "filled": lambda x: x + torch.full(tuple(x.shape), 0.3, dtype=x.dtype),
    "masked": lambda x: x.masked_fill(x > 0.1, 0.3),
    "power": lambda x: 0.3**x,
    "log2": lambda x: x.abs().log2(),
    "in a branch": lambda x: torch.cond(x.sum() > 0, lambda x: x * 0.1, lambda x: x + 0.7, (x,)),
    "steps": lambda x: x + torch.arange(0.0, 0.1 * x.shape[1] - 0.05, 0.1, dtype=x.dtype),
    "a line": lambda x: x * torch.linspace(0.1, 1, x.shape[1], dtype=x.dtype),
    "positions": lambda x: x * torch.exp(torch.arange(x.shape[1], dtype=x.dtype) * -0.1).sin()[None],
    "what float32 has, too": lambda x: x * 0.5 + 2.0,
}


class Model(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def x(*shape: int) -> Tensor:
    generator = np.random.default_rng(list(shape))
    return torch.from_numpy(generator.uniform(-2, 2, shape))


def error_of(model: nn.Module, path: Path, given: Tensor) -> float:
    """Return how far a session is off, as a share of the largest element."""
    session = onnxruntime.InferenceSession(path)
    (y,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
    expected = model(given).detach().numpy()
    assert y.dtype == expected.dtype
    return float(np.abs(y - expected).max(initial=0.0) / np.abs(expected).max(initial=1.0))


@pytest.mark.parametrize("shape", [(3, 4), (1, 7)], ids=str)
@pytest.mark.parametrize("name", FORWARDS)
def test_a_float64_model_keeps_its_numbers(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    model = Model(FORWARDS[name]).eval()
    export(model, (x(*shape),), tmp_path / "model.onnx", verbose=False)
    assert error_of(model, tmp_path / "model.onnx", x(*shape)) < 1e-15


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own
def test_without_it_they_are_float32s(tmp_path: Path) -> None:
    """Or nothing here would be needed."""
    model = Model(FORWARDS["product"]).eval()
    torch.onnx.export(model, (x(3, 4),), tmp_path / "model.onnx", dynamo=True, verbose=False)
    assert error_of(model, tmp_path / "model.onnx", x(3, 4)) > 1e-10
    with keep_functions():
        torch.onnx.export(model, (x(3, 4),), tmp_path / "model.onnx", dynamo=True, verbose=False)
    assert error_of(model, tmp_path / "model.onnx", x(3, 4)) < 1e-15


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.tanh(x * 0.1) + 0.7

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.literals::Scaled", x).setType(x.type())


@pytest.mark.parametrize("functions", ["attach", "inline"])
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_a_function_body_keeps_its_numbers(dynamo: bool, functions: Any, tmp_path: Path) -> None:
    model = Calls(lambda m, x: Scaled.apply(x)).eval()
    export(model, (x(3, 4),), tmp_path / "model.onnx", dynamo=dynamo, functions=functions, verbose=False)
    assert error_of(model, tmp_path / "model.onnx", x(3, 4)) < 1e-15


def constants(model: nn.Module, path: Path) -> list[float]:
    export(model, (x(3, 4),), path, verbose=False)
    arrays = [numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer]
    return sorted(float(array) for array in arrays if array.dtype == np.float64 and array.size == 1)


class Weighted(nn.Module):
    """Holds what float32 has of a tenth, as what was trained in float32 may."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.1).double())
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sin() * self.number


def test_a_weight_stays_what_it_is(tmp_path: Path) -> None:
    held = float(np.float32(0.1))
    assert constants(Weighted(0.3).eval(), tmp_path / "model.onnx") == [held, 0.3]
    # One number in the code may then be either.
    assert set(constants(Weighted(0.1).eval(), tmp_path / "model.onnx")) == {held}


def test_numbers_that_are_one_in_float32_are_left_alone(tmp_path: Path) -> None:
    model = Model(lambda x: (x * 0.1).sin() * 0.1000000001).eval()
    assert set(constants(model, tmp_path / "model.onnx")) == {float(np.float32(0.1))}


class Tabled(nn.Module):
    """Holds a table that was made in float32, and may compute one like it in float64."""

    def __init__(self, *, computes: bool) -> None:
        super().__init__()
        self.table = nn.Buffer(torch.arange(1, 5, dtype=torch.float32).mul(0.1).double())
        self.computes = computes

    def forward(self, x: Tensor) -> Tensor:
        y = (x + self.table[None]).sin()
        return y + torch.arange(1, 5, dtype=x.dtype) * 0.1 if self.computes else y


@pytest.mark.parametrize("computes", [False, True])
def test_a_table_that_the_model_holds_stays_what_it_is(computes: bool, tmp_path: Path) -> None:
    model = Tabled(computes=computes).eval()
    export(model, (x(3, 4),), tmp_path / "model.onnx", verbose=False)
    assert error_of(model, tmp_path / "model.onnx", x(3, 4)) < 1e-15


class Offset(nn.Module):
    """Adds so little to what it holds that most of it is nearly the same."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Buffer(torch.tensor([1.0, 0.0, 2.0, 3.0], dtype=torch.float64))
        self.weight = nn.Parameter(torch.from_numpy(np.random.default_rng(0).standard_normal((4, 4))))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ (self.weight.T + 1e-6)) * (1e-6 / (self.scale + 1e-6))


def test_what_is_added_to_a_weight_stays_added(tmp_path: Path) -> None:
    model = Offset().eval()
    export(model, (x(3, 4),), tmp_path / "model.onnx", verbose=False)
    assert error_of(model, tmp_path / "model.onnx", x(3, 4)) < 1e-15


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.full((4,), 0.1).double(),
        lambda x: x * torch.full((4, 4), 0.1),
        lambda x: x * (torch.ones(4) * 0.1).double() + 0.7,
    ],
)
def test_what_a_model_computes_in_float32_stays_so(function: Any, tmp_path: Path) -> None:
    model = Model(function).eval()
    export(model, (x(4, 4),), tmp_path / "model.onnx", verbose=False)
    assert error_of(model, tmp_path / "model.onnx", x(4, 4)) < 1e-15


def test_a_normalisation_that_changes_a_weight_by_little_stays_in_it(tmp_path: Path) -> None:
    """By its epsilon alone, which is less than some numbers differ from float32's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).double().eval()
    export(model, (x(3, 4),), tmp_path / "model.onnx", verbose=False)
    assert error_of(model, tmp_path / "model.onnx", x(3, 4)) < 1e-14


class Steps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        return torch.tanh(x * scale) + 0.7

    @staticmethod
    def symbolic(g: Any, x: Any, scale: float) -> Any:
        return g.op("tests.literals::Steps", x, scale_f=scale).setType(x.type())


def test_bodies_that_would_be_one_with_what_is_superfluous_keep_their_numbers(tmp_path: Path) -> None:
    """A product with 1 is dropped from the first, and one body with it would serve both."""
    model = Calls(lambda m, x: Steps.apply(Steps.apply(x, 1.0), 0.3)).eval()
    export(model, (x(3, 4),), tmp_path / "model.onnx", functions="attach", verbose=False)
    assert error_of(model, tmp_path / "model.onnx", x(3, 4)) < 1e-15


@pytest.mark.parametrize("number", [1e-12, 1e-8, -1e-9])
def test_what_is_next_to_nothing_is_added(number: float) -> None:
    """onnxscript's rules take it for 0, and a row of zeros is then divided by 0."""

    class Normalised(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x / (x.abs().amax(-1, keepdim=True) + number)

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("tests.literals::Normalised", x)

    given = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    for call in (
        lambda model, x: x / (x.abs().amax(-1, keepdim=True) + number),
        lambda m, x: Normalised.apply(x),
    ):
        program = export(Calls(call).eval(), (given,), functions="attach", verbose=False)
        session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
        (y,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        np.testing.assert_array_equal(y, call(None, given))


def test_what_is_next_to_one_is_multiplied_by() -> None:
    program = export(Calls(lambda model, x: x * 1.000005).eval(), (x(3, 4),), verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x(3, 4).numpy()})
    np.testing.assert_array_equal(y, x(3, 4) * 1.000005)
    program = export(Calls(lambda model, x: x * 1.0 + 0.0).eval(), (x(3, 4),), verbose=False)
    assert {node.op_type for node in program.model.graph} <= {"Identity"}


def test_a_number_that_may_be_two_of_the_programs_stays_as_it_is() -> None:
    near = float(np.float32(0.1))

    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 0.1).sin() + near

    program = export(Both().double().eval(), (torch.rand(3, dtype=torch.float64),), verbose=False)
    constants = [numpy_helper.to_array(each) for each in program.model_proto.graph.initializer]
    assert {float(each) for each in constants if each.size == 1} == {near}
