"""How a command ends."""

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from onnx import helper

pytest.importorskip("typer")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_reader_that_has_enough_is_no_crash(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ends = [helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", ends[:1], ends[1:])
    (tmp_path / "model.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    reads, writes = os.pipe()
    os.close(reads)
    command = [Path(sys.executable).parent / "ort-ops", "inspect", tmp_path / "model.onnx", *arguments]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_error_of_onnx_runtime_is_one_line_with_its_notes(capsys: pytest.CaptureFixture[str]) -> None:
    from ort_ops.cli.running import make_app, run

    def fails() -> None:
        """Fail."""
        try:
            onnxruntime.InferenceSession(b"no model")
        except Exception as error:
            error.add_note("the note")
            raise

    def other() -> None:
        """Fail otherwise."""
        raise ValueError("a bug")

    app = make_app("it", "help", [fails, other])
    assert run(app, "it", ["fails"], []) == 3
    err = capsys.readouterr().err
    assert err.startswith("error: InvalidProtobuf: ")
    assert err.endswith("; the note\n")
    assert err.count("\n") == 1
    assert run(app, "it", ["other"], []) == 70


def test_letters_that_the_locale_has_not_are_shown_by_their_numbers(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy"]
    node = helper.make_node("Öffne", ["x"], ["y"], "größe", domain="d")
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("d", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    command = [Path(sys.executable).parent / "ort-ops", "inspect", tmp_path / "model.onnx"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert r"d::\xd6ffne" in done.stdout, done
    assert "Traceback" not in done.stderr
