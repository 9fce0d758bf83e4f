"""The programs and commands of README.md and docs/ are run, and what they print is what the pages show."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PAGES = {path.name: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
README = TEXTS["README.md"]
PROGRAM = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
PROGRAMS = [
    pytest.param(*found, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, found in enumerate(PROGRAM.findall(text))
]


def only(pattern, text):
    """Return the one match of a pattern."""
    (found,) = re.findall(pattern, text, re.DOTALL)
    return found


def section(title):
    """Return the README below a heading, to the next of its kind."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def run(arguments, folder):
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environ = os.environ | {"PATH": path}
    done = subprocess.run(arguments, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def masked(text):
    """Drop the errors, which differ in the last bit from one CPU to the next, and the room they take."""
    numbers = re.sub(r"\d\.\de[+-]\d\d", "ERROR", text)
    return [re.sub(r"  +", "  ", line).rstrip() for line in numbers.strip().splitlines()]


@pytest.mark.parametrize(("program", "output"), PROGRAMS)
def test_a_program_prints_what_its_page_shows(program, output, tmp_path):
    (tmp_path / "program.py").write_text(program)
    assert run([sys.executable, "program.py"], tmp_path) == output


def test_every_program_shows_what_it_prints():
    assert len(PROGRAMS) == sum(text.count("```python\n") for text in TEXTS.values()) == 8


def test_the_operator_in_cpp_is_the_example():
    path, shown = only(r"```cpp\n// (.*?)\n(.*?)```", README)
    assert (ROOT / path).read_text(encoding="utf-8").partition("\n")[2] == shown


def test_the_project_in_cpp_is_the_example():
    shown = only(r"```cmake\n(.*?)```", TEXTS["cpp.md"])
    project = ROOT / "examples" / "cpp_operator" / "CMakeLists.txt"
    assert project.read_text(encoding="utf-8").partition("\n")[2] == shown


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the demo; returns what it printed, and the folder that it was run in."""
    folder = tmp_path_factory.mktemp("demo")
    return run(["mylinear", "demo"], folder), folder


def test_the_demo_prints_what_the_readme_shows(demo):
    shown = only(r"`make demo` prints:\n\n```text\n(.*?)```", README)
    assert masked(demo[0]) == masked(shown)


def test_inspect_prints_what_its_page_shows(demo, tmp_path):
    shutil.copytree(demo[1], tmp_path, dirs_exist_ok=True)
    commands, shown = only(r"inspect\n.*?```sh\n([^`]*)```\n\n```text\n(.*?)```", TEXTS["commands.md"])
    assert masked(run(["bash", "-ec", commands], tmp_path)) == masked(shown)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(section("Verify"), id="Verify"),
        *(pytest.param(TEXTS[name], id=name) for name in ("verify.md", "deploy.md", "commands.md")),
    ],
)
def test_commands_run_one_after_the_other(text, demo, tmp_path):
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert blocks
    shutil.copytree(demo[1], tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "runs" / "linear.onnx", tmp_path / "model.onnx")
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "models.py").write_text(
        "from mylinear.modelfile import load_model\n\ndef build():\n"
        "    return load_model('runs/model.safetensors')\n"
    )
    run(["bash", "-ec", "".join(blocks)], tmp_path)


def test_the_readmes_deployment_is_that_of_its_page():
    assert only(r"```sh\n(.*?)```", section("Deploy")) in TEXTS["deploy.md"]


def test_the_test_with_the_fixture_passes(tmp_path):
    shown = only(r"```py\n(def test_.*?)```", TEXTS["verify.md"])
    (tmp_path / "test_shown.py").write_text(
        "import torch\nfrom ort_ops.export import export\n\n"
        f"model, args = torch.nn.Linear(3, 2).eval(), (torch.zeros(1, 3),)\n\n\n{shown}"
    )
    printed = run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_shown.py"], tmp_path)
    assert "1 passed" in printed


def test_the_kernel_without_a_body_is_one(tmp_path):
    shown = "\n\n".join(re.findall(r"```py\n(@.*?)```", TEXTS["kernels.md"], re.DOTALL))
    assert "@ort_ops.onnx_op" in shown
    assert "@norm.infer" in shown
    (tmp_path / "program.py").write_text(f"import ort_ops\n\n\n{shown}")
    run([sys.executable, "program.py"], tmp_path)


def anchors(text):
    """Return what a page's headings are called in links: lower case, words joined by hyphens."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_what_is_there(name):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXTS[name]) if "://" not in link]
    assert links
    for path, _, anchor in (link.partition("#") for link in links):
        target = PAGES[name].parent / path if path else PAGES[name]
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), anchor


def test_the_readme_leads_to_every_page():
    assert [name for name in PAGES if name != "README.md" and f"](docs/{name})" not in README] == []


def test_the_map_names_every_module():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Where things are\n")[2]
    modules = {path.name for package in ("mylinear", "ort_ops") for path in (ROOT / package).glob("*.py")}
    internal = {"__init__.py", "errors.py", "files.py", "providers.py", "runtime.py"}
    assert {name for name in modules - internal if name not in text} == set()


def test_verify_lists_every_argument_of_check():
    parity = pytest.importorskip("ort_ops.parity")
    names = set(inspect.signature(parity.check).parameters) - {"model", "file", "inputs"}
    table = TEXTS["verify.md"].partition("| argument |")[2].partition("\n\n")[0]
    listed = [row.partition(" | ")[0] for row in table.splitlines()[2:]]
    assert sorted(re.findall(r"`(\w+)`", " ".join(listed))) == sorted(names)
