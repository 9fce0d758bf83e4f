"""A file that names a Function for its node: who may run it, and what a command says where nobody does."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("typer")

import torch

from ort_ops import registry
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


CHECKED = ("model.onnx", "--module", "named_net:build")


@pytest.mark.parametrize("command", ["check", "locate", "record"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--trust", "named_net", "--library", "broken.so"), "broken.so is no library of custom operators"),
        (("--trust", "named_net", "--library", "no.so"), "no.so is no library of custom operators"),
        (("--kernels", "no_such_module"), "no_such_module: ModuleNotFoundError"),
        (("--function", "no_such_module:F"), "no_such_module: ModuleNotFoundError"),
    ],
)
def test_what_can_not_be_had_is_one_line_and_3(
    cli: Cli, command: str, options: tuple[str, ...], said: str
) -> None:
    code, _, err = cli(command, *CHECKED, *options)
    assert (code, len(err.splitlines())) == (3, 1), err
    assert said in err


def test_locate_says_how_the_function_may_run(cli: Cli) -> None:
    code, _, err = cli("locate", *CHECKED)
    assert (code, len(err.splitlines())) == (3, 1), err
    assert "ort-ops --function named_net:Doubled, or --trust named_net" in err


def test_replay_without_the_kernel_is_one_line_that_names_the_option(cli: Cli, tmp_path: Path) -> None:
    assert cli("record", *CHECKED, "--kernels", "named_kernels", "-o", "golden")[0] == 0
    assert (
        cli("bundle", "model.onnx", "--kernels", "named_kernels", "--parity", "golden", "-o", "made")[0] == 0
    )
    registry._ops = []
    for given in (["golden", "model.onnx"], ["made"]):
        code, _, err = cli("replay", *given)
        assert (code, len(err.splitlines())) == (3, 1), err
        assert "nobody runs named::Doubled here" in err
        assert "(--kernels MODULE)" in err
        assert "--trust" not in err
    sys.modules.pop("named_kernels")
    assert cli("replay", "made", "--kernels", "named_kernels")[0] == 0
    assert cli("replay", "made", "--kernels", "no_such_module")[0] == 3


def test_replay_says_why_a_kernel_can_not_run(cli: Cli, tmp_path: Path) -> None:
    assert cli("record", *CHECKED, "--kernels", "named_kernels", "-o", "golden")[0] == 0
    registry._ops = []
    typed = KERNELS.replace('Doubled")', 'Doubled", inputs=["float64"], outputs=["float64"])')
    (tmp_path / "named_typed.py").write_text(typed)
    sys.modules.pop("named_typed", None)
    code, _, err = cli("replay", "golden", "model.onnx", "--kernels", "named_typed")
    assert (code, len(err.splitlines())) == (3, 1), err
    assert "nobody runs named::Doubled (named_typed.doubled can't take " in err
