"""A trained model as a bundle: recorded with PyTorch, replayed without."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from onnx import external_data_helper
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


def test_weights_of_one_name_in_two_folders_are_recorded_and_bundled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(MyLinear(150, 120), nn.ReLU(), MyLinear(120, 40)).eval()
    written = export(model, example=torch.randn(2, 150))
    for number, weight in enumerate(tensor for tensor in written.graph.initializer if len(tensor.dims) == 2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "weights.bin").write_bytes(weight.raw_data)
        external_data_helper.set_external_data(weight, f"./{number}/weights.bin")
        weight.ClearField("raw_data")
    (tmp_path / "model.onnx").write_bytes(written.SerializeToString())
    parity.record(model, tmp_path / "model.onnx", tmp_path / "golden", libraries=[LIBRARY])
    report = parity.replay(tmp_path / "golden", tmp_path / "model.onnx", libraries=[LIBRARY])
    assert report.verdict is parity.Verdict.EQUAL
    deploy.bundle(
        *(tmp_path / "model.onnx", tmp_path / "bundle"), libraries=[LIBRARY], golden=tmp_path / "golden"
    )
    bundle = deploy.open_bundle(tmp_path / "bundle")
    assert bundle.golden_answers().manifest.files.keys() >= {"0/weights.bin", "1/weights.bin"}
    assert bundle.replay().verdict is parity.Verdict.EQUAL


def test_an_optimised_graph_is_replayed_besides_the_original(tmp_path: Path) -> None:
    model, golden = recorded(tmp_path)
    given = ("--library", LIBRARY, "--parity", golden, "-o", tmp_path / "bundle")
    done = ort_ops("bundle", model, *given, "--optimized")
    assert done.returncode == 0, done.stderr
    assert "optimized/model.onnx: for ONNX Runtime" in done.stdout
    assert ort_ops("bundle", model, *given, "--provider", "cpu").returncode == 4
    replayed = ort_ops("replay", tmp_path / "bundle")
    assert replayed.returncode == 0, replayed.stderr
    assert "cpu: a session loads optimized/model.onnx" in replayed.stdout
    assert re.search(r"runtime cpu +y +equal", replayed.stdout)
    assert re.search(r"runtime cpu optimized +y +equal", replayed.stdout)


def test_an_optimised_graph_of_other_weights_is_found(tmp_path: Path) -> None:
    model, golden = recorded(tmp_path)
    folder, name = tmp_path / "bundle", "optimized/model.onnx"
    deploy.bundle(model, folder, libraries=[LIBRARY], golden=golden, optimized=True)
    (tmp_path / "other").mkdir()
    export(
        nn.Sequential(MyLinear(150, 120), nn.ReLU(), MyLinear(120, 4)).eval(),
        tmp_path / "other" / "model.onnx",
        example=torch.randn(2, 150),
    )
    deploy.bundle(tmp_path / "other" / "model.onnx", tmp_path / "b", libraries=[LIBRARY], optimized=True)
    shutil.copyfile(tmp_path / "b" / name, folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = parity.digest(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    report = deploy.open_bundle(folder).replay()
    assert [(row.provider, row.verdict.value) for row in report.rows] == [
        ("cpu", "equal"),
        ("cpu optimized", "runtime_wrong"),
    ]
    assert ort_ops("replay", folder).returncode == 1


def test_an_optimised_graph_of_another_release_is_not_run(tmp_path: Path) -> None:
    model, golden = recorded(tmp_path)
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY], golden=golden, optimized=True)
    path = tmp_path / "bundle" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["optimized"]["onnxruntime"] = "1.0.0"
    path.write_text(json.dumps(manifest))
    replayed = ort_ops("replay", tmp_path / "bundle")
    assert replayed.returncode == 0, replayed.stderr
    assert "cpu: a session loads model/model.onnx" in replayed.stdout
    assert "note: cpu: no run of the optimised graph: it is for ONNX Runtime 1.0.0" in replayed.stdout
    assert "cpu optimized" not in replayed.stdout


def test_a_signed_bundle_is_replayed_with_its_key_alone(tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    from tests.keys import write_keys

    model, golden = recorded(tmp_path)
    for name in ("key", "other"):
        write_keys(tmp_path, name)
    done = ort_ops(
        *("bundle", model, "--library", LIBRARY, "--parity", golden, "-o", tmp_path / "bundle"),
        *("--optimized", "--sign-key", tmp_path / "key.pem"),
    )
    assert done.returncode == 0, done.stderr
    assert "signed: model.sig" in done.stdout
    verify = ("replay", tmp_path / "bundle", "--verify-key")
    replayed = ort_ops(*verify, tmp_path / "key.pub.pem")
    assert replayed.returncode == 0, replayed.stderr
    assert "signed with the key of" in replayed.stdout
    refused = ort_ops(*verify, tmp_path / "other.pub.pem")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "is no signature of this folder by" in refused.stderr
    assert ort_ops("replay", golden, model, "--verify-key", tmp_path / "key.pub.pem").returncode == 4
    (tmp_path / "bundle" / "model.sig").unlink()
    assert ort_ops(*verify, tmp_path / "key.pub.pem").returncode == 3
