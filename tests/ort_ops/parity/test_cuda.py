"""Parity where ONNX Runtime has a GPU: TF32 is named, a fault under it is found, 16-bit types are right.

What is the same on the CPU is run there, too.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mylinear
import ort_ops
from mylinear import LinearF, MyLinear, kernels
from mylinear.export import export as export_mylinear
from ort_ops import parity
from ort_ops.export import export
from ort_ops.parity import Report, Row, Verdict
from ort_ops.parity.runs import Run
from ort_ops.providers import CPU, CUDA

from .models import uniform

on_cuda = pytest.mark.cuda
has_tf32 = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0), reason="this GPU has no TF32"
)
FULL = ["cpu", pytest.param("cuda:use_tf32=0", marks=on_cuda)]
DEVICES = ["cpu", pytest.param("cuda", marks=on_cuda)]


def layers(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1024, 256), nn.GELU(), nn.Linear(256, 64)).eval().to(dtype)


def runtime_rows(report: Report) -> list[Row]:
    return [row for row in report.rows if row.question == "runtime"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cuda") / "model.onnx"
    export(layers(), (uniform(256, 1024),), str(path), verbose=False)
    return path


@pytest.mark.parametrize("provider", FULL)
def test_a_right_model_is_equal_and_nobody_is_blamed(file: Path, provider: str) -> None:
    report = parity.check(layers(), file, uniform(256, 1024), providers=[provider])
    assert report.verdict in (Verdict.EQUAL, Verdict.LESS_PRECISE)
    assert provider.partition(":")[0] in runtime_rows(report)[0].ran.lower()
    found = parity.locate(layers(), file, uniform(256, 1024), providers=[provider])
    assert found.node is None


@pytest.mark.parametrize("device", DEVICES)
def test_the_model_may_be_on_the_device(file: Path, device: str) -> None:
    model, x = layers().to(device), uniform(256, 1024).to(device)
    report = parity.check(model, file, x, providers=["cpu"])
    assert report.verdict in (Verdict.EQUAL, Verdict.LESS_PRECISE)
    assert {parameter.device.type for parameter in model.parameters()} == {device}


@on_cuda
@has_tf32
@pytest.mark.parametrize("by", ["body", "library"])
def test_tf32_is_named_in_mylinear(tmp_path: Path, by: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(MyLinear(1024, 256), nn.GELU(), MyLinear(256, 64)).eval()
    path, x = tmp_path / "m.onnx", uniform(256, 1024)
    export_mylinear(model, path, example=x)
    way: Any = {"prefer": "body"} if by == "body" else {"libraries": [mylinear.get_library_path()]}
    (row,) = runtime_rows(parity.check(model, path, x, providers=["cuda:use_tf32=1"], **way))
    assert (row.verdict, row.reason) == (Verdict.REDUCED_PRECISION, "as far off as TF32 explains")
    assert {"body": "function body", "library": "library"}[by] in row.ran


@on_cuda
@has_tf32
def test_tf32_is_named_where_it_is_the_cause(file: Path) -> None:
    report = parity.check(layers(), file, uniform(256, 1024), providers=["cuda:use_tf32=1"])
    (row,) = runtime_rows(report)
    assert (row.verdict, row.reason) == (Verdict.REDUCED_PRECISION, "as far off as TF32 explains")
    assert report.verdict is Verdict.REDUCED_PRECISION


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """Return float32 rounded to TF32."""
    return ((tensor.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_tf32_is_named_in_a_node_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_tf32(x: Any, weight: Any, bias: Any) -> Any:
        return torch.nn.functional.linear(rounded(x), rounded(weight), bias)

    kinds: Any = {"inputs": ["float32"] * 3, "outputs": ["float32"], "array": "torch"}
    ort_ops.onnx_op("test.cuda::MYLINEAR", providers=[CPU, CUDA], **kinds)(in_tf32)
    monkeypatch.setattr(Run, "on_cpu", False)  # the CPU stands in for a provider that may compute so
    torch.manual_seed(0)
    model = nn.Sequential(MyLinear(1024, 256), nn.GELU(), MyLinear(256, 64)).eval()
    path, x = tmp_path / "m.onnx", uniform(256, 1024)
    export_mylinear(model, path, example=x, domain="test.cuda")
    (row,) = runtime_rows(parity.check(model, path, x, providers=["cpu"], functions=[LinearF]))
    assert (row.verdict, row.reason) == (Verdict.REDUCED_PRECISION, "as far off as TF32 explains")


@pytest.mark.parametrize("provider", ["cpu", pytest.param("cuda:use_tf32=1", marks=on_cuda)])
def test_a_weight_that_is_off_is_found_under_it(file: Path, provider: str) -> None:
    model = layers()
    with torch.no_grad():
        model[2].weight[3, 5] *= 1.001  # type: ignore[index, operator]
    report = parity.check(model, file, uniform(256, 1024), providers=[provider])
    assert report.verdict is Verdict.EXPORT_WRONG
    found = parity.locate(model, file, uniform(256, 1024), providers=[provider])
    assert (found.question, found.node) == ("export", "node_linear_1")


@pytest.mark.parametrize("device", DEVICES)
def test_a_kernel_that_is_wrong_is_found_under_it(tmp_path: Path, device: str) -> None:
    def wrong(x: Any, weight: Any, bias: Any) -> Any:
        y = torch.nn.functional.linear(x, weight, bias)
        if len(weight) == 64:
            y[0, 3] += 0.1 * y.abs().max()  # ten times what bfloat16 would explain
        return y

    kinds: Any = {"inputs": ["float32"] * 3, "outputs": ["float32"], "array": "torch"}
    ort_ops.onnx_op("test.cuda::MYLINEAR", providers=[CPU, CUDA], **kinds)(wrong)
    torch.manual_seed(0)
    model = nn.Sequential(MyLinear(1024, 256), nn.GELU(), MyLinear(256, 64)).eval()
    path, x = tmp_path / "m.onnx", uniform(256, 1024)
    export_mylinear(model, path, example=x, domain="test.cuda")
    report = parity.check(model, path, x, providers=[device], functions=[LinearF])
    assert report.verdict is Verdict.RUNTIME_WRONG
    found = parity.locate(model, path, x, providers=[device], functions=[LinearF])
    assert (found.question, found.node) == ("runtime", "MYLINEAR_1")


@on_cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("prefer", ["kernel", "body"])
def test_every_type_is_right_from_the_kernel_and_from_the_body(
    tmp_path: Path, dtype: torch.dtype, prefer: Any
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(MyLinear(256, 128), MyLinear(128, 32)).to(dtype).eval()
    x = uniform(16, 256).to(dtype)
    export_mylinear(model, tmp_path / "m.onnx", example=x)
    report = parity.check(model, tmp_path / "m.onnx", x, providers=["cuda:use_tf32=0"], prefer=prefer)
    assert report.verdict in (Verdict.EQUAL, Verdict.LESS_PRECISE)
    (row,) = runtime_rows(report)
    assert "CPU" not in row.ran
    assert kernels.mylinear_cuda in ort_ops.registry.find_ops(("mylinear", "MYLINEAR"))
    assert ("kernel" if prefer == "kernel" else "function body") in row.ran


@pytest.mark.parametrize("provider", FULL)
def test_golden_answers_are_replayed(file: Path, tmp_path: Path, provider: str) -> None:
    golden = tmp_path / "golden.safetensors"
    parity.record(layers(), file, golden, uniform(256, 1024))
    report = parity.replay(golden, file, [provider])
    assert report.verdict in (Verdict.EQUAL, Verdict.LESS_PRECISE)


@on_cuda
def test_golden_answers_name_tf32(file: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden.safetensors"
    parity.record(layers(), file, golden, uniform(256, 1024))
    (row,) = parity.replay(golden, file, ["cuda:use_tf32=1"]).rows
    wanted = Verdict.REDUCED_PRECISION if torch.cuda.get_device_capability() >= (8, 0) else Verdict.EQUAL
    assert row.verdict is wanted
    assert np.isfinite(row.error or 0)
