"""A trained model as a bundle: recorded with PyTorch, replayed without."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import mylinear
from mylinear import MyLinear
from mylinear.export import export
from ort_ops import deploy, parity
from ort_ops.errors import BundleError

BIN = Path(sys.executable).parent
LIBRARY = mylinear.get_library_path()


def ort_ops(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [BIN / "ort-ops", *arguments]
    return subprocess.run([str(each) for each in command], capture_output=True, text=True)


def recorded(folder: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    model = nn.Sequential(MyLinear(150, 120), nn.ReLU(), MyLinear(120, 4)).eval()
    export(model, folder / "model.onnx", example=torch.randn(2, 150))
    parity.record(model, folder / "model.onnx", folder / "golden", libraries=[LIBRARY])
    return folder / "model.onnx", folder / "golden"


def test_a_bundle_answers_as_recorded_by_the_command(tmp_path: Path) -> None:
    model, golden = recorded(tmp_path)
    done = ort_ops("bundle", model, "--library", LIBRARY, "--parity", golden, "-o", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert "mylinear::MYLINEAR: 2 nodes, by libraries/" in done.stdout
    replayed = ort_ops("replay", tmp_path / "bundle")
    assert replayed.returncode == 0, replayed.stderr
    assert "files are what the manifest says" in replayed.stdout
    assert "mylinear::MYLINEAR: library" in replayed.stdout
    program = (
        "import sys\nfrom ort_ops import deploy\n"
        "print(deploy.open_bundle(sys.argv[1]).replay().verdict)\n"
        "print(sorted({'torch', 'onnx', 'mylinear'} & set(sys.modules)))"
    )
    alone = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "bundle"], capture_output=True, text=True, check=True
    )
    assert alone.stdout == "equal\n[]\n"


def test_a_bundle_that_is_altered_is_not_replayed(tmp_path: Path) -> None:
    model, golden = recorded(tmp_path)
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY], golden=golden)
    assert deploy.open_bundle(tmp_path / "bundle").replay().verdict is parity.Verdict.EQUAL
    path = tmp_path / "bundle" / "model" / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    done = ort_ops("replay", tmp_path / "bundle")
    assert done.returncode == 3
    assert "model.onnx is altered" in done.stderr
    assert ort_ops("replay", tmp_path / "bundle", model).returncode == 4
    assert ort_ops("replay", golden).returncode == 4


def test_answers_of_another_model_are_refused(tmp_path: Path) -> None:
    model, golden = recorded(tmp_path)
    with pytest.raises(BundleError, match="was recorded with libmylinear_ort"):
        deploy.bundle(model, tmp_path / "bundle", golden=golden)
    model.write_bytes(model.read_bytes() + b"\x10\x00")
    with pytest.raises(BundleError, match="was not recorded with"):
        deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY], golden=golden)
