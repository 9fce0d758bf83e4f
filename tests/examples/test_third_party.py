"""examples/third_party: its README's output. make test-real-exports has the package."""

import sys
from pathlib import Path

import pytest

from .readme import copy_of, masked, run_readme, run_shell

pytest.importorskip("entmax", reason="entmax is not installed; make test-real-exports has it")

SESSION = """
import sys
import ort_ops
providers = ["CPUExecutionProvider"]
session = ort_ops.InferenceSession("attention.onnx", providers=providers, trust=["entmax"])
print(*session.explain())
try:
    ort_ops.InferenceSession("attention.onnx", providers=providers)
except Exception as error:
    print(*error.__notes__)
"""


def test_its_commands_print_what_the_readme_shows(tmp_path: Path) -> None:
    folder = copy_of("third_party", tmp_path)
    ran = run_readme(folder)
    assert len(ran) == 2
    for each in ran:
        assert masked(each.printed) == masked(each.shown)
    assert ran[0].printed.endswith("verdict: equal\n")

    (folder / "fresh.py").write_text(SESSION)
    trusted, refused = run_shell(f"{sys.executable} fresh.py", folder).splitlines()
    assert trusted.endswith("kernel entmax.activations.Entmax15Function.forward on CPUExecutionProvider")
    assert "trust=['entmax']" in refused
