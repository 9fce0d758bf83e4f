"""The pytest plug-in, in test runs of its own."""

import subprocess
import sys
from xml.etree import ElementTree

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from ort_ops.export import export  # noqa: E402

MODULE = """
import datetime
from pathlib import Path

import torch
from torch import nn

from ort_ops.pytest_plugin import Accepted

FILE = Path("m.onnx")


def build(factor=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4), nn.Tanh()).eval()
    with torch.no_grad():
        model[0].weight[0, 0] *= factor
    return model


def known(verdict, reason="a known rounding", year=9999):
    return {"y": Accepted(verdict, reason, datetime.date(year, 1, 1))}
"""


def write(folder, text=MODULE):
    """Write a module of models into a folder, and what it builds as m.onnx."""
    (folder / "models.py").write_text(text)
    names = {}
    exec(text, names)
    export(names["build"](), (torch.ones(2, 8),), folder / "m.onnx", output_names=["y"], verbose=False)


def run(folder, text, *arguments, ini=""):
    """Run tests of this text in a folder; returns what pytest printed and its JUnit XML."""
    (folder / "test_it.py").write_text(f"from models import *\n\n{text}")
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = .\n{ini}")
    command = [sys.executable, "-m", "pytest", "-rs", "--junitxml=junit.xml", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr, ElementTree.parse(folder / "junit.xml").getroot()


def counts(xml):
    suite = xml.find("testsuite")
    total, *others = (int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped"))
    return total - sum(others), *others


RIGHT = """
def test_right(parity):
    assert parity.check(build(), FILE).verdict == "equal"
"""
TESTS = f"""{RIGHT}

def test_wrong(parity):
    parity.check(build(1.001), FILE)


def test_accepted(parity):
    parity.check(build(1.001), FILE, accept=known("export_wrong"))


def test_one_of_several(parity):
    accept = dict(y=[known(verdict)["y"] for verdict in ("export_wrong", "runtime_wrong")])
    parity.check(build(1.001), FILE, accept=accept)


def test_too_late(parity):
    parity.check(build(1.001), FILE, accept=known("export_wrong", year=2000))


def test_another(parity):
    parity.check(build(1.001), FILE, accept=known("runtime_wrong"))


def test_no_reason(parity):
    parity.check(build(1.001), FILE, accept=known("export_wrong", reason=" "))


def test_for_nothing(parity):
    parity.check(build(), FILE, accept=known("runtime_wrong"))


def test_on_another(parity):
    tf32 = Accepted("reduced_precision", "TF32", datetime.date(9999, 1, 1), provider="cuda")
    parity.check(build(), FILE, accept={{"y": tf32}})
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run TESTS once, on two providers; returns what pytest printed and the XML of each test."""
    folder = tmp_path_factory.mktemp("plugin")
    write(folder)
    out, xml = run(folder, TESTS, ini="parity_providers = cpu NoSuchExecutionProvider")
    return out, {case.get("name"): case for case in xml.iter("testcase")}


def failure(case):
    """Return why a test failed, "" where it passed."""
    assert case.find("error") is None
    assert case.find("skipped") is None
    found = case.find("failure")
    return "" if found is None else found.text


def test_a_right_model_passes_on_each_provider_and_its_rows_are_in_the_xml(ran):
    out, cases = ran
    case = cases["test_right[cpu]"]
    assert failure(case) == "", out
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties["parity export y"].startswith("equal; ")
    assert properties["parity runtime y"].startswith("equal; ")
    elsewhere = cases["test_right[NoSuchExecutionProvider]"]
    assert elsewhere.find("skipped") is not None
    assert "NoSuchExecutionProvider is not in this onnxruntime" in out


@pytest.mark.parametrize(
    ("providers", "tests"),
    [("NoSuchExecutionProvider", 1), ("NoSuchExecutionProvider:a=1", 1), ("cpu", 2)],
)
def test_a_provider_that_is_required_fails_whether_it_is_among_the_settings_or_not(
    tmp_path, providers, tests
):
    write(tmp_path)
    required = ("--parity-require", "NoSuchExecutionProvider")
    out, xml = run(
        tmp_path, RIGHT, *required, "-W", "error:record_property", ini=f"parity_providers = {providers}"
    )
    assert counts(xml) == (tests - 1, 0, 1, 0), out
    assert "--parity-require NoSuchExecutionProvider" in out


@pytest.mark.parametrize(
    ("setting", "required"), [("cpu", "CPUExecutionProvider"), ("CPUExecutionProvider", "cpu")]
)
def test_one_provider_by_two_names_is_one(tmp_path, setting, required):
    write(tmp_path)
    out, xml = run(tmp_path, RIGHT, "--parity-require", required, ini=f"parity_providers = {setting}")
    assert counts(xml) == (1, 0, 0, 0), out


def test_a_wrong_model_fails_and_says_why(ran):
    reason = failure(ran[1]["test_wrong[cpu]"])
    assert "export y: export_wrong" in reason
    assert "differs from the model's 0.weight in 1 of 32 elements" in reason


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accepted", ""),
        ("too_late", "accepted only until 2000-01-01"),
        ("another", "export y: export_wrong"),
        ("no_reason", "has a reason"),
    ],
)
def test_a_known_deviation_is_accepted_with_a_reason_until_a_date(ran, name, expected):
    reason = failure(ran[1][f"test_{name}[cpu]"])
    assert bool(reason) == bool(expected), reason
    assert expected in reason
    if "until" in expected:
        assert "is accepted, and not found" not in reason


def test_what_is_accepted_on_another_provider_is_none_of_this_ones(ran):
    assert failure(ran[1]["test_on_another[cpu]"]) == ""


def test_what_is_accepted_for_nothing_fails(ran):
    for name in ("for_nothing", "one_of_several"):
        assert "y: runtime_wrong is accepted, and not found" in failure(ran[1][f"test_{name}[cpu]"])


GOLDEN = """
def test_golden(parity):
    parity.replay("small", build(), FILE)
"""
MISSING = (
    GOLDEN
    + """

def test_missing(parity):
    parity.replay("another", build(), FILE)
"""
)


def test_golden_answers_are_written_on_demand_and_their_changes_shown(tmp_path):
    write(tmp_path)
    out, xml = run(tmp_path, GOLDEN, "--parity-update", "-s")
    assert counts(xml) == (1, 0, 0, 0), out
    assert "small.safetensors: new" in out
    out, xml = run(tmp_path, MISSING)
    assert counts(xml) == (1, 1, 0, 0), out
    assert "golden/another.safetensors is missing; --parity-update writes it" in out.replace("\n", "")
    write(tmp_path, MODULE.replace("manual_seed(0)", "manual_seed(1)"))
    out, xml = run(tmp_path, GOLDEN)  # another model was exported meanwhile
    assert counts(xml) == (0, 1, 0, 0), out
    assert "is another than the answers were recorded with" in out
    out, xml = run(tmp_path, GOLDEN, "--parity-update", "-s")
    assert counts(xml) == (1, 0, 0, 0), out
    assert "small.safetensors: m.onnx" in out
    assert "exact/y differs by up to" in out


def test_it_works_under_xdist(tmp_path):
    pytest.importorskip("xdist")
    write(tmp_path)
    text = RIGHT + RIGHT.replace("test_right", "test_right_again")
    out, xml = run(tmp_path, text, "-n", "2")
    assert counts(xml) == (2, 0, 0, 0), out


def test_the_plug_in_loads_neither_torch_nor_onnx():
    program = (
        "import sys, ort_ops.pytest_plugin; print({'torch', 'onnx', 'typer', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_start_of_pytest_loads_nothing_of_ours_but_the_hooks(tmp_path):
    (tmp_path / "models.py").touch()
    test = """import sys
def test_loaded():
    loaded = {name.split(".")[0] for name in sys.modules}
    assert loaded & {"numpy", "onnxruntime", "ort_ops", "pytest_ort_ops"} == {"pytest_ort_ops"}
"""
    out, xml = run(tmp_path, test)
    assert counts(xml) == (1, 0, 0, 0), out


def test_without_a_runtime_the_tests_that_need_one_fail_and_no_others(tmp_path):
    (tmp_path / "models.py").touch()
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['onnxruntime'] = None")
    out, xml = run(tmp_path, "def test_other(): pass\ndef test_parity(parity): pass")
    assert counts(xml) == (1, 0, 1, 0), out
    assert "MissingRuntimeError: ort_ops needs ONNX Runtime" in out
