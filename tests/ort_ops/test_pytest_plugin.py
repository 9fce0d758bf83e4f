"""The pytest plug-in, in test runs of its own."""

import subprocess
import sys
from xml.etree import ElementTree

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

MODULE = """
import datetime
import torch
from torch import nn
from ort_ops.export import export
from ort_ops.pytest_plugin import Accepted


def build(factor=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4), nn.Tanh()).eval()
    with torch.no_grad():
        model[0].weight[0, 0] *= factor
    return model


def exported(path):
    export(build(), (torch.ones(2, 8),), path, output_names=["y"], verbose=False)
    return path
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run tests of this text in a folder of their own; returns what pytest printed and its JUnit XML."""
    (tmp_path / "models.py").write_text(MODULE)

    def run(text, *arguments, ini=""):
        (tmp_path / "test_it.py").write_text(f"from models import *\n\n{text}")
        (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = .\n{ini}")
        command = [sys.executable, "-m", "pytest", "-rs", "--junitxml=junit.xml", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr, ElementTree.parse(tmp_path / "junit.xml").getroot()

    return run


def counts(xml):
    suite = xml.find("testsuite")
    total, *others = (int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped"))
    return total - sum(others), *others


RIGHT = """
def test_right(parity, tmp_path):
    assert parity.check(build(), exported(tmp_path / "m.onnx")).verdict == "equal"
"""


def test_a_right_model_passes_on_each_provider_and_its_rows_are_in_the_xml(run):
    out, xml = run(RIGHT, ini="parity_providers = cpu NoSuchExecutionProvider")
    assert counts(xml) == (1, 0, 0, 1), out
    assert "NoSuchExecutionProvider is not in this onnxruntime" in out
    properties = {p.get("name"): p.get("value") for p in xml.iter("property")}
    assert properties["parity export y"].startswith("equal; ")
    assert properties["parity runtime y"].startswith("equal; ")


def test_a_provider_that_is_required_fails(run):
    out, xml = run(
        RIGHT, "--parity-require", "NoSuchExecutionProvider", ini="parity_providers = NoSuchExecutionProvider"
    )
    assert counts(xml)[1] + counts(xml)[2] == 1, out
    assert "--parity-require NoSuchExecutionProvider" in out


def test_a_wrong_model_fails_and_says_why(run):
    text = """
    def test_wrong(parity, tmp_path):
        parity.check(build(1.001), exported(tmp_path / "m.onnx"))
    """
    out, xml = run(text.replace("\n    ", "\n"))
    assert counts(xml) == (0, 1, 0, 0), out
    assert "export y: export_wrong" in out
    assert "differs from the model's 0.weight in 1 of 32 elements" in out


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ('Accepted("export_wrong", "a known rounding", datetime.date(9999, 1, 1))', ""),
        (
            'Accepted("export_wrong", "a known rounding", datetime.date(2000, 1, 1))',
            "accepted only until 2000-01-01",
        ),
        ('Accepted("runtime_wrong", "something else", datetime.date(9999, 1, 1))', "export y: export_wrong"),
        ('Accepted("export_wrong", " ", datetime.date(9999, 1, 1))', "has a reason"),
    ],
)
def test_a_known_deviation_is_accepted_with_a_reason_until_a_date(run, accepted, expected):
    out, xml = run(
        f"def test_known(parity, tmp_path):\n    known = {{'y': {accepted}}}\n"
        "    parity.check(build(1.001), exported(tmp_path / 'm.onnx'), accept=known)\n"
    )
    assert counts(xml) == ((0, 1, 0, 0) if expected else (1, 0, 0, 0)), out
    assert expected in out
    if "until" in expected:
        assert "is accepted, and not found" not in out


def test_what_is_accepted_for_nothing_fails(run):
    out, xml = run(
        "def test_known(parity, tmp_path):\n"
        "    known = {'y': Accepted('runtime_wrong', 'was so once', datetime.date(9999, 1, 1))}\n"
        "    parity.check(build(), exported(tmp_path / 'm.onnx'), accept=known)\n"
    )
    assert counts(xml) == (0, 1, 0, 0), out
    assert "y: runtime_wrong is accepted, and not found" in out


GOLDEN = """
from pathlib import Path


def test_golden(parity):
    path = Path("m.onnx")
    if not path.exists():
        exported(path)
    parity.replay("small", build(FACTOR), path)
"""


def test_golden_answers_are_written_on_demand_and_their_changes_shown(run, tmp_path):
    text = GOLDEN.replace("FACTOR", "1.0")
    out, xml = run(text)
    assert "golden/small.safetensors is missing; --parity-update writes it" in out.replace("\n", "")
    out, xml = run(text, "--parity-update", "-s")
    assert counts(xml) == (1, 0, 0, 0), out
    assert "small.safetensors: new" in out
    assert counts(run(text)[1]) == (1, 0, 0, 0)
    (tmp_path / "m.onnx").unlink()
    (tmp_path / "models.py").write_text(MODULE.replace("manual_seed(0)", "manual_seed(1)"))
    out, xml = run(text)  # another model was exported meanwhile
    assert counts(xml) == (0, 1, 0, 0), out
    assert "is another than the answers were recorded with" in out
    out, xml = run(text, "--parity-update", "-s")
    assert counts(xml) == (1, 0, 0, 0), out
    assert "small.safetensors: m.onnx" in out
    assert "exact/y differs by up to" in out


def test_it_works_under_xdist(run):
    pytest.importorskip("xdist")
    text = RIGHT + RIGHT.replace("test_right", "test_right_again")
    out, xml = run(text, "-n", "2")
    assert counts(xml) == (2, 0, 0, 0), out


def test_the_plug_in_loads_neither_torch_nor_onnx():
    program = (
        "import sys, ort_ops.pytest_plugin; print({'torch', 'onnx', 'typer', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
