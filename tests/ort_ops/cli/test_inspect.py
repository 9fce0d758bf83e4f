import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper

pytest.importorskip("typer")

import mylinear
from tests.ort_ops.models import builtin, function, model, node, tensor

from .conftest import Cli

KERNELS = """
from numpy import float32
from numpy.typing import NDArray
import ort_ops

@ort_ops.onnx_op("test.domain::Op")
def kernel(x: NDArray[float32]): ...
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A model of two custom nodes, the second with a function body, which has one in itself."""
    body = function("Two", ["a"], ["b"], node("Inner", ["a"], ["b"]))
    ends = [tensor("x", shape=["batch", 3])], [tensor("y", shape=["batch", None])]
    nodes = [node("Op", outputs=["v"]), node("Two", ["v"])]
    (tmp_path / "model.onnx").write_bytes(model(nodes, *ends, functions=[body]))
    return "model.onnx"


def test_a_table_of_what_is_there(cli: Cli, file: str) -> None:
    code, out, err = cli("inspect", file)
    assert (code, err) == (0, "")
    out = re.sub(r" \(there is [^)]*\)", "", out)  # what other tests registered
    assert [line.rstrip() for line in out.splitlines()] == [
        "model.onnx: IR 8, opsets ai.onnx 18, test.domain 1",
        "2 nodes, 2 of them custom; types: float32",
        "",
        "custom nodes                            count  inputs   run by",
        "test.domain::Op                         1      float32  nobody",
        "test.domain::Two                        1      ?        function body",
        "test.domain::Inner in test.domain::Two  1      ?        nobody",
        "test.domain::Op: nobody here, no kernel is registered for it",
        "test.domain::Two: function body, no kernel is registered for it",
        "test.domain::Inner in test.domain::Two: nobody here, no kernel is registered for it",
        "nobody runs some of them: a session can't be made here",
        "",
        "        name  type     shape",
        "input   x     float32  (batch, 3)",
        "output  y     float32  (batch, ?)",
        "dynamic: batch (x[0], y[0])",
        "dynamic: without a name (y[1])",
    ]


def test_a_module_brings_its_kernels(cli: Cli, file: str, tmp_path: Path) -> None:
    (tmp_path / "my_kernels.py").write_text(KERNELS)
    code, out, _ = cli("inspect", file, "--kernels", "my_kernels", "--kernels", "json", "--provider", "cpu")
    assert code == 0
    assert "kernel my_kernels.kernel on CPU\n" in re.sub(" *\n", "\n", out)


def test_a_library_runs_what_is_in_it(cli: Cli, tmp_path: Path) -> None:
    made = helper.make_node("MYLINEAR", ["x", "w"], ["y"], domain="mylinear")
    graph = helper.make_graph([made], "g", [tensor("x"), tensor("w")], [tensor("y")])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mylinear", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (tmp_path / "linear.onnx").write_bytes(proto.SerializeToString())
    library = mylinear.get_library_path()
    assert "library" not in cli("inspect", "linear.onnx")[1]
    code, out, _ = cli("inspect", "linear.onnx", "--library", library)
    assert (code, f"library {Path(library).name}" in out, "nobody" in out) == (0, True, False)
    found = json.loads(cli("inspect", "linear.onnx", "--library", library, "--json")[1])
    assert (found["runnable"], found["custom"][0]["kernel"]) == (True, library)


def test_a_library_that_does_not_say_what_is_in_it_may_run_a_node(
    cli: Cli, file: str, tmp_path: Path
) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a C compiler is missing")
    (tmp_path / "silent.c").write_text("void *RegisterCustomOps(void *o, void *a) { return 0; }\n")
    libraries = ("this or that.so", "silent.so")
    for name in libraries:
        subprocess.run([compiler, "-shared", "-fPIC", "silent.c", "-o", name], cwd=tmp_path, check=True)
    given = [each for name in libraries for each in ("--library", name)]
    out = cli("inspect", file, *given)[1]
    assert "test.domain::Op: library, if it is in there, which isn't said" in out
    assert "  library this or that.so or silent.so\n" in re.sub(" *\n", "\n", out)


def test_a_file_brings_no_code_to_run(cli: Cli, file: str, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    for name in ("test/domain.py", "test/__init__.py", "model.py", "Op.py"):
        (tmp_path / name).write_text(f"raise SystemExit({name!r})")
    assert cli("inspect", file)[0] == 0


def test_json_is_what_is_found(cli: Cli, file: str) -> None:
    code, out, _ = cli("inspect", "--json", file)
    found = json.loads(out)
    assert (code, found["runnable"]) == (0, False)
    assert [nodes["runner"] for nodes in found["custom"]] == ["nobody", "function body", "nobody"]


def test_prefer_body_is_passed_on(cli: Cli, file: str) -> None:
    import ort_ops

    @ort_ops.onnx_op("test.domain::Two")
    def two(x): ...

    assert "not needed, the function body of test.domain::Two is not run" in cli("inspect", file)[1]
    assert 'function body, prefer="body"' in cli("inspect", file, "--prefer", "body")[1]


def test_a_model_without_custom_nodes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "plain.onnx").write_bytes(model([builtin("Neg", ["x"], ["y"])], [tensor("x", shape=[])]))
    code, out, _ = cli("inspect", "plain.onnx")
    assert code == 0
    assert "1 node, none of them custom; types: float32" in out
    assert "custom nodes" not in out
    assert "input   x     float32  ()" in out
    assert "output  y     float32  any" in out


def test_names_in_a_file_are_neither_markup_nor_escape_sequences(cli: Cli, tmp_path: Path) -> None:
    nasty = model([node("[red]Op\x1b[2J", ["[/]"])], [tensor("[/]")])
    (tmp_path / "nasty.onnx").write_bytes(nasty)
    code, out, _ = cli("inspect", "nasty.onnx")
    assert code == 0
    assert "test.domain::[red]Op\\x1b[2J" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["no.onnx"], "no.onnx"),
        (["."], "Is a directory"),
        (["broken.onnx"], "ModelError: broken.onnx"),
        (["model.onnx", "--provider", "NoSuchExecutionProvider"], "ProviderError"),
        (["model.onnx", "--kernels", "no_such_module"], "no_such_module: ModuleNotFoundError"),
        (["model.onnx", "--kernels", "failing"], "failing: ZeroDivisionError"),
        (["model.onnx", "--function", "failing:F"], "--function failing: ZeroDivisionError"),
        (["model.onnx", "--library", "broken.onnx"], "broken.onnx is no library of custom operators"),
        (["model.onnx", "--library", "no.so"], "no.so is no library of custom operators"),
    ],
)
def test_what_could_not_run_exits_with_3(
    cli: Cli, file: str, tmp_path: Path, arguments: list[str], error: str
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    (tmp_path / "failing.py").write_text("1 / 0")
    code, _, err = cli("inspect", *arguments)
    assert code == 3
    assert error in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["inspect", "model.onnx", "--provider", "gpu"],
        ["inspect", "model.onnx", "--prefer", "library"],
        ["inspect", "model.onnx", "--bogus"],
        ["dance"],
    ],
)
def test_wrong_usage_exits_with_4(cli: Cli, arguments: list[str]) -> None:
    code, _, err = cli(*arguments)
    assert code == 4
    assert "Error" in err


def test_help_names_the_commands(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    assert "inspect" in out


def test_the_script_is_installed(file: str, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "ort-ops"
    command = [script, "inspect", file, "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["ir_version"] == 8
