"""Nodes without a body are computed by the Functions that the model calls, and kernels judged by these."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mylinear
import ort_ops
from mylinear import MyLinear
from ort_ops.errors import ParityError
from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate, record

from .models import Model, uniform


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: float = 1.0) -> Tensor:
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def symbolic(g: Any, x: Any, beta: float = 1.0) -> Any:
        return g.op("tests.called::Swish", x, beta_f=beta)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.called::Twice", x)


class Heir(Twice):
    """Has its forward from another one."""


swish = Swish.apply  # as callers keep it


def model_of(function: Callable[[Tensor], Tensor]) -> nn.Module:
    return Model(lambda m, x: function(x)).eval()


def exported(model: nn.Module, path: Path, **options: Any) -> Path:
    export(model, (uniform(3, 4),), path, verbose=False, **options)
    return path


@pytest.fixture
def kernel() -> Iterator[Callable[[Any], Any]]:
    """Register a kernel for Swish; returns how."""
    ops = []

    def register(function: Any) -> None:
        ops.append(ort_ops.onnx_op("tests.called::Swish")(function))

    yield register
    for op in ops:
        ort_ops.registry._ops.remove(op)


def right(x: Any, *, beta: float = 1.0) -> Any:
    return x / (1 + np.exp(-np.float32(beta) * x))


def off(x: Any, *, beta: float = 1.0) -> Any:
    return right(x, beta=beta) * np.float32(1.001)


def nan(x: Any, *, beta: float = 1.0) -> Any:
    return np.full_like(x, np.nan)


@pytest.mark.parametrize(
    ("function", "verdict"),
    [(right, Verdict.EQUAL), (off, Verdict.RUNTIME_WRONG), (nan, Verdict.RUNTIME_WRONG)],
)
def test_a_wrong_kernel_is_the_runtimes_fault(
    kernel: Any, function: Any, verdict: Verdict, tmp_path: Path
) -> None:
    kernel(function)
    model = model_of(swish)
    path = exported(model, tmp_path / "model.onnx")
    report = check(model, path)
    assert [row.verdict for row in report.rows] == [Verdict.EQUAL, verdict]
    assert report.notes == ()
    found = locate(model, path)
    assert found.question == (None if verdict is Verdict.EQUAL else "runtime")


@pytest.mark.parametrize("function", [off, nan])
def test_a_wrong_kernel_keeps_no_answers_from_being_recorded(
    kernel: Any, function: Any, tmp_path: Path
) -> None:
    kernel(function)
    model = model_of(swish)
    path = exported(model, tmp_path / "model.onnx")
    report = record(model, path, tmp_path / "golden.safetensors")
    assert {row.verdict for row in report.rows} == {Verdict.EQUAL}


def test_a_wrong_file_is_the_files_fault(kernel: Any, tmp_path: Path) -> None:
    kernel(right)
    path = exported(model_of(lambda x: Swish.apply(x, 1.25)), tmp_path / "model.onnx")
    model = model_of(lambda x: Swish.apply(x, 1.5))
    assert [row.verdict for row in check(model, path).rows] == [Verdict.EXPORT_WRONG, Verdict.EQUAL]
    assert locate(model, path).node == "Swish_0"


def test_a_function_body_is_looked_at_all_the_same(tmp_path: Path) -> None:
    model = model_of(swish)
    program = export(model, (uniform(3, 4),), functions="attach", verbose=False)
    file = program.model_proto
    assert check(model, file).rows[0].verdict is Verdict.EQUAL
    (body,) = file.functions
    next(node for node in body.node if node.op_type == "Sigmoid").op_type = "Tanh"
    assert check(model, file).rows[0].verdict is Verdict.EXPORT_WRONG


def test_a_library_is_judged_by_the_function(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MyLinear(4, 3).eval()
    path = exported(model, tmp_path / "model.onnx")
    report = check(model, path, libraries=[mylinear.get_library_path()])
    assert report.verdict is Verdict.EQUAL
    assert report.notes == ()
    assert "mylinear::MYLINEAR: library" in report.rows[1].ran
    assert locate(model, path, libraries=[mylinear.get_library_path()]).node is None


def test_a_function_that_the_model_does_not_call_is_not_run(tmp_path: Path) -> None:
    path = exported(model_of(Twice.apply), tmp_path / "model.onnx")
    for model in (model_of(lambda x: x * 2), model_of(swish)):
        with pytest.raises(ParityError, match=r"names .*:Twice for it, which may run with functions"):
            check(model, path)


def test_functions_are_left_as_they_were(tmp_path: Path) -> None:
    before = [vars(each).get("forward") for each in (Swish, Twice, Heir)]
    model = model_of(Heir.apply)
    path = exported(model, tmp_path / "model.onnx")
    assert check(model, path).rows[0].verdict is Verdict.EQUAL
    with pytest.raises(ParityError, match="the model fails on inputs made up"):
        check(model_of(lambda x: Heir.apply(x.fails)), path)
    assert [vars(each).get("forward") for each in (Swish, Twice, Heir)] == before
    assert before[2] is None


def test_of_functions_of_one_name_the_one_that_is_called_computes(tmp_path: Path) -> None:
    def made(factor: float) -> Any:
        class Local(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                return x * factor

            @staticmethod
            def symbolic(g: Any, x: Any) -> Any:
                return g.op("tests.called::Local", x)

        return Local

    two, three = made(2.0), made(3.0)
    path = exported(model_of(two.apply), tmp_path / "model.onnx")
    for each in (two, three):
        assert check(model_of(each.apply), path).rows[0].verdict is Verdict.EQUAL
    del two, three, each
    gc.collect()


def test_what_is_called_for_later_inputs_counts_too(kernel: Any, tmp_path: Path) -> None:
    kernel(right)
    path = exported(model_of(swish), tmp_path / "model.onnx")
    model = model_of(lambda x: swish(x) if x.shape[0] == 3 and x.sum() > 0 else x * torch.sigmoid(x))
    report = check(model, path, [(-uniform(3, 4).abs(),), (uniform(3, 4).abs(),)])
    assert report.verdict is Verdict.EQUAL
    assert report.notes == ()
