"""Golden answers: what is recorded, what a replay says of it, and what it refuses to load."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn

import ort_ops
from mylinear import LinearF, MyLinear
from mylinear.export import export as export_mylinear
from ort_ops.errors import ParityError
from ort_ops.export import export
from ort_ops.parity import ExitCode, Verdict, record, replay

from .models import Model, uniform


def perceptron(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).to(dtype).eval()


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, Path]:
    path, golden = tmp_path / "model.onnx", tmp_path / "golden.safetensors"
    export(perceptron(), (uniform(3, 8),), path, dynamic_shapes=({0: "batch"},), verbose=False)
    record(perceptron(), path, golden)
    return golden, path


def test_the_same_deployment_is_equal(recorded: tuple[Path, Path]) -> None:
    report = replay(*recorded)
    assert report.verdict is Verdict.EQUAL
    (row,) = report.rows
    assert row.elements == 4 * (4 + 1 + 7)
    assert row.ran.endswith("on CPU")
    assert row.smallest_fault is not None
    assert report.versions.keys() >= {"torch", "onnx", "onnxruntime"}


def test_who_may_read_the_model_may_read_its_answers(recorded: tuple[Path, Path]) -> None:
    golden, path = recorded
    assert golden.stat().st_mode == path.stat().st_mode


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes_are_recorded(dtype: torch.dtype, tmp_path: Path) -> None:
    path, golden = tmp_path / "model.onnx", tmp_path / "golden.safetensors"
    torch.manual_seed(0)
    model = MyLinear(8, 4, dtype=dtype).eval()
    given = uniform(3, 8).to(dtype)
    export_mylinear(model, path, example=given)
    record(model, path, golden, (given,), functions=[LinearF])
    assert replay(golden, path).verdict is Verdict.EQUAL


def test_integers_and_booleans_are_recorded(tmp_path: Path) -> None:
    path, golden = tmp_path / "model.onnx", tmp_path / "golden.safetensors"
    model = Model(lambda m, x: (x.argmax(-1), x > 0.5, x.sum())).eval()
    export(model, (uniform(9, 8),), path, verbose=False)
    record(model, path, golden, uniform(9, 8))
    report = replay(golden, path)
    assert [row.dtype for row in report.rows] == ["int64", "bool", "float32"]
    assert report.exit_code is ExitCode.EQUAL


def test_a_wrong_kernel_is_found(tmp_path: Path) -> None:
    path, golden = tmp_path / "model.onnx", tmp_path / "golden.safetensors"
    torch.manual_seed(0)
    model = MyLinear(8, 4).eval()
    export_mylinear(model, path, example=uniform(3, 8), domain="test.replay")
    record(model, path, golden, uniform(3, 8), functions=[LinearF])
    assert replay(golden, path).verdict is Verdict.EQUAL
    op = ort_ops.onnx_op("test.replay::MYLINEAR")(wrong)
    try:
        assert replay(golden, path).verdict is Verdict.RUNTIME_WRONG
    finally:
        ort_ops.registry._ops.remove(op)


def wrong(x: Any, weight: Any, bias: Any) -> Any:
    return x @ weight.T + bias * np.float32(1 + 1e-4)


def test_a_wrong_file_is_not_recorded(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    other = perceptron()
    with torch.no_grad():
        other[2].weight[0, 0] *= 1 + 1e-6  # type: ignore[union-attr,index,operator]
    with pytest.raises(ParityError, match="export_wrong"):
        record(other, recorded[1], tmp_path / "wrong.safetensors")
    assert not (tmp_path / "wrong.safetensors").exists()


def test_another_or_missing_file_is_refused_before_anything_is_loaded(
    recorded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    golden, path = recorded

    def never(*arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("a session was made")

    monkeypatch.setattr("ort_ops.parity.replaying.make_run", never)
    data = path.with_name("model.onnx.data")
    content = bytearray(data.read_bytes())
    content[7] ^= 1
    data.write_bytes(content)
    with pytest.raises(ParityError, match=r"model\.onnx\.data is another than"):
        replay(golden, path)
    data.unlink()
    with pytest.raises(ParityError, match=r"model\.onnx\.data is missing"):
        replay(golden, path)
    content[7] ^= 1
    data.write_bytes(content)
    with pytest.raises(ParityError, match=r"no library that the answers were recorded with"):
        replay(golden, path, libraries=["other.so"])


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_holds_no_answers_is_refused(recorded: tuple[Path, Path], content: bytes) -> None:
    golden, path = recorded
    golden.write_bytes(content)
    with pytest.raises(ParityError, match="holds no golden answers"):
        replay(golden, path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 10**15, "inputs": [], "outputs": []}, "has 1000000000000000 samples of 0 outputs"),
        ({"samples": 0}, "has 0 samples of 1 outputs"),
        ({"samples": 10**15}, "is missing"),
        ({"files": {"../../outside": "0" * 64}}, "names '../../outside', which is no file beside the model"),
        ({"files": {"/etc/passwd": "0" * 64}}, "names '/etc/passwd'"),
    ],
)
def test_answers_that_were_tampered_with_are_refused(
    recorded: tuple[Path, Path], changes: dict[str, Any], said: str
) -> None:
    golden, path = recorded
    with safe_open(golden, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dictionary
        manifest = json.loads(file.metadata()["parity"])
    save_file(tensors, golden, {"parity": json.dumps({**manifest, **changes})})
    with pytest.raises(ParityError, match=f"holds no golden answers: .*{re.escape(said)}"):
        replay(golden, path)


def test_a_replay_loads_neither_torch_nor_onnx(recorded: tuple[Path, Path]) -> None:
    program = (
        "import sys; from ort_ops import parity; "
        f"report = parity.replay({str(recorded[0])!r}, {str(recorded[1])!r}); "
        "print(report.verdict, *sorted({'torch', 'onnx', 'onnx_ir', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["equal"]


def test_what_was_optimised_beforehand_is_judged_besides(recorded: tuple[Path, Path]) -> None:
    golden, path = recorded
    optimised, other = path.with_name("optimised.onnx"), path.with_name("other.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimised)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    report = replay(golden, path, optimized={"cpu": optimised})
    assert [(row.provider, row.verdict) for row in report.rows] == [
        ("cpu", Verdict.EQUAL),
        ("cpu optimized", Verdict.EQUAL),
    ]
    torch.manual_seed(1)
    wrong_weights = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval()
    export(wrong_weights, (uniform(3, 8),), other, dynamic_shapes=({0: "batch"},), verbose=False)
    report = replay(golden, path, optimized={"cpu": other, "cuda": other})
    assert [row.verdict for row in report.rows] == [Verdict.EQUAL, Verdict.RUNTIME_WRONG]
    assert report.exit_code is ExitCode.WRONG
