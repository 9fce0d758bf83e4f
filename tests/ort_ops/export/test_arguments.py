"""A call's arguments are what they were when it was made, whatever the model makes of them afterwards."""

import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ort_ops.errors import ExportError
from ort_ops.export import export, keep_functions
from ort_ops.parity import Verdict, check

BOTH = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


class Setting:
    by = 1.0


class ByObject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, setting: Setting) -> Tensor:
        return x * setting.by

    @staticmethod
    def symbolic(g: Any, x: Any, setting: Setting) -> Any:
        return g.op("tests.arguments::ByObject", x, by_f=setting.by)


class ByArray(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, by: Any) -> Tensor:
        return x * float(by[0])

    @staticmethod
    def symbolic(g: Any, x: Any, by: Any) -> Any:
        return g.op("tests.arguments::ByArray", x, by_f=float(by[0]))


class Objects(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        setting = Setting()
        setting.by = 2.0
        x = ByObject.apply(x, setting)
        setting.by = 3.0
        x = ByObject.apply(x, setting)
        del setting.by
        return ByObject.apply(x, setting)


class Arrays(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        by = np.array([2.0])
        x = ByArray.apply(x, by)
        by[0] = 3.0
        x = ByArray.apply(x, by)
        by[0] = 1.0
        return ByArray.apply(x, by)


@BOTH
@pytest.mark.parametrize("model", [Objects(), Arrays()], ids=["an object", "an array"])
def test_what_changes_between_two_calls_is_in_each_what_it_was(model: nn.Module, dynamo: bool) -> None:
    x = torch.rand(3)
    program = export(model.eval(), (x,), dynamo=dynamo, functions="attach", verbose=False)
    factors = [node.attribute[0].f for node in program.model_proto.graph.node]
    assert factors == [2.0, 3.0, 1.0]
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(y, 6 * x.numpy(), rtol=1e-6)


class Once(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ByArray.apply(x, np.array([2.0])) + 1


def test_a_captured_program_as_a_module_is_exported_with_its_calls() -> None:
    x = torch.rand(3)
    with keep_functions():
        captured = torch.export.export(Once().eval(), (x,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its mode, which such a module hasn't
        program = export(captured.module(), (x,), functions="attach", verbose=False)
    assert [(call.nodes, call.body) for call in program.calls] == [(("ByArray_0",), "function")]
    (y,) = program.session(providers=["CPUExecutionProvider"]).run(
        None, {program.model.graph.inputs[0].name: x.numpy()}
    )
    np.testing.assert_allclose(y, 2 * x.numpy() + 1, rtol=1e-6)


def test_a_saved_programs_calls_are_not_taken_for_those_of_another_process(tmp_path: Path) -> None:
    with keep_functions():
        captured = torch.export.export(Once().eval(), (torch.rand(3),))
    torch.export.save(captured, tmp_path / "program.pt2")
    program = textwrap.dedent(
        f"""
        import torch
        from ort_ops.errors import ExportError
        from ort_ops.export import export, keep_functions
        from tests.ort_ops.export.test_arguments import Objects

        with keep_functions():
            other = torch.export.export(Objects().eval(), (torch.rand(3),))
        loaded = torch.export.load({str(tmp_path / "program.pt2")!r})
        try:
            export(loaded, (), verbose=False)
        except ExportError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "captured by an export that is gone, or by another program" in done.stdout


class ByTensor(torch.autograd.Function):
    """Adds its bias where that requires a gradient, as a parameter does inside of forward, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias, x, weight) if bias.requires_grad else x @ weight

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any) -> Any:
        return g.op("tests.arguments::ByTensor", x, weight, bias)


class ByContext(ByTensor):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias, x, weight) if ctx.needs_input_grad[2] else x @ weight

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any) -> Any:
        return g.op("tests.arguments::ByContext", x, weight, bias)


class Layer(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.weight, self.bias = nn.Parameter(torch.rand(4, 3)), nn.Parameter(torch.rand(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function.apply(x, self.weight, self.bias)
        return y


@BOTH
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("function", [ByTensor, ByContext])
def test_what_requires_a_gradient_does_so_wherever_forward_runs(
    function: Any, frozen: bool, dynamo: bool
) -> None:
    model, x = Layer(function).eval().requires_grad_(not frozen), torch.rand(2, 4)
    expected = model(x).detach().numpy()
    assert np.array_equal(expected, (x @ model.weight).detach().numpy()) is frozen
    program = export(model, (x,), dynamo=dynamo, functions="attach", verbose=False)
    by_body = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for session in (by_body, program.session(providers=["CPUExecutionProvider"])):
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert check(model, program, (x,)).verdict is Verdict.EQUAL


class Both(nn.Module):
    """Gives one Function a parameter, and the same without its gradient."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.weight, self.bias = nn.Parameter(torch.rand(4, 4)), nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.function.apply(x, self.weight, self.bias)
        z: Tensor = self.function.apply(y, self.weight, self.bias.detach())
        return z


def add_where_required(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x, weight) if bias.requires_grad else x @ weight


class ByHelper(ByTensor):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return add_where_required(x, weight, bias)


@BOTH
@pytest.mark.parametrize("function", [ByTensor, ByContext, ByHelper])
def test_calls_that_differ_in_what_requires_a_gradient_have_bodies_of_their_own(
    function: Any, dynamo: bool
) -> None:
    model, x = Both(function).eval(), torch.rand(2, 4)
    program = export(model, (x,), dynamo=dynamo, functions="attach", verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(y, model(x).detach().numpy(), rtol=1e-5)


class Dropped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        by = np.array([2.0])
        ByArray.apply(x, by)  # nothing reads it
        by[0] = 3.0
        y: Tensor = ByArray.apply(x, by)
        return y


def test_a_call_that_is_dropped_is_not_taken_for_another() -> None:
    program = export(Dropped().eval(), (torch.rand(3),), verbose=False)
    assert [node.attribute[0].f for node in program.model_proto.graph.node] == [3.0]
    with pytest.raises(ExportError, match="ByArray: an argument was changed between a call whose results"):
        export(Dropped().eval(), (torch.rand(3),), dynamo=False, verbose=False)
