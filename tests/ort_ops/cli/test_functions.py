"""A file that names a Function for its node: who may run it, and what a command says where nobody does."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("typer")

import torch

from ort_ops.export import export

from .conftest import Cli

NET = """
import torch


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def symbolic(g, x):
        return g.op("named::Doubled", x)


class Net(torch.nn.Module):
    def forward(self, x):
        return Doubled.apply(x)


def build():
    return Net().eval()
"""
KERNELS = """
import ort_ops


@ort_ops.onnx_op("named::Doubled")
def doubled(x):
    return 2 * x
"""


@pytest.fixture(name="cli")
def _cli(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Have model.onnx of a module named_net in the folder, and a module with the node's kernel."""
    (tmp_path / "named_net.py").write_text(NET)
    (tmp_path / "named_kernels.py").write_text(KERNELS)
    (tmp_path / "broken.so").write_bytes(b"no library")
    monkeypatch.syspath_prepend(tmp_path)
    _forget(monkeypatch)
    import named_net

    free = {"dynamic_shapes": ({0: "batch"},), "input_names": ["x"], "output_names": ["y"]}
    export(named_net.build(), (torch.ones(2, 3),), "model.onnx", verbose=False, **free)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    _forget(monkeypatch)
    return cli


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("named_net", "named_kernels"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("option", [("--trust", "named_net"), ("--function", "named_net:Doubled")])
def test_inspect_finds_a_function_in_the_current_folder(cli: Cli, option: tuple[str, str]) -> None:
    assert "kernel named_net.Doubled.forward" in cli("inspect", "model.onnx", *option)[1]


def test_inspect_says_how_a_function_that_the_file_names_may_run(cli: Cli) -> None:
    out = cli("inspect", "model.onnx")[1]
    assert "nobody here, the file names named_net:Doubled for it, which may run with functions=[...]" in out
    assert "ort-ops --function named_net:Doubled, or --trust named_net" in out


def test_a_package_that_fails_is_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "named_net.py").write_text("1 / 0")
    code, out, _ = cli("inspect", "model.onnx", "--trust", "named_net")
    assert (code, "which can't be imported: ZeroDivisionError('division by zero')" in out) == (0, True)
