"""What importing loads, and that the proof of it can fail."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mylinear
import ort_ops

CHECKS = """
import sys

import torch
from onnx import helper

from ort_ops import parity


class Compiles(torch.nn.Module):
    def forward(self, x):
        return torch.compile(torch.relu, backend="eager")(x)


ends = [helper.make_tensor_value_info(name, 1, [2, 3]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
with open("model.onnx", "wb") as file:
    file.write(model.SerializeToString())
for make in (torch.nn.ReLU, Compiles, lambda: torch.compile(torch.nn.ReLU(), backend="eager")):
    print(parity.check(make().eval(), "model.onnx", seeds=1).verdict, "torch._dynamo" in sys.modules)
"""
HEAVY = ("torch", "onnx", "onnxscript", "typer", "rich", "matplotlib")


def loaded_by(code: str) -> set[str]:
    """Those of HEAVY that a fresh interpreter has loaded after running ``code``."""
    program = f"import sys\n{code}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import ort_ops",
        "import ort_ops; ort_ops.get_library_path(); ort_ops.errors, ort_ops.inspection, ort_ops.selection",
        "import mylinear.kernels",
    ],
)
def test_a_deployment_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


def test_export_loads_dynamo_only_where_it_is_needed() -> None:
    """It takes nearly as long to load as torch."""
    pytest.importorskip("onnxscript")
    program = "import sys, ort_ops.export, mylinear.export\nprint('torch._dynamo' in sys.modules)\n"
    for more, expected in (("", ["False"]), ("torch._dynamo\n", ["False", "True"])):  # so it would be seen
        code = program + (f"import {more}{program}" if more else "")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == expected


def test_check_loads_dynamo_only_for_what_is_compiled(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    (tmp_path / "program.py").write_text(CHECKS)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["equal False", "equal True", "equal True"]


def test_inspect_loads_neither_torch_nor_onnx() -> None:
    pytest.importorskip("typer")
    code = "import ort_ops.cli\ntry: ort_ops.cli.main(['inspect', 'missing'])\nexcept SystemExit: pass"
    assert loaded_by(code) == {"typer", "rich"}


@pytest.mark.parametrize("package", ["ort_ops", "mylinear"])
@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_commands_without_their_extra_say_which_it_is(package: str, missing: str) -> None:
    if package == "mylinear":
        pytest.importorskip("torch")  # which it misses first
    program = f"import sys\nsys.modules[{missing!r}] = None\nimport {package}.cli"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: the commands need typer and rich: pip install 'ort-ops[cli]'" in done.stderr


def test_commands_that_need_torch_say_so() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("typer")
    program = "import sys\nsys.modules['torch'] = None\nimport mylinear.cli"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "mylinear's commands need torch: pip install 'ort-ops[torch,cli]'" in done.stderr
    program = "import sys\nsys.modules['onnx'] = None\nimport ort_ops.cli\nort_ops.cli.main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "check", "model.onnx", "--module", "torch.nn:Identity"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "this command needs pip install 'ort-ops[torch]'" in done.stderr


@pytest.mark.parametrize("planted", ["torch", "typer"])
def test_the_proof_can_fail(planted: str) -> None:
    pytest.importorskip(planted)
    assert planted in loaded_by(f"import ort_ops, {planted}")


def test_all_is_what_is_public() -> None:
    found = {n for n, value in vars(ort_ops).items() if n[0] != "_" and not isinstance(value, ModuleType)}
    assert found - {"Any", "require_gil", "require_one_runtime"} == set(
        ort_ops.__all__
    )  # what __init__ itself uses


@pytest.mark.parametrize("package", [ort_ops, mylinear])
def test_a_submodule_is_there_when_it_is_asked_for(package: ModuleType) -> None:
    files = Path(package.__file__ or "").parent.glob("[!_]*.py")
    names = {file.stem for file in files}
    assert len(names) > 10
    assert set(dir(package)) >= names
    for name in ("kernels",) if package is mylinear else ("model", "parameters"):
        assert getattr(package, name).__name__ == f"{package.__name__}.{name}"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing
