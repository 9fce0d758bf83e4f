"""MYLINEAR in C++: against the exact product, beside the function body, and where it is given nonsense."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import mylinear
import ort_ops
from mylinear import MyLinear
from mylinear.export import export
from ort_ops.parity import Verdict, arithmetic_of, check, dot_error, locate
from tests.cases import LINEAR_CASES

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)


def options(threads: int = 2) -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.log_severity_level = 4
    made.register_custom_ops_library(mylinear.get_library_path())
    return made


def one_node(
    operands: dict[str, np.ndarray[Any, Any]], constant: bool, x_rank: int | None = None
) -> onnx.ModelProto:
    """Return MYLINEAR of these operands; the weight and the bias are the model's where they are constant."""
    dtype = helper.np_dtype_to_tensor_dtype(operands["x"].dtype)
    node = helper.make_node("MYLINEAR", list(operands), ["y"], domain="mylinear")
    held = [name for name in operands if name != "x"] if constant else []
    rank = operands["x"].ndim if x_rank is None else x_rank
    shapes = {name: [None] * (rank if name == "x" else array.ndim) for name, array in operands.items()}
    inputs = [helper.make_tensor_value_info(n, dtype, shapes[n]) for n in operands if n not in held]
    output = helper.make_tensor_value_info("y", dtype, None)
    weights = [numpy_helper.from_array(operands[name], name) for name in held]
    graph = helper.make_graph([node], "g", inputs, [output], weights)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mylinear", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def run(operands: dict[str, np.ndarray[Any, Any]], constant: bool, threads: int = 2) -> Any:
    model = one_node(operands, constant).SerializeToString()
    session = ort_ops.InferenceSession(model, options(threads))
    assert [run.runner for run in session.explain()] == ["library"]
    feed = {name: array for name, array in operands.items() if name == "x" or not constant}
    return session.run(None, feed)[0]


def is_right(y: Any, operands: dict[str, np.ndarray[Any, Any]]) -> None:
    wide = {name: array.astype(np.float64) for name, array in operands.items()}
    dtype = operands["x"].dtype
    bias = wide.get("bias", np.zeros(len(wide["weight"])))
    exact = wide["x"] @ wide["weight"].T + bias
    size = np.abs(wide["x"]) @ np.abs(wide["weight"]).T + np.abs(bias)
    inner = arithmetic_of(np.float64 if dtype == np.float64 else np.float32)
    terms = wide["weight"].shape[1] + 1
    unit = arithmetic_of(dtype).storage
    allowed = dot_error(terms, size, inner) + unit * np.abs(exact) + arithmetic_of(dtype).tiny
    assert (y.dtype, y.shape) == (dtype, exact.shape)
    assert (np.abs(y.astype(np.float64) - exact) <= 1.01 * allowed).all()


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "given"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", LINEAR_CASES, ids=str)
def test_every_shape_of_every_type(case: Any, dtype: Any, constant: bool) -> None:
    arrays = [each.detach().numpy().astype(dtype) for each in case.operands(torch.float64)]
    operands = dict(zip(("x", "weight", "bias"), arrays, strict=True))
    is_right(run(operands, constant), operands)
    del operands["bias"]
    is_right(run(operands, constant), operands)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    *(st.integers(0, 40), st.integers(0, 300), st.integers(0, 300)),
    st.sampled_from(DTYPES),
    *(st.booleans(), st.booleans(), st.integers(1, 4), st.integers(0, 1 << 30)),
)
def test_random_sizes(
    rows: int, width: int, out: int, dtype: Any, bias: bool, constant: bool, threads: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    operands = {"x": drawn(rng, (rows, width), dtype), "weight": drawn(rng, (out, width), dtype)}
    if bias:
        operands["bias"] = drawn(rng, (out,), dtype)
    is_right(run(operands, constant, threads), operands)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 31, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_weights_of_several_blocks(rows: int, dtype: Any, threads: int) -> None:
    rng = np.random.default_rng(rows)
    operands = {"x": drawn(rng, (rows, 1000), dtype), "weight": drawn(rng, (1030, 1000), dtype)}
    operands["bias"] = drawn(rng, (1030,), dtype)
    is_right(run(operands, True, threads), operands)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "given"])
@pytest.mark.parametrize(
    ("x", "weight", "bias", "said"),
    [
        ((), (3, 4), (3,), r"weight is \(3, 4\) but x is \(\); expected x \(..., 4\)"),
        ((2, 5), (3, 4), (3,), r"weight is \(3, 4\) but x is \(2, 5\); expected x \(..., 4\)"),
        ((2, 4), (4,), (3,), r"weight is \(4,\); expected \(out, in\)"),
        ((2, 4), (3, 4), (1,), r"weight is \(3, 4\) but bias is \(1,\); expected bias \(3,\)"),
        ((0, 4), (3, 4), (3, 1), r"bias is \(3, 1\); expected bias \(3,\)"),
        ((2, 4, 1), (3, 4), None, r"x is \(2, 4, 1\)"),
    ],
)
def test_what_does_not_fit_is_an_error(x: Any, weight: Any, bias: Any, said: str, constant: bool) -> None:
    operands = {"x": np.zeros(x, np.float32), "weight": np.zeros(weight, np.float32)}
    if bias is not None:
        operands["bias"] = np.zeros(bias, np.float32)
    with pytest.raises(Exception, match=said):
        run(operands, constant)


def test_types_that_differ_are_an_error() -> None:
    operands = {"x": np.zeros((2, 4), np.float32), "weight": np.zeros((3, 4), np.float64)}
    model = one_node(operands, True)
    model.graph.input[0].type.tensor_type.elem_type = 1
    with pytest.raises(Exception, match=r"(?i)type"):
        ort_ops.InferenceSession(model.SerializeToString(), options())
    with pytest.raises(Exception, match=r"(?i)type"):
        ort_ops.InferenceSession(
            one_node(
                {"x": np.zeros((2, 4), np.int32), "weight": np.zeros((3, 4), np.int32)}, True
            ).SerializeToString(),
            options(),
        )


def test_output_shapes_are_known() -> None:
    model = one_node({"x": np.zeros((2, 5, 4), np.float32), "weight": np.zeros((3, 4), np.float32)}, True)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    session = onnxruntime.InferenceSession(model.SerializeToString(), options())
    assert session.get_outputs()[0].shape[0] == "batch"
    assert session.get_outputs()[0].shape[2] == 3


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
    model = MyLinear(1, 1, dtype=torch.float64).eval()
    x = torch.tensor([[1.5], [-2.0], [1e300]], dtype=torch.float64)
    export(model, tmp_path / "linear.onnx", example=x)
    program = tmp_path / "run_linear"
    source = Path(__file__).parents[2] / "examples" / "c" / "run_linear.c"
    run_it(compiler, "-Wall", "-Wextra", source, "-o", program, "-ldl")
    (runtime,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*")
    numbers = [repr(each) for each in x.flatten().tolist()]
    said = run_it(program, runtime, mylinear.get_library_path(), tmp_path / "linear.onnx", *numbers)
    with torch.no_grad():
        exact = model(x).flatten().tolist()
    assert [float(line) for line in said.splitlines()] == pytest.approx(exact, rel=1e-15)
    refused = subprocess.run(
        [program, runtime, tmp_path / "missing.so", "linear.onnx", "1"], capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "missing.so" in refused.stderr


def run_it(*command: object) -> str:
    return subprocess.run([str(each) for each in command], capture_output=True, text=True, check=True).stdout
