"""Bundles of models that Python kernels run: what is in the folder doesn't suffice, and that is said."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

from ort_ops import deploy, registry
from ort_ops.deploy.needs import PYTHON, find_needs
from ort_ops.deploy.readme import readme
from ort_ops.errors import BundleError
from ort_ops.inspection import inspect_model
from ort_ops.model import read_model

from .test_bundle import LIBRARY, write_model

KERNELS = """
import numpy as np
from numpy.typing import NDArray

import ort_ops

Floats = NDArray[np.float32]


@ort_ops.onnx_op("mylinear::MYLINEAR")
def doubled(x: Floats, weight: Floats, bias: Floats | None = None) -> Floats:
    return np.asarray(2 * x @ weight.T, np.float32)
"""


@pytest.fixture(autouse=True)
def _no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no kernel registered, and modules in the folder."""
    registry._ops = []
    monkeypatch.syspath_prepend(tmp_path)


def with_kernels(folder: Path, module: str) -> deploy.Manifest:
    """Bundle a model that the kernel of a module runs, which is imported anew."""
    (folder / f"{module}.py").write_text(KERNELS)
    sys.modules.pop(module, None)
    return deploy.bundle(write_model(folder / "model.onnx"), folder / "bundle", modules=[module])


def test_an_operator_that_nobody_runs_is_an_error(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match=r"nobody runs mylinear::MYLINEAR \(node ''\): .* give its library"):
        deploy.bundle(model, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY])


def test_a_function_that_the_file_names_is_said_not_to_run(tmp_path: Path) -> None:
    proto = onnx.load(write_model(tmp_path / "model.onnx"))
    if not hasattr(proto.graph.node[1], "metadata_props"):
        pytest.skip("this release of onnx has no metadata of nodes")
    proto.graph.node[1].metadata_props.add(key="ort_ops.function", value="net:Linear")
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="and net:Linear, which the file names, is not run from a bundle"):
        deploy.bundle(tmp_path / "model.onnx", tmp_path / "bundle")


def test_a_kernel_of_a_newer_version_than_the_model_asks_for_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "newer.py").write_text(KERNELS.replace('MYLINEAR"', 'MYLINEAR", version=2'))
    with pytest.raises(BundleError, match="nobody runs mylinear::MYLINEAR"):
        deploy.bundle(write_model(tmp_path / "model.onnx"), tmp_path / "bundle", modules=["newer"])


@pytest.mark.parametrize(("domain", "overload"), [("q", ""), ("q", "other"), ("", "")])
def test_a_body_is_what_a_model_needs_where_onnx_runtime_takes_it(domain: str, overload: str) -> None:
    imports = [helper.make_opsetid(each, 17) for each in dict.fromkeys(("", domain))]
    body = helper.make_function(domain, "Op", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], imports)
    node = helper.make_node("Op", ["x"], ["y"], "n", domain=domain, overload=overload)
    ends = [helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(
        graph, opset_imports=imports, functions=[body], ir_version=10
    ).SerializeToString()
    (needed,) = find_needs(read_model(model), {})
    (nodes,) = inspect_model(model).custom
    assert needed.by == {"nobody": PYTHON}.get(nodes.runner, nodes.runner)
    if not domain:
        assert nodes.runner == "nobody"


def test_the_readme_says_what_is_missing_and_its_lines_work(tmp_path: Path) -> None:
    assert with_kernels(tmp_path, "doubling_a").needs == [
        deploy.Needs("mylinear::MYLINEAR", 1, "Python kernel")
    ]
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "This folder is not all that the model needs" in text
    assert "- mylinear::MYLINEAR: `doubling_a.doubled`" in text
    assert "On the target, import `doubling_a` before a session is made" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Python"]
    code = text.partition("```python\n")[2].partition("```")[0]
    code += "\nprint(session.run(None, {'x': [[1, -1, 2]]})[0].tolist())"
    command = [sys.executable, "-c", f"import sys\nsys.path.append({str(tmp_path)!r})\n{code}"]
    done = subprocess.run(command, cwd=tmp_path / "bundle", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[[8.0, 26.0]]\n", "")


def test_the_readme_names_the_module_where_the_bundle_is_checked(tmp_path: Path) -> None:
    manifest = replace(with_kernels(tmp_path, "doubling_d"), golden="golden.safetensors")
    kernels = {"mylinear::MYLINEAR": ["doubling_d.doubled"]}
    text = readme(manifest, (), kernels, ["doubling_d"], signed=True)
    assert "\nort-ops replay . --kernels doubling_d\n" in text
    assert "\nort-ops replay . --verify-key public.pem --kernels doubling_d\n" in text


def test_a_module_that_is_not_named_stays_open(tmp_path: Path) -> None:
    (tmp_path / "doubling_b.py").write_text(KERNELS)
    __import__("doubling_b")
    deploy.bundle(write_model(tmp_path / "model.onnx"), tmp_path / "bundle")
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "import the module that registers it (`MODULE` below) before" in text
    assert "import MODULE  # registers kernels" in text


def test_a_module_for_nothing_is_not_in_the_readme(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    deploy.bundle(model, tmp_path / "bundle", libraries=[LIBRARY], modules=["json"])
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "import" not in text.partition("```python")[0]
    assert "## Java" in text


def test_triton_can_not_have_it(tmp_path: Path) -> None:
    with_kernels(tmp_path, "doubling_c")
    with pytest.raises(BundleError, match="mylinear::MYLINEAR is run by a Python kernel, which Triton can't"):
        deploy.write_triton(deploy.open_bundle(tmp_path / "bundle"), tmp_path / "models")
