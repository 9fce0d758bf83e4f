"""The README's programs are run, and what they print is what the README shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
README = (Path(__file__).parent.parent / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
DEMO = re.search(r"`make demo` prints:\n\n```text\n(.*?)```", README, re.DOTALL)
INSPECT = re.search(r"## Inspect.*?```sh\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def run(arguments, folder):
    result = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def masked(text):
    """Drop the errors, which differ in the last bit from one CPU to the next, and the room they take."""
    numbers = re.sub(r"\d\.\de[+-]\d\d", "ERROR", text)
    return [re.sub(r"  +", "  ", line).rstrip() for line in numbers.strip().splitlines()]


def test_there_are_programs_to_run():
    assert len(PROGRAMS) == README.count("```python\n") == 7


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_prints_what_the_readme_shows(program, output, tmp_path):
    (tmp_path / "program.py").write_text(program)
    assert run([sys.executable, "program.py"], tmp_path) == output


def test_the_operator_in_cpp_is_the_example() -> None:
    (shown,) = re.findall(r"```cpp\n// (.*?)\n(.*?)```", README, re.DOTALL)
    example = (Path(__file__).parent.parent / shown[0]).read_text()
    assert example.partition("\n")[2] == shown[1]


def test_the_demo_prints_what_the_readme_shows(tmp_path):
    printed = run([BIN / "mylinear", "demo"], tmp_path)
    assert DEMO is not None
    assert masked(printed) == masked(DEMO[1])


def test_inspect_prints_what_the_readme_shows(tmp_path):
    run([BIN / "mylinear", "demo"], tmp_path)
    assert INSPECT is not None
    commands, shown = INSPECT.groups()
    printed = [run([BIN / name, *rest], tmp_path) for name, *rest in map(str.split, commands.splitlines())]
    assert masked("\n".join(printed)) == masked(shown)


def section(title):
    """Return the text below a heading, to the next of its kind."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("title", ["Verify", "Deploy", "On the command line"])
def test_commands_run_one_after_the_other(title, tmp_path):
    blocks = re.findall(r"```sh\n(.*?)```", section(title), re.DOTALL)
    assert blocks
    run([BIN / "mylinear", "demo"], tmp_path)
    shutil.copy(tmp_path / "runs" / "linear.onnx", tmp_path / "model.onnx")
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "models.py").write_text(
        "from mylinear.modelfile import load_model\n\ndef build():\n"
        "    return load_model('runs/model.safetensors')\n"
    )
    commands = "".join(blocks).replace(" --provider cuda:use_tf32=0", "")  # there may be no GPU
    environ = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_test_with_the_fixture_passes(tmp_path):
    (shown,) = re.findall(r"```py\n(def test_.*?)```", README, re.DOTALL)
    (tmp_path / "test_shown.py").write_text(
        "import torch\nfrom ort_ops.export import export\n\n"
        f"model, args = torch.nn.Linear(3, 2).eval(), (torch.zeros(1, 3),)\n\n\n{shown}"
    )
    printed = run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_shown.py"], tmp_path)
    assert "1 passed" in printed


def test_links_lead_to_what_is_there():
    root = Path(__file__).parent.parent
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 20
    assert [link for link in links if not (root / link).exists()] == []


def test_the_map_names_every_module():
    root = Path(__file__).parent.parent
    modules = {path.name for package in ("mylinear", "ort_ops") for path in (root / package).glob("*.py")}
    internal = {"__init__.py", "errors.py", "files.py", "providers.py", "runtime.py"}
    assert {name for name in modules - internal if name not in README} == set()
