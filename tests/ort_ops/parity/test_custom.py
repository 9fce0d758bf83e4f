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

import ort_ops
from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate
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


def of_node(name: str, *opsets: Any, functions: Any = None) -> ExactFile:
    """Return a file of one custom node from x to y."""
    node = helper.make_node(name, ["x"], ["y"], domain="tests.custom")
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
