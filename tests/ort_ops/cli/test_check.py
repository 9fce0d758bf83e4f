"""The commands check, locate, record and replay, and what each exits with."""

import io
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("typer")

import onnx.parser
import torch

import ort_ops
from ort_ops.cli.locate import largest_errors
from ort_ops.parity import Located, NodeRow, Verdict

from .conftest import Cli

MODULE = """
import torch
from torch import nn
from ort_ops.export import export


def build(factor=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        model[2].weight[0, 0] *= factor
    return model


def wrong():
    return build(1 + 1e-5)


def crashes():
    raise ZeroDivisionError("planted")


def other():
    return torch.nn.Linear(5, 2).eval()


def relu():
    return nn.ReLU().eval()


def inputs():
    return [torch.ones(3, 8), torch.zeros(5, 8)]


made = build()
GIVEN = (torch.ones(5, 8),)


def forgetful():
    torch.ones(5, 8)
"""


@pytest.fixture(name="cli")
def _cli(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Have a module of models and their model.onnx in the folder, too."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (tmp_path / "parity_models.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "parity_models", raising=False)
    namespace: dict[str, Any] = {}
    exec(MODULE, namespace)
    free = {"dynamic_shapes": ({0: "batch"},), "input_names": ["x"], "output_names": ["y"]}
    namespace["export"](namespace["build"](), (torch.ones(2, 8),), "model.onnx", verbose=False, **free)
    return cli


def test_a_model_that_can_not_be_checked_keeps_none_from_being_checked(cli: Cli, tmp_path: Path) -> None:
    tables = "".join(
        f'[[model]]\nfile = "{file}"\nmodule = "parity_models:{module}"\n'
        for file, module in (("model.onnx", "build"), ("gone.onnx", "build"), ("model.onnx", "wrong"))
    )
    (tmp_path / "parity.toml").write_text(tables)
    code, out, err = cli("check", "--config", "parity.toml", "--junit", "junit.xml")
    assert (code, out.count("verdict:")) == (1, 2)
    assert "gone.onnx" in err
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot().findall("testsuite")
    assert sorted((each.get("failures"), each.get("errors")) for each in suites) == [
        *(("0", "0"), ("0", "1"), ("1", "0")),
    ]
    (tmp_path / "parity.toml").write_text(tables[: tables.rindex("[[")])
    assert cli("check", "--config", "parity.toml")[0] == 3


def test_check_exits_with_0_for_equal_and_1_for_wrong(cli: Cli) -> None:
    code, out, err = cli("check", "model.onnx", "--module", "parity_models:build")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "verdict: equal"
    assert cli("check", "model.onnx", "--module", "parity_models:made")[0] == 0
    code, out, _ = cli("check", "model.onnx", "--module", "parity_models:wrong")
    assert code == 1
    assert "2.weight differs from the model's 2.weight in 1 of 64 elements" in out


def test_nothing_compared_exits_with_2(cli: Cli) -> None:
    arguments = ("check", "model.onnx", "--module", "parity_models:build", "--dim", "batch=0")
    code, out, _ = cli(*arguments, "--allow-reduced-precision")
    assert code == 2
    assert out.splitlines()[-1] == "verdict: cannot say"
    assert "it has no elements in any sample, and nothing of it was compared" in out


def test_a_crash_a_missing_file_and_a_wrong_argument_are_different_things(cli: Cli) -> None:
    code, _, err = cli("check", "model.onnx", "--module", "parity_models:crashes")
    assert code == 70
    assert "ZeroDivisionError: planted" in err
    assert cli("check", "no.onnx", "--module", "parity_models:build")[0] == 3
    code, _, err = cli("check", "model.onnx", "--module", "parity_models:other")
    assert code == 3
    assert err.startswith("error: ParityError: the model fails on inputs made up from what the file says")
    assert (
        cli(
            "check", "model.onnx", "--module", "parity_models:build", "--provider", "NoSuchExecutionProvider"
        )[0]
        == 3
    )
    for wrong in (
        ("--module", "parity_models:no"),
        ("--module", "parity_models"),
        ("--provider", "gpu"),
        ("--range", "x"),
        ("--dim", "batch=many"),
        ("--seeds", "0"),
        ("--config", "parity.toml"),
    ):
        assert cli("check", "model.onnx", "--module", "parity_models:build", *wrong)[0] == 4, wrong
    assert cli("check", "model.onnx")[0] == 4


def test_a_report_is_written_where_no_session_can_be_made(cli: Cli, tmp_path: Path) -> None:
    head = '<ir_version: 8, opset_import: ["": 18]> g (bfloat16[4] x) => (bfloat16[4] y) '
    onnx.save(onnx.parser.parse_model(f"{head} {{ y = Relu(x) }}"), "relu.onnx")  # no kernel on the CPU
    files = ("--html", "page.html", "--json", "report.json")
    code, out, err = cli("check", "relu.onnx", "--module", "parity_models:relu", *files)
    assert (code, out.splitlines()[-1]) == (2, "verdict: cannot say")
    assert "no nodes are looked at: no session could be made" in err
    assert "cannot say" in (tmp_path / "page.html").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "cannot_say"


def test_inputs_come_from_a_file_a_module_or_a_function(cli: Cli, tmp_path: Path) -> None:
    np.savez("given.npz", x=np.ones((3, 8), np.float32))
    for inputs, elements in (("given.npz", 12), ("parity_models:inputs", 32), ("parity_models:GIVEN", 20)):
        arguments = ("check", "model.onnx", "--module", "parity_models:build", "--inputs", inputs)
        assert cli(*arguments, "--json", "report.json")[0] == 0
        read = json.loads((tmp_path / "report.json").read_text())
        assert {row["elements"] for row in read["rows"]} == {elements}


def test_a_file_of_inputs_that_is_none_is_an_error_in_one_line(cli: Cli, tmp_path: Path) -> None:
    one = io.BytesIO()
    np.save(one, np.ones((3, 8), np.float32))
    np.savez("text.npz", x=np.array(["one"]))
    contents = {"bad": b"no arrays", "cut": b"PK\3\4 and no more", "empty": b"", "array": one.getvalue()}
    for name, content in (*contents.items(), ("text", Path("text.npz").read_bytes())):
        (tmp_path / f"{name}.npz").write_bytes(content)
        arguments = ("check", "model.onnx", "--module", "parity_models:build", "--inputs", f"{name}.npz")
        code, _, err = cli(*arguments)
        assert (code, len(err.splitlines())) == (3, 1)
        assert f"{name}.npz: " in err


def test_a_sweep_runs_every_level(cli: Cli) -> None:
    code, out, _ = cli("check", "model.onnx", "--module", "parity_models:build", "--sweep", "--seeds", "1")
    assert code == 0
    for level in ("disable", "basic", "extended", "all"):
        assert f"level={level}" in out


def test_the_plain_rule(cli: Cli) -> None:
    arguments = ("check", "model.onnx", "--module", "parity_models:build")
    assert cli(*arguments, "--rtol", "1e-3", "--atol", "1e-3")[0] == 0
    code, out, _ = cli(*arguments, "--atol", "1e-30")
    assert code == 1
    assert "the rule atol=1e-30, rtol=0" in out


def test_many_models_are_checked_by_a_file(cli: Cli, tmp_path: Path) -> None:
    good = '[[model]]\nfile = "model.onnx"\nmodule = "parity_models:build"\nseeds = 1\ndim = {batch = 4}\n'
    (tmp_path / "parity.toml").write_text(
        good + '[[model]]\nfile = "model.onnx"\nmodule = "parity_models:wrong"\n'
    )
    code, out, _ = cli("check", "--config", "parity.toml", "--junit", "junit.xml")
    assert code == 1
    assert out.count("verdict: ") == 2
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    suites = root.findall("testsuite")
    assert [suite.get("failures") for suite in suites] == ["0", "1"]
    assert suites[0].get("name") != suites[1].get("name")
    wrong_first = '[[model]]\nfile = "model.onnx"\nmodule = "parity_models:wrong"\n' + good
    (tmp_path / "parity.toml").write_text(wrong_first)
    assert cli("check", "--config", "parity.toml")[0] == 1
    (tmp_path / "parity.toml").write_text(good)
    assert cli("check", "--config", "parity.toml")[0] == 0
    for wrong in ("", "[[model]]\n", good + "bogus = 1\n", "[[model]\n", "[model]\n"):
        (tmp_path / "parity.toml").write_text(wrong)
        assert cli("check", "--config", "parity.toml")[0] == 4, wrong


def test_a_page_is_written(cli: Cli, tmp_path: Path) -> None:
    assert cli("check", "model.onnx", "--module", "parity_models:wrong", "--html", "page.html")[0] == 1
    assert "Guilty: <code>node_linear_1</code>" in (tmp_path / "page.html").read_text()


def test_locate_names_the_node(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("locate", "model.onnx", "--module", "parity_models:wrong", "--json", "found.json")
    assert code == 1
    assert out.splitlines()[-1] == "guilty: node_linear_1 (export)"
    assert json.loads((tmp_path / "found.json").read_text())["node"] == "node_linear_1"
    code, out, _ = cli("locate", "model.onnx", "--module", "parity_models:build")
    assert code == 0
    assert out.splitlines()[-1] == "no node is guilty"


def test_what_is_recorded_is_replayed(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("record", "model.onnx", "--module", "parity_models:build", "-o", "golden.safetensors")
    assert code == 0
    assert "wrote golden.safetensors" in out
    assert cli("replay", "golden.safetensors", "model.onnx")[0] == 0
    assert cli("record", "model.onnx", "--module", "parity_models:wrong", "-o", "no.safetensors")[0] == 3
    (tmp_path / "model.onnx.data").write_bytes(b"other")
    code, _, err = cli("replay", "golden.safetensors", "model.onnx")
    assert code == 3
    assert "is another than the answers were recorded with" in err


def test_a_module_that_ends_the_process_is_a_crash_and_no_pass(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("import sys\n\nsys.exit(0)\n")
    code, _, err = cli("check", "model.onnx", "--module", "ends:model")
    assert code == 70
    assert "SystemExit: 0" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model = [1]", "model 1 is a int; expected a table"),
        ("[[model]]\nfile = 1\nmodule = 'a:b'", "file is a int"),
        ("[[model]]\nfile = 'a'\nmodule = 'a:b'\nseeds = '3'", "seeds is a str"),
        ("[[model]]\nfile = 'a'\nmodule = 'a:b'\nseeds = 0", "seeds is 0; expected 1 or more"),
        ("[[model]]\nfile = 'a'\nmodule = 'a:b'\ndim = ['batch=4']", "dim is a list"),
        ("[[model]]\nfile = 'a'\nmodule = 'a:b'\nprefer = 'all'", "prefer is 'all'"),
    ],
)
def test_a_table_of_another_form_is_wrong_usage(cli: Cli, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "parity.toml").write_text(text)
    code, _, err = cli("check", "--config", "parity.toml")
    assert code == 4
    assert said in " ".join(err.split())


def test_an_error_where_none_is_tolerated_is_the_largest() -> None:
    pairs = ((0.0, 0.0), (1.0, 2.0), (0.5, 0.0), (1.0, 1.0))
    rows = [
        NodeRow("runtime", str(place), "", Verdict.EQUAL, error=error, tolerance=tolerance)
        for place, (error, tolerance) in enumerate(pairs)
    ]
    found = Located(None, None, tuple(rows), {}, (), ())
    assert [row.node for row in largest_errors(found)] == ["2", "3", "1", "0"]


KERNEL = """
import numpy as np
import ort_ops


@ort_ops.onnx_op("tests.cli::Relu")
def zeros(x: np.float32) -> np.float32:
    return 0 * x
"""


def test_who_is_preferred_is_what_is_run(cli: Cli, tmp_path: Path) -> None:
    onnx.save(
        onnx.parser.parse_model("""
            <ir_version: 8, opset_import: ["": 18, "tests.cli": 1]>
            g (float[4] x) => (float[4] y) { y = tests.cli.Relu(x) }
            <domain: "tests.cli", opset_import: ["": 18]> Relu (a) => (b) { b = Relu(a) }
        """),
        "relu.onnx",
    )
    (tmp_path / "parity_kernel.py").write_text(KERNEL)
    options = ("relu.onnx", "--module", "parity_models:relu", "--kernels", "parity_kernel")
    try:
        for command in ("check", "locate"):
            assert [cli(command, *options, "--prefer", each)[0] for each in ("kernel", "body")] == [1, 0]
        assert cli("record", *options, "--prefer", "body")[0] == 0
        replay = ("replay", "golden.safetensors", options[0], *options[-2:])
        assert [cli(*replay, "--prefer", each)[0] for each in ("kernel", "body")] == [1, 0]
        (tmp_path / "bundle").mkdir()
        code, _, err = cli("replay", "bundle", "--prefer", "body")
        assert (code, "a bundle is replayed as its sessions run it" in err) == (4, True)
    finally:
        ort_ops.registry._ops = [
            op for op in ort_ops.registry._ops if op.kernel.where != "parity_kernel.zeros"
        ]


def test_options_that_would_be_ignored_are_wrong_usage(cli: Cli) -> None:
    for arguments in (
        ("check", "model.onnx", "--config", "parity.toml"),
        ("check", "--module", "parity_models:build", "--config", "parity.toml"),
        ("bundle", "model.onnx", "-o", "out", "--max-batch", "4"),
        ("bundle", "model.onnx", "-o", "out", "--triton", "models", "--delay-us", "4"),
    ):
        assert cli(*arguments)[0] == 4


@pytest.mark.parametrize(
    "command",
    [
        ("check", "--html"),
        ("check", "--json"),
        ("check", "--junit"),
        ("locate", "--json"),
        ("record", "--out"),
    ],
)
def test_what_is_read_is_not_written_over(cli: Cli, command: tuple[str, str]) -> None:
    before = Path("model.onnx").read_bytes()
    name, option = command
    code, _, err = cli(name, "model.onnx", "--module", "parity_models:build", option, "./model.onnx")
    assert (code, "expected another file" in " ".join(err.split())) == (4, True)
    assert Path("model.onnx").read_bytes() == before


def test_nor_are_the_weights_beside_a_model(cli: Cli) -> None:
    onnx.save(
        onnx.load("model.onnx"), "beside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    check = ("beside.onnx", "--module", "parity_models:build")
    assert cli("check", *check)[0] == 0
    for command in (("check", *check, "--json"), ("record", *check, "-o"), ("locate", *check, "--json")):
        assert cli(*command, "w.bin")[0] == 4
    assert cli("check", *check)[0] == 0


def test_a_repository_inside_of_a_bundle_is_refused(cli: Cli) -> None:
    assert cli("bundle", "model.onnx", "-o", "out", "--triton", "out/models")[0] == 4
    assert not Path("out").exists()


def test_nor_is_what_a_table_or_golden_answers_are_of(cli: Cli) -> None:
    before = Path("model.onnx").read_bytes()
    Path("parity.toml").write_text("[[model]]\nfile = 'model.onnx'\nmodule = 'parity_models:build'")
    assert cli("check", "--config", "parity.toml", "--junit", "model.onnx")[0] == 4
    assert cli("record", "model.onnx", "--module", "parity_models:build")[0] == 0
    for written in ("model.onnx", "golden.safetensors"):
        assert cli("replay", "golden.safetensors", "model.onnx", "--json", written)[0] == 4
    assert cli("bundle", "model.onnx", "--parity", "golden.safetensors", "-o", "bundled")[0] == 0
    for written in Path("bundled").iterdir():
        assert cli("replay", "bundled", "--json", str(written))[0] == 4
    assert cli("replay", "bundled", "--json", "said.json")[0] == 0
    assert Path("model.onnx").read_bytes() == before


def test_a_function_that_gives_no_inputs_is_wrong_usage(cli: Cli) -> None:
    arguments = (
        "check",
        "model.onnx",
        "--module",
        "parity_models:build",
        "--inputs",
        "parity_models:forgetful",
    )
    code, _, err = cli(*arguments)
    assert (code, "gives None; expected the model's arguments" in " ".join(err.split())) == (4, True)


def test_names_that_the_file_does_not_have_and_what_is_no_model_are_refused(cli: Cli) -> None:
    check = ("check", "model.onnx", "--module")
    code, _, err = cli(*check, "parity_models:build", "--dim", "nonsense=7")
    assert (code, "there is no symbolic dimension nonsense; the file has batch" in err) == (3, True)
    code, _, err = cli(*check, "parity_models:build", "--range", "zzz=5:6")
    assert (code, "there is no input zzz; the file has" in err) == (3, True)
    code, _, err = cli(*check, "parity_models:GIVEN")
    assert (code, "gives a tuple; expected a torch.nn.Module" in " ".join(err.split())) == (4, True)
    for command in (("inspect", "model.onnx"), (*check, "parity_models:build")):
        code, _, err = cli(*command, "--function", "os:path")
        assert (code, "os:path is no torch.autograd.Function" in " ".join(err.split())) == (4, True)
    code, _, err = cli(*check, "parity_models:inputs")
    assert (code, "gives a list; expected a torch.nn.Module" in " ".join(err.split())) == (4, True)


SCRIPT = """
import torch
from ort_ops.export import export


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def symbolic(g, x):
        return g.op("tests.cli::Twice", x)


class Net(torch.nn.Module):
    def forward(self, x):
        return Twice.apply(x)


def build():
    return Net().eval()


if __name__ == "__main__":
    export(build(), (torch.ones(3),), "twice.onnx", verbose=False)
"""


def test_a_function_of_the_script_that_exported_the_file_is_known_by_the_model(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("parity_script.py").write_text(SCRIPT)
    monkeypatch.delitem(sys.modules, "parity_script", raising=False)
    exec(SCRIPT, {"__name__": "__main__"})
    command = ("twice.onnx", "--module", "parity_script:build")
    code, out, _ = cli("check", *command)
    assert code == 2  # there is no kernel
    assert "the file names __main__:Twice for it, which may run with functions=[...]" in out
    assert cli("locate", *command)[0] == 3
    assert cli("record", *command, "-o", "golden.safetensors")[0] == 0
    code, _, err = cli("replay", "golden.safetensors", "twice.onnx")
    assert (code, err.count("\n")) == (3, 1)
    for option in (("--function", "parity_script:Twice"), ("--trust", "parity_script")):
        assert cli("check", *command, *option)[0] == 0
        assert cli("locate", *command, *option)[0] == 0
