"""The command bundle, and what it says of operators that aren't ONNX Runtime's own."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("typer")

from tests.ort_ops.models import model, node, tensor

from .conftest import Cli
from .test_inspect import KERNELS


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A model of one custom node."""
    ends = [tensor("x", shape=["batch", 3])], [tensor("y", shape=["batch", None])]
    (tmp_path / "model.onnx").write_bytes(model([node("Op")], *ends))
    return "model.onnx"


def test_an_operator_that_nobody_runs_exits_with_3(cli: Cli, file: str, tmp_path: Path) -> None:
    code, out, err = cli("bundle", file, "-o", "out")
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "BundleError: nobody runs test.domain::Op (node 'Op')" in err
    assert not (tmp_path / "out").exists()


def test_a_kernel_in_python_is_said_to_be_missing_from_the_folder(
    cli: Cli, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundled_kernels.py").write_text(KERNELS)
    monkeypatch.delitem(sys.modules, "bundled_kernels", raising=False)
    code, out, err = cli("bundle", file, "-o", "out", "--kernels", "bundled_kernels")
    assert (code, err) == (0, "")
    assert "test.domain::Op: 1 node, by Python kernel, which is not in the folder" in out
    assert "import bundled_kernels" in (tmp_path / "out" / "README.md").read_text()
