"""MYLINEAR in C++ in models of PyTorch's, and from C."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import mylinear
import ort_ops
from mylinear import MyLinear
from mylinear.export import export
from ort_ops.parity import Verdict, check, locate

from .test_library import options


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_library_and_the_function_body_agree(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(MyLinear(130, 129), torch.nn.ReLU(), MyLinear(129, 3)).to(dtype).eval()
    x = torch.randn(9, 130, dtype=dtype)
    file = export(model, example=x).SerializeToString()
    body = ort_ops.InferenceSession(file, prefer="body").run(None, {first_input(file): x.numpy()})[0]
    native = ort_ops.InferenceSession(file, options()).run(None, {first_input(file): x.numpy()})[0]
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(native.astype("d"), body.astype("d"), rtol=8 * eps, atol=130 * eps)


def test_a_tuned_session_has_the_library() -> None:
    torch.manual_seed(0)
    model = MyLinear(200, 150).eval()
    x = torch.randn(2, 200)
    file = export(model, example=x).SerializeToString()
    session = ort_ops.InferenceSession.tuned(
        file, ["CPUExecutionProvider"], threads=1, libraries=[mylinear.get_library_path()]
    )
    assert [(run.runner, run.kernel) for run in session.explain()] == [
        ("library", mylinear.get_library_path())
    ]
    binding = session.bind({"x": x})
    np.testing.assert_allclose(binding.run()["y"], model(x).detach(), rtol=1e-5, atol=1e-5)


def first_input(file: bytes) -> str:
    return onnx.load_from_string(file).graph.input[0].name


def test_parity_runs_the_library_and_says_so() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(MyLinear(200, 150), torch.nn.Tanh(), MyLinear(150, 5)).eval()
    x = torch.randn(9, 200)
    file = export(model, example=x)
    library = [mylinear.get_library_path()]
    report = check(model, file, x, libraries=library)
    assert report.verdict is Verdict.EQUAL, str(report)
    runtime = [row for row in report.rows if row.question == "runtime"]
    assert all("library" in row.ran for row in runtime)
    assert locate(model, file, x, libraries=library).node is None


def test_a_c_program_runs_a_trained_line(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("a C compiler is missing")
    torch.manual_seed(0)
    model = MyLinear(2, 1, dtype=torch.float64).eval()
    x = torch.tensor([[1.5, -2.0], [0.25, 4.0], [1e300, 1.0]], dtype=torch.float64)
    export(model, tmp_path / "linear.onnx", example=x)
    program = tmp_path / "run_linear"
    source = Path(__file__).parents[2] / "examples" / "c" / "run_linear.c"
    run_it(compiler, "-Wall", "-Wextra", source, "-o", program, "-ldl")
    (runtime,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*")
    numbers = [repr(each) for each in x.flatten().tolist()]
    said = run_it(program, runtime, mylinear.get_library_path(), tmp_path / "linear.onnx", *numbers)
    with torch.no_grad():
        exact = model(x)
        sizes = x.abs() @ model.weight.abs().T + model.bias.abs()
    answers = torch.tensor([[float(line)] for line in said.splitlines()], dtype=torch.float64)
    assert bool(
        ((answers - exact).abs() <= 4 * 2**-53 * sizes).all()
    )  # each of them rounds two products, two sums
    refused = subprocess.run(
        [program, runtime, tmp_path / "missing.so", "linear.onnx", "1", "2"], capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "missing.so" in refused.stderr


def run_it(*command: object) -> str:
    return subprocess.run([str(each) for each in command], capture_output=True, text=True, check=True).stdout
