"""MYLINEAR in C++: against the exact product, beside the function body, and where it is given nonsense."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import mylinear
import ort_ops
from ort_ops.dtypes import from_numpy
from ort_ops.parity import arithmetic_of, dot_error
from tests.shapes import LINEAR_SHAPES

RELEASE = tuple(map(int, onnxruntime.__version__.split(".")[:2]))

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)


def options(threads: int = 2) -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.log_severity_level = 4
    made.register_custom_ops_library(mylinear.get_library_path())
    return made


def tensor(array: np.ndarray[Any, Any], name: str) -> onnx.TensorProto:
    """Return an array as onnx 1.17 can't: it knows no bfloat16 of NumPy's."""
    kind = from_numpy(array.dtype).onnx
    return onnx.TensorProto(name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes())


def one_node(
    operands: dict[str, np.ndarray[Any, Any]], constant: bool, x_rank: int | None = None
) -> onnx.ModelProto:
    """Return MYLINEAR of these operands; the weight and the bias are the model's where they are constant."""
    dtype = from_numpy(operands["x"].dtype).onnx
    node = helper.make_node("MYLINEAR", list(operands), ["y"], domain="mylinear")
    held = [name for name in operands if name != "x"] if constant else []
    rank = operands["x"].ndim if x_rank is None else x_rank
    shapes = {name: [None] * (rank if name == "x" else array.ndim) for name, array in operands.items()}
    inputs = [helper.make_tensor_value_info(n, dtype, shapes[n]) for n in operands if n not in held]
    output = helper.make_tensor_value_info("y", dtype, None)
    weights = [tensor(operands[name], name) for name in held]
    graph = helper.make_graph([node], "g", inputs, [output], weights)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mylinear", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


CPU = "CPUExecutionProvider"
CUDA = ("CUDAExecutionProvider", {"use_tf32": "0"})
PROVIDERS = [pytest.param(CPU, id="cpu"), pytest.param(CUDA, id="cuda", marks=pytest.mark.cuda)]


def run(
    operands: dict[str, np.ndarray[Any, Any]], constant: bool, threads: int = 2, provider: Any = CPU
) -> Any:
    model = one_node(operands, constant).SerializeToString()
    session = ort_ops.InferenceSession(model, options(threads), [provider])
    assert [run.runner for run in session.explain()] == ["library"]
    assert session.get_providers()[0] == (provider if isinstance(provider, str) else provider[0])
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


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "given"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LINEAR_SHAPES, ids=lambda shape: shape[0])
def test_every_shape_of_every_type(shape: Any, dtype: Any, constant: bool, provider: Any) -> None:
    _, leading, width, out = shape
    rng = np.random.default_rng(0)
    operands = {"x": drawn(rng, (*leading, width), dtype), "weight": drawn(rng, (out, width), dtype)}
    operands["bias"] = drawn(rng, (out,), dtype)
    is_right(run(operands, constant, provider=provider), operands)
    del operands["bias"]
    is_right(run(operands, constant, provider=provider), operands)


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


@pytest.mark.cuda
@pytest.mark.parametrize("rows", [1, 2, 31, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_cuda_large_weights_are_multiplied_as_by_the_built_in_gemm(rows: int, dtype: Any) -> None:
    rng = np.random.default_rng(rows)
    operands = {"x": drawn(rng, (rows, 1000), dtype), "weight": drawn(rng, (1030, 1000), dtype)}
    operands["bias"] = drawn(rng, (1030,), dtype)
    y = run(operands, True, provider=CUDA)
    gemm = one_node(operands, True)
    gemm.graph.node[0].CopyFrom(helper.make_node("Gemm", list(operands), ["y"], transB=1))
    session = ort_ops.InferenceSession(gemm.SerializeToString(), providers=[CUDA])
    np.testing.assert_array_equal(y, session.run(None, {"x": operands["x"]})[0])
    if np.dtype(dtype).itemsize > 2:  # cuBLAS may add parts of a sum up in 16 bits
        is_right(y, operands)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 31, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_weights_of_several_blocks(rows: int, dtype: Any, threads: int) -> None:
    rng = np.random.default_rng(rows)
    operands = {"x": drawn(rng, (rows, 1000), dtype), "weight": drawn(rng, (1030, 1000), dtype)}
    operands["bias"] = drawn(rng, (1030,), dtype)
    is_right(run(operands, True, threads), operands)


# (in, out): around the four rows and eight columns that are summed together, and weights of 2 MiB and more,
# which threads share; of one with fewer rows than there are shares.
ONE_ROW = ((1, 1), (7, 3), (8, 4), (9, 5), (31, 2), (40, 9), (1030, 1027), (800_001, 3))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
@pytest.mark.parametrize(("width", "out"), ONE_ROW)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_row(dtype: Any, width: int, out: int, bias: bool, threads: int) -> None:
    rng = np.random.default_rng(width)
    operands = {"x": drawn(rng, (1, width), dtype), "weight": drawn(rng, (out, width), dtype)}
    if bias:
        operands["bias"] = drawn(rng, (out,), dtype)
    is_right(run(operands, False, threads), operands)


# Rows that are summed together, and those that are left over; a product that is small, and ones that are not.
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [2, 3, 4, 5, 7, 8, 9])
@pytest.mark.parametrize(("width", "out"), [(37, 6), (129, 131), (1030, 1027)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows(dtype: Any, width: int, out: int, rows: int, threads: int) -> None:
    rng = np.random.default_rng(rows)
    operands = {"x": drawn(rng, (rows, width), dtype), "weight": drawn(rng, (out, width), dtype)}
    is_right(run(operands, True, threads), operands)
    operands["bias"] = drawn(rng, (out,), dtype)
    is_right(run(operands, False, threads), operands)


@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_columns(dtype: Any, rows: int) -> None:
    x, weight = np.zeros((rows, 37), dtype), np.ones((6, 37), dtype)
    weight[0, 36], weight[1, 0], weight[4, 20] = np.nan, np.inf, -np.inf  # times zero is NaN
    y = run({"x": x, "weight": weight}, True).astype(np.float32)
    assert (np.isnan(y) == [True, True, False, False, True, False]).all()
    x[:, 0], x[:, 20] = 1, 1
    y = run({"x": x, "weight": weight}, True).astype(np.float32)
    assert np.array_equal(y, np.tile([np.nan, np.inf, 2, 2, -np.inf, 2], (rows, 1)), equal_nan=True)


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


@pytest.mark.skipif(RELEASE < (1, 24), reason="1.24 can be told of shapes where an input is optional")
def test_output_shapes_are_known() -> None:
    model = one_node({"x": np.zeros((2, 5, 4), np.float32), "weight": np.zeros((3, 4), np.float32)}, True)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    session = onnxruntime.InferenceSession(model.SerializeToString(), options())
    assert session.get_outputs()[0].shape[0] == "batch"
    assert session.get_outputs()[0].shape[2] == 3
