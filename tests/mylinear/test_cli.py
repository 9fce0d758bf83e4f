import importlib
import json

import onnx
import onnxruntime
import pytest
import torch

from mylinear.cli import main

demo = importlib.import_module("mylinear.cli.demo")  # mylinear.cli.demo is its command


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run a command in a folder of its own; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return run


@pytest.fixture
def trained(cli):
    assert cli("train", "--steps", "20")[0] == 0
    assert cli("export")[0] == 0
    return cli


@pytest.mark.parametrize("task", ["line", "digits"])
def test_the_demo_does_all_of_it(cli, tmp_path, task):
    code, out, err = cli("demo", "--task", task, "--out", "here")
    assert (code, err) == (0, "")
    for name in ("linear.onnx", "loss.png", "parity.json"):
        assert (tmp_path / "here" / name).stat().st_size > 0
    rows = json.loads((tmp_path / "here" / "parity.json").read_text())["rows"]
    ran = {row["ran"].rpartition(": ")[2] for row in rows if row["question"] == "runtime"}
    assert ran >= {"kernel", "function body"}
    assert {row["verdict"] for row in rows} == {"equal"}
    assert ("ONNX Runtime: " in out) == (task == "digits")


@pytest.mark.cuda
@pytest.mark.parametrize("task", ["line", "digits"])
def test_on_cuda_the_demo_compares_there_too(cli, tmp_path, task):
    code, _, err = cli("demo", "--task", task, "--out", "here")
    assert (code, err) == (0, "")
    rows = json.loads((tmp_path / "here" / "parity.json").read_text())["rows"]
    runs = [row for row in rows if row["provider"].startswith("cuda")]
    assert {row["ran"].rpartition(": ")[2] for row in runs} == {"kernel", "function body"}
    assert {row["verdict"] for row in rows} <= {"equal", "less_precise"}


def test_the_demo_compares_without_tf32_where_there_is_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for names in (["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"]):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda names=names: names)
        assert demo._providers() == ["cpu", "cuda:use_tf32=0"][: len(names)]


def test_train_export_and_verify_follow_each_other(trained):
    code, out, _ = trained("verify", "--provider", "cpu", "--batch", "3", "--json", "report.json")
    assert code == 0
    assert "mylinear::MYLINEAR: kernel" in out


def test_verify_writes_over_nothing_that_it_reads(trained):
    for read in ("runs/linear.onnx", "runs/model.safetensors"):
        assert trained("verify", "--json", read)[0] == 4
    assert trained("verify", "--batch", "3")[0] == 0


def test_a_resumed_training_ends_as_the_uninterrupted_one(cli, tmp_path):
    cli("train", "--steps", "30", "--out", "whole")
    cli("train", "--steps", "12", "--out", "parts")
    code, out, _ = cli("train", "--steps", "30", "--out", "parts", "--resume")
    assert code == 0
    assert "resumed at step 12" in out
    whole, parts = (tmp_path / name / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_no_steps_leave_the_untrained_model_and_no_curve(cli, tmp_path):
    code, out, err = cli("train", "--steps", "0")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "wrote runs/model.safetensors"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["model.safetensors"]


def test_a_table_of_the_users_is_learned(cli, tmp_path):
    rows = [f"{i},{(7 * i) % 5},{3 * i - 2 * ((7 * i) % 5) + 1}" for i in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,y", *rows]))
    code, out, _ = cli("train", "--csv", "table.csv", "--target", "y")
    assert code == 0
    assert "R² 1.0000" in out
    assert cli("export")[0] == 0
    assert cli("verify")[0] == 0


def test_the_default_domain_is_written_as_the_recipe_does(trained, tmp_path):
    assert trained("export", "--domain", "", "-o", "recipe.onnx")[0] == 0
    file = onnx.load(tmp_path / "recipe.onnx")
    assert [(node.domain, node.op_type) for node in file.graph.node] == [("", "MYLINEAR")]
    assert file.opset_import[0].version == 11
    assert trained("verify", "recipe.onnx")[0] == 0


def test_a_wrong_file_exits_with_1(trained, tmp_path):
    file = onnx.load(tmp_path / "runs/linear.onnx")
    weight = onnx.numpy_helper.to_array(file.graph.initializer[0]) * 1.001
    file.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, file.graph.initializer[0].name))
    onnx.save(file, tmp_path / "wrong.onnx")
    code, out, _ = trained("verify", "wrong.onnx")
    assert code == 1
    assert "export wrong" in out


def test_nothing_compared_exits_with_2(trained):
    assert trained("verify", "--batch", "0")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("verify", "no.onnx"), "no.onnx"),
        (("verify", "--provider", "NoSuchExecutionProvider"), "ProviderError"),
        (("verify", "--model", "runs/loss.png"), "CheckpointError"),
        (("verify", "runs/loss.png"), "ModelError"),
        (("export", "no.safetensors"), "no.safetensors"),
        (("export", "--opset", "18", "--domain", "ai.onnx"), "reserved"),
        (("train", "--csv", "no.csv", "--target", "y"), "no.csv"),
        (("train", "--resume", "--out", "empty"), "CheckpointError"),
        (("train", "--device", "nonsense"), "device is 'nonsense'"),
        (("train", "--device", "cuda:99"), "device is 'cuda:99'"),
        (("train", "--seed", "18446744073709551616"), "seed is 18446744073709551616"),
    ],
)
def test_what_could_not_run_exits_with_3_and_says_why(trained, arguments, error):
    code, _, err = trained(*arguments)
    assert code == 3
    assert error in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--provider", "gpu"),
        ("verify", "--batch", "-1"),
        ("verify", "--bogus"),
        ("train", "--task", "circle"),
        ("train", "--csv", "table.csv"),
        ("dance",),
    ],
)
def test_a_wrong_argument_exits_with_4(cli, arguments):
    code, _, err = cli(*arguments)
    assert code == 4
    assert "Error" in err
