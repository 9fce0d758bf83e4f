"""A normalisation that an exporter put into the weights before it is right where its rounding explains it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate

from .models import uniform

PRODUCTS = {
    "convolution": (lambda: nn.Conv2d(3, 8, 3), nn.BatchNorm2d, (2, 3, 9, 9)),
    "without bias": (lambda: nn.Conv1d(3, 8, 3, bias=False), nn.BatchNorm1d, (2, 3, 9)),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d, (1, 8, 5, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d, (2, 3, 5, 5)),
    "linear": (lambda: nn.Linear(5, 8), nn.BatchNorm1d, (4, 5)),
    "linear without bias": (lambda: nn.Linear(5, 8, bias=False), nn.BatchNorm1d, (1, 5)),
}


def normalised(name: str, dtype: torch.dtype, *, trained: bool) -> tuple[nn.Module, torch.Tensor]:
    """Return a product with a normalisation behind it, twice, the second with nothing to multiply by."""
    product, norm, shape = PRODUCTS[name]
    torch.manual_seed(0)
    first, second = norm(8), norm(8, affine=False)
    model = nn.Sequential(product(), first, nn.ReLU(), second)
    if trained:
        with torch.no_grad():
            first.weight.normal_()
            first.bias.normal_()
            first.running_mean.normal_()
            first.running_var.uniform_(0.01, 3)
    return model.eval().to(dtype), uniform(*shape).to(dtype)


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", PRODUCTS)
def test_one_that_is_folded_is_right(name: str, dtype: torch.dtype, trained: bool, tmp_path: Path) -> None:
    model, given = normalised(name, dtype, trained=trained)
    # The newer exporter folds bfloat16 into float32, which is no file.
    for dynamo in (True, False) if dtype != torch.bfloat16 else (False,):
        path = tmp_path / f"{dynamo}.onnx"
        export(model, (given,), path, dynamo=dynamo, verbose=False)
        row = check(model, path, given).rows[0]
        assert row.verdict is Verdict.EQUAL, f"{dynamo}: {row}"
        assert row.tolerance < 1e-10
        # Beside it a fault shows as ever, though 16 bits have rounded it.
        assert row.smallest_fault is not None
        assert row.smallest_fault < 1e-10


def folded(dtype: torch.dtype, path: Path) -> tuple[nn.Module, torch.Tensor, onnx.ModelProto]:
    model, given = normalised("convolution", dtype, trained=dtype == torch.float32)
    export(model, (given,), path, verbose=False)
    return model, given, onnx.load(path)


def changed(file: onnx.ModelProto, place: int, step: float) -> onnx.ModelProto:
    """Return a file with one element of an initializer another."""
    tensor = file.graph.initializer[place]
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[5] += array.dtype.type(step) * (array.reshape(-1)[5] or 1)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return file


@pytest.mark.parametrize("place", [0, 1], ids=["weight", "bias"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_what_is_folded_wrongly_is_found(dtype: torch.dtype, place: int, tmp_path: Path) -> None:
    model, given, file = folded(dtype, tmp_path / "model.onnx")
    assert [node.op_type for node in file.graph.node][:2] == ["Conv", "Relu"]
    few = {0: 8, 1: 64}[place] * float(torch.finfo(dtype).eps)  # the bias is a difference of rounded numbers
    file = changed(file, place, few)
    assert check(model, file, given).verdict is Verdict.EXPORT_WRONG
    found = locate(model, file, given)
    assert (found.question, found.node) == ("export", file.graph.node[0].name)


def test_what_comes_after_one_is_not_taken_for_it(tmp_path: Path) -> None:
    model, given = normalised("linear", torch.float16, trained=False)
    model[2] = Scaled().eval()
    export(model, (given,), tmp_path / "model.onnx", verbose=False)
    file = onnx.load(tmp_path / "model.onnx")
    assert [node.op_type for node in file.graph.node][:2] == ["Gemm", "Mul"]
    assert check(model, file, given).verdict is Verdict.EQUAL


def test_one_of_the_batch_is_none_of_these(tmp_path: Path) -> None:
    class Batch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(5, 8), nn.BatchNorm1d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.first(x))
            return nn.functional.batch_norm(self.first(x), None, None, training=True) + y

    model, given = Batch().eval(), uniform(4, 5)
    export(model, (given,), tmp_path / "model.onnx", verbose=False)
    assert check(model, tmp_path / "model.onnx", given).verdict is Verdict.EQUAL


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.full((8,), 0.3, dtype=x.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_several_in_a_row_are_folded_into_one_weight(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *(nn.BatchNorm2d(8, affine=each) for each in (True, False)))
    with torch.no_grad():
        for norm in (model[1], model[2]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.01, 3)
    model.eval().to(dtype)
    given = uniform(2, 3, 9, 9).to(dtype)
    export(model, (given,), tmp_path / "model.onnx", verbose=False)
    file = onnx.load(tmp_path / "model.onnx")
    assert [node.op_type for node in file.graph.node] == ["Conv"]
    row = check(model, file, given).rows[0]
    assert (row.verdict, row.tolerance < 1e-10) == (Verdict.EQUAL, True), str(row)
    file = changed(file, 0, 8 * float(torch.finfo(dtype).eps))
    assert check(model, file, given).verdict is Verdict.EXPORT_WRONG


@pytest.mark.parametrize("level", ["ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["convolution", "linear without bias"])
def test_those_that_onnx_runtime_folds_are_right(
    name: str, dtype: torch.dtype, level: str, tmp_path: Path
) -> None:
    """It casts float16 where it computes, weights beforehand, and fuses activations."""
    if (name, level) == ("convolution", "ORT_ENABLE_ALL"):
        pytest.skip("is of a layout for this processor, whose operators nobody else computes")
    model, given = normalised(name, dtype, trained=dtype == torch.float32)
    path, optimised = (str(tmp_path / each) for each in ("model.onnx", "optimised.onnx"))
    export(model, (given,), path, dynamo=False, verbose=False)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = optimised
    options.log_severity_level = 3  # that the file is for this machine
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    onnxruntime.InferenceSession(path, options)
    kinds = {node.op_type for node in onnx.load(optimised).graph.node}
    assert kinds & {"FusedConv", "FusedGemm", "Gemm", "Cast"}
    report = check(model, optimised, given)
    assert report.verdict is Verdict.EQUAL, str(report)
    assert report.rows[0].tolerance < 1e-10
    assert report.notes == ()


def test_one_that_is_in_the_file_is_not_taken_for_folded(tmp_path: Path) -> None:
    """In float16 its factor leaves every weight as it is, so that these say nothing of it."""
    model, given = normalised("linear", torch.float16, trained=False)
    export(model, (given,), tmp_path / "model.onnx", dynamo=False, verbose=False)
    file = onnx.load(tmp_path / "model.onnx")
    assert [node.op_type for node in file.graph.node].count("BatchNormalization") == 2
    report = check(model, file, given)
    assert report.verdict is Verdict.EQUAL, str(report)
    node = next(each for each in file.graph.node if each.op_type == "BatchNormalization")
    next(each for each in node.attribute if each.name == "epsilon").f = np.float32(3e-5)
    assert check(model, file, given).verdict is Verdict.EXPORT_WRONG
