"""Custom operators in float64: whose names ONNX has, too, and of which kernels there are several versions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx_ir as ir
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import ort_ops
from ort_ops import builtin
from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate
from ort_ops.parity.chance import by_chance
from ort_ops.parity.exact import ExactFile

from .models import Model, uniform


class Shifted(torch.autograd.Function):
    """Has the name of an operator of ONNX's that an attribute is required of."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * torch.exp2(y)

    @staticmethod
    def symbolic(g: Any, x: Any, y: Any) -> Any:
        return g.op("tests.custom::BitShift", x, y)


@pytest.mark.parametrize("functions", ["keep", "attach"])
def test_an_operator_may_have_the_name_of_one_of_onnxs(functions: Any) -> None:
    model = Model(lambda m, x, y: Shifted.apply(x, y)).eval()
    inputs = (uniform(3, 5), uniform(1, 5))
    file = export(model, inputs, functions=functions, verbose=False)
    report = check(model, file, inputs)
    assert {row.verdict for row in report.rows} == {Verdict.EQUAL}
    assert report.notes == ()
    assert locate(model, file, inputs).node is None


OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("tests.custom", 1)]


def of_node(name: str, *opsets: Any, functions: Any = None, **attributes: Any) -> ExactFile:
    """Return a file of one custom node from x to y."""
    node = helper.make_node(name, ["x"], ["y"], domain="tests.custom", **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=opsets or OPSETS, functions=functions, ir_version=9)
    return ExactFile(ir.from_proto(model))


def test_a_function_body_may_have_the_name_of_one_of_onnxs() -> None:
    negated = [helper.make_node("Neg", ["x"], ["y"])]
    body = helper.make_function("tests.custom", "BitShift", ["x"], ["y"], negated, OPSETS[:1])
    x = uniform(3).numpy()
    assert np.array_equal(of_node("BitShift", functions=[body]).run({"x": x})["y"], -x.astype(np.float64))


@pytest.fixture
def kernels() -> Iterator[None]:
    """Register two versions of a kernel, which add 1 and 2."""

    def adding(what: int) -> Any:
        def add(x: np.ndarray) -> np.ndarray:
            return x + x.dtype.type(what)

        return add

    ops = [ort_ops.onnx_op("tests.custom::Add", version=each)(adding(each)) for each in (1, 2)]
    yield
    for op in ops:
        ort_ops.registry._ops.remove(op)


@pytest.mark.parametrize(("imported", "added"), [(1, 1), (2, 2), (3, 2)])
def test_a_kernel_is_of_the_version_that_the_file_imports(kernels: None, imported: int, added: int) -> None:
    file = of_node("Add", OPSETS[0], helper.make_opsetid("tests.custom", imported))
    x = uniform(3).numpy()
    assert np.array_equal(file.run({"x": x})["y"], x.astype(np.float64) + added)


class Selu(torch.autograd.Function):
    """Computes with numbers of which float32 has the first seven digits."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1))

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.custom::LongSelu", x)


@pytest.mark.parametrize("functions", ["attach", "inline"])
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_numbers_in_a_function_body_are_those_of_the_model(dynamo: bool, functions: Any) -> None:
    model = Model(lambda m, x: Selu.apply(x)).eval()
    program = export(model, (uniform(3, 8),), dynamo=dynamo, functions=functions, verbose=False)
    report = check(model, program, uniform(3, 8))
    assert report.verdict is Verdict.EQUAL, str(report)
    assert report.rows[0].tolerance < 1e-12


def test_a_number_in_a_function_body_that_is_another_is_found() -> None:
    model = Model(lambda m, x: Selu.apply(x)).eval()
    program = export(model, (uniform(3, 8),), functions="attach", verbose=False)
    file = program.model_proto
    tensors = [a.t for f in file.functions for n in f.node for a in n.attribute if a.HasField("t")]
    (number,) = (t for t in tensors if np.float32(1.0507009873554805) == numpy_helper.to_array(t))
    number.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(number) * np.float32(1 + 1e-5)))
    assert check(model, file, uniform(3, 8)).rows[0].verdict is Verdict.EXPORT_WRONG
    # The Function runs in the body's place, or the body, as it is asked for.
    assert check(model, file, uniform(3, 8), functions=[Selu]).verdict is Verdict.EQUAL
    by_body = check(model, file, uniform(3, 8), functions=[Selu], prefer="body")
    assert [row.verdict for row in by_body.rows] == [Verdict.EXPORT_WRONG, Verdict.EQUAL]
    found = locate(model, file, uniform(3, 8), functions=[Selu], prefer="body")
    assert (found.node, found.question) == ("LongSelu_0", "export")


class Noisy(torch.autograd.Function):
    """Adds a little noise."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * torch.rand_like(x)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.custom::Noisy", x)


class Branched(torch.autograd.Function):
    """Decides by what is in its input."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.cond(x.sum() > 0, lambda x: 2 * x, lambda x: 3 * x, (x,))
        return result

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.custom::Branched", x)


def test_what_a_forward_draws_is_of_chance() -> None:
    model, x = Model(lambda m, x: 2 * Noisy.apply(x)).eval(), uniform(3, 5)
    file = export(model, (x,), verbose=False)
    report = check(model, file, (x,))
    assert [row.verdict for row in report.rows] == [Verdict.CANNOT_SAY] * 2
    assert all("depends on chance in node Noisy_0" in row.reason for row in report.rows)
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    assert locate(model, file, (x,), questions=["export"]).node is None
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # type: ignore[index]


@pytest.mark.parametrize("drawn", ["numpy", "generator"])
def test_what_a_kernel_draws_is_of_chance(drawn: str) -> None:
    generator = np.random.default_rng(0)

    @ort_ops.onnx_op("tests.custom::Drawn")
    def drawing(x: np.ndarray) -> np.ndarray:
        noise = np.random.random(x.shape) if drawn == "numpy" else generator.random(x.shape)
        return np.asarray(x + noise, x.dtype)

    file = of_node("Drawn")
    feed = {"x": np.ones(3, np.float32)}
    assert by_chance(file, feed, file.run(feed)).keys() == {"y"}


def test_a_forward_may_have_branches() -> None:
    model, x = Model(lambda m, x: Branched.apply(x) + 1).eval(), uniform(3, 5)
    file = export(model, (x,), verbose=False)
    assert {row.verdict for row in check(model, file, [(x,), (-x,)]).rows} == {Verdict.EQUAL}


class Affine(torch.autograd.Function):
    """Does something else where its last argument isn't there, or for another text."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, how: str, b: torch.Tensor | None) -> torch.Tensor:
        y = x.sin() if how == "sin" else x.cos()
        return 2 * y if b is None else y + b

    @staticmethod
    def symbolic(g: Any, x: Any, how: str, b: Any) -> Any:
        return g.op("tests.custom::Affine", *((x,) if b is None else (x, b)), how_s=how)


OVERLOADED = {
    "by an input": lambda m, x: Affine.apply(Affine.apply(x, "sin", x), "sin", None),
    "by an attribute": lambda m, x: Affine.apply(x, "sin", x) + 2 * Affine.apply(x, "cos", x),
}


@pytest.mark.parametrize("name", OVERLOADED)
def test_a_node_is_computed_by_the_body_of_its_overload(name: str) -> None:
    model, x = Model(OVERLOADED[name]).eval(), uniform(3, 5)
    program = export(model, (x,), functions="attach", overloads=True, verbose=False)
    assert [call.body for call in program.calls] == ["function", "overload"]
    rows = check(model, program.model_proto, (x,), functions=()).rows
    assert [row.verdict for row in rows if row.question == "export"] == [Verdict.EQUAL]
    if builtin.TELLS_OVERLOADS_APART:
        assert {row.verdict for row in rows} == {Verdict.EQUAL}


class Twofold(torch.autograd.Function):
    """Has two results, of which one doesn't depend on its weight."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * scale, x.mean(-1)

    @staticmethod
    def symbolic(g: Any, x: Any, scale: Any) -> Any:
        return g.op("tests.custom::Twofold", x, scale, outputs=2)


def test_a_result_that_is_right_does_not_clear_the_node_of_another() -> None:
    def call(model: Any, x: torch.Tensor) -> Any:
        y, mean = Twofold.apply(model.first(x), model.scale.weight[0])
        return model.last(y), mean

    torch.manual_seed(0)
    layers = {"first": nn.Linear(8, 8), "scale": nn.Linear(8, 1), "last": nn.Linear(8, 4)}
    model, x = Model(call, **layers).eval(), uniform(3, 8)
    file = export(model, (x,), verbose=False).model_proto
    with torch.no_grad():
        layers["scale"].weight[0, 2] *= 1.5
    assert locate(model, file, (x,)).node == "Twofold_0"


class Seeded(torch.autograd.Function):
    """Has an attribute that is called as what onnx's evaluator draws by."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, seed: int) -> torch.Tensor:
        return x * (seed % 11)

    @staticmethod
    def symbolic(g: Any, x: Any, seed: int) -> Any:
        return g.op("tests.custom::Seeded", x, seed_i=seed)


@pytest.mark.parametrize("seed", [7, -1, 2**33])
def test_an_attribute_may_be_called_seed(seed: int) -> None:
    model = Model(lambda m, x: Seeded.apply(x, seed) + Noisy.apply(x)).eval()
    file = export(model, (uniform(3, 5),), verbose=False).model_proto
    exact = ExactFile(ir.from_proto(file), functions=[Seeded, Noisy])
    feed = {exact.inputs[0]: np.ones((3, 5), np.float32)}
    first = exact.run(feed)
    assert by_chance(exact, feed, first).keys() == set(exact.outputs)
    (result,) = exact.run(feed).values()
    assert np.array_equal(result, *first.values())
    assert abs(float(result.mean()) - 1 - seed % 11) < 0.2


def test_a_kernels_attribute_may_be_called_seed() -> None:
    @ort_ops.onnx_op("tests.custom::BySeed")
    def by_seed(x: np.ndarray, *, seed: int = 0) -> np.ndarray:
        return np.asarray(x + seed, x.dtype)

    file = of_node("BySeed", seed=7)
    feed = {"x": np.ones(3, np.float32)}
    results = [file.run(feed)["y"].tolist() for _ in range(3)]
    assert results == [[8.0] * 3] * 3
    assert by_chance(file, feed, file.run(feed)) == {}
