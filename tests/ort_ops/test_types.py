"""Strings, 8-bit and 4-bit floats and integers, attributes of every kind, and ``out=``."""

import os
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph

import ort_ops
from ort_ops.dtypes import DTYPES, DType
from ort_ops.errors import KernelError, ResultError, SchemaError
from ort_ops.packing import pack, unpack
from ort_ops.providers import CPU, CUDA

from .models import DOMAIN, builtin, model, node, one_node, tensor
from .releases import from_ort, needs_onnx

op = ort_ops.onnx_op

TEXTS = ["", "a", "naïve 日本 🙂", "x" * 10_000, "nul\0inside\0", "\0"]
FLOAT8 = [dtype for dtype in DTYPES if 17 <= dtype.onnx <= 20]
FOUR_BIT = [dtype for dtype in DTYPES if dtype.onnx >= 21]


def by_name(dtype: DType) -> str:
    return dtype.name


def run(data: bytes, **feed: Any) -> Any:
    return ort_ops.InferenceSession(data).run(None, feed)[0]


@pytest.mark.parametrize("shape", [(6,), (2, 3), (0, 3), ()], ids=str)
def test_strings_of_any_content_come_in_and_go_out(shape: tuple[int, ...]) -> None:
    seen = []

    @op(f"{DOMAIN}::Op", inputs=["string"], outputs=["string"])
    def kernel(x: Any) -> Any:
        seen.append(x.copy())
        return x

    x = np.array(TEXTS[: int(np.prod(shape))], object).reshape(shape)
    y = run(one_node("Op", "string"), x=x)
    np.testing.assert_array_equal(seen[0], x)
    np.testing.assert_array_equal(y, x)


def test_strings_with_nul_survive_from_kernel_to_kernel() -> None:
    @op(f"{DOMAIN}::Make", inputs=["float32"], outputs=["string"])
    def make(x: Any) -> Any:
        return np.array(TEXTS, object)

    @op(f"{DOMAIN}::Same", inputs=["string"], outputs=["bool"])
    def same(x: Any) -> Any:
        return x == np.array(TEXTS, object)

    nodes = [node("Make", ["x"], ["a"]), node("Same", ["a"], ["y"])]
    assert run(model(nodes, outputs=[tensor("y", "bool")]), x=np.zeros(1, "f")).all()


@pytest.mark.parametrize("dtype", ["S4", "U4", ">U4", object])
def test_strings_of_numpys_types_are_read_whole_and_not_beyond(dtype: Any) -> None:
    @op(f"{DOMAIN}::Op", inputs=["string"], outputs=["string"])
    def kernel(x):
        return x

    texts = np.array([["abcd", "a"], ["", "a\0b"]], object)
    for each in (texts, texts[:0], texts[:1, :1]):
        given = each.astype("U4").astype(dtype)
        np.testing.assert_array_equal(run(one_node("Op", "string"), x=given), each, strict=True)


def test_numpys_own_strings_are_taken_as_results() -> None:
    op(f"{DOMAIN}::Op", inputs=["string"], outputs=["string"])(lambda x: np.array([["a", "bcd"]]))
    assert run(one_node("Op", "string"), x=np.array(["x"], object)).tolist() == [["a", "bcd"]]


@pytest.mark.parametrize("bad", [b"bytes", 1, None])
def test_an_object_that_is_no_string_is_refused(bad: Any) -> None:
    op(f"{DOMAIN}::Op", inputs=["string"], outputs=["string"])(lambda x: np.array(["a", bad], object))
    with pytest.raises(ResultError, match="expected strings alone"):
        run(one_node("Op", "string"), x=np.array(["x"], object))


def test_bytes_that_are_no_utf8_go_through() -> None:
    @op(f"{DOMAIN}::Op", inputs=["string"], outputs=["string", "bool"])
    def kernel(x: Any) -> Any:
        return x, np.array([x[0] == "\udcff\udcfe"])

    value = numpy_helper.from_array(np.array([b"\xff\xfe"], object), "v")
    nodes = [
        builtin("Constant", [], ["c"], value=value),
        node("Op", ["c"], ["again", "right"]),
        builtin("Equal", ["again", "c"], ["same"]),
    ]
    outputs = [tensor("same", "bool"), tensor("right", "bool")]
    session = ort_ops.InferenceSession(model(nodes, [], outputs, opset=19))
    assert [y.tolist() for y in session.run(None, {})] == [[True], [True]]


@pytest.mark.parametrize("dtype", FLOAT8, ids=by_name)
@pytest.mark.parametrize("shape", [(256,), (16, 16), (0, 4)], ids=str)
def test_every_float8_comes_through_bit_for_bit(dtype: DType, shape: tuple[int, ...]) -> None:
    seen = []

    @op(f"{DOMAIN}::Op")
    def kernel(x):
        seen.append(x.dtype)
        return x

    x = np.arange(np.prod(shape), dtype=np.uint8).view(dtype.numpy).reshape(shape)
    y = run(one_node("Op", dtype.name), x=x)
    assert (seen, y.dtype) == ([dtype.numpy], dtype.numpy)
    assert y.tobytes() == x.tobytes()


def test_float8_of_another_kind_is_refused_as_input() -> None:
    op(f"{DOMAIN}::Op")(lambda x: x)
    with pytest.raises(ValueError, match="the model expects float8_e5m2"):
        run(one_node("Op", "float8_e5m2"), x=np.zeros(2, ml_dtypes.float8_e4m3fn))


@pytest.mark.parametrize("dtype", FOUR_BIT, ids=by_name)
@pytest.mark.parametrize("count", [0, 1, 15, 16])
def test_four_bits_are_packed_as_onnx_packs_them(dtype: DType, count: int) -> None:
    if dtype.name == "float4_e2m1fn":
        needs_onnx((1, 19), "arrays of float4e2m1")
    packed = (np.arange(0, 16, 2) | np.arange(1, 17, 2) << 4).astype(np.uint8)[: (count + 1) // 2]
    if count % 2:
        packed[-1] &= 15
    proto = helper.make_tensor("t", dtype.onnx, [count], packed.tobytes(), raw=True)
    array = unpack(packed, (count,), dtype.onnx)
    assert array.dtype == dtype.numpy
    np.testing.assert_array_equal(array.astype("f"), numpy_helper.to_array(proto).astype("f"))
    np.testing.assert_array_equal(pack(array, dtype.onnx), packed)


@pytest.mark.parametrize("dtype", FOUR_BIT[:2], ids=by_name)
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1,)], ids=str)
@pytest.mark.parametrize("typed", [False, True], ids=["any", "typed"])
def test_four_bits_go_through_a_kernel_inside_the_graph(
    dtype: DType, shape: tuple[int, ...], typed: bool
) -> None:
    seen = []

    @op(f"{DOMAIN}::Op", inputs=[dtype.name] if typed else None)
    def kernel(x):
        seen.append(x)
        return x[::-1]

    low, high = (0, 15) if dtype.name == "uint4" else (-8, 7)
    x = np.linspace(low, high, int(np.prod(shape)), dtype=np.float32).round().reshape(shape)
    zero = helper.make_tensor("zero", dtype.onnx, [], [0])
    scale = numpy_helper.from_array(np.float32(1), "scale")
    nodes = [
        builtin("QuantizeLinear", ["x", "scale", "zero"], ["a"]),
        node("Op", ["a"], ["b"]),
        builtin("DequantizeLinear", ["b", "scale", "zero"], ["y"]),
    ]
    data = onnx.load_from_string(model(nodes, initializers=[zero, scale], opset=21))
    data.ir_version = 10
    with from_ort((1, 20 if typed else 21), InvalidGraph, rf"'tensor\({dtype.ort}\)' of input parameter"):
        y = run(data.SerializeToString(), x=x)
        assert seen[0].dtype == dtype.numpy
        np.testing.assert_array_equal(seen[0].astype("f"), x)
        np.testing.assert_array_equal(y, x[::-1])


def test_attributes_of_every_kind_arrive_as_they_are() -> None:
    seen: dict[str, Any] = {}

    @op(f"{DOMAIN}::Op")
    def kernel(
        x,
        *,
        i: int,
        f: float,
        b: bool,
        s: str,
        raw: bytes,
        many_i: list[int],
        many_f: list[float],
        many_b: list[bool],
        t: NDArray[Any],
        absent=(1, 2),
    ):
        seen.update({name: value for name, value in locals().items() if name not in ("x", "seen")})
        return x

    values = {
        "i": -(2**63),
        "f": np.float32(0.1).item(),
        "b": True,
        "s": "größe",
        "raw": b"\x00\xff\x00",
        "many_i": [2**62, -1],
        "many_f": [0.5, -1.25],
        "many_b": [True, False],
    }
    given = {**values, "b": 1, "many_b": [1, 0]}
    t = np.arange(6, dtype=np.float64).reshape(2, 3)
    run(one_node("Op", **given, t=numpy_helper.from_array(t)), x=np.zeros(1, "f"))
    assert {name: seen[name] for name in values} == values
    assert {name: type(seen[name]) for name in values} == {n: type(v) for n, v in values.items()}
    np.testing.assert_array_equal(seen["t"], t)
    assert not seen["t"].flags.writeable
    assert seen["absent"] == (1, 2)


def test_the_kind_of_an_attribute_is_read_off_its_default() -> None:
    seen: dict[str, Any] = {}

    @op(f"{DOMAIN}::Op")
    def kernel(x, *, sizes=(1, 2), scales=[1.0], flags=(True,)):  # noqa: B006 # only read
        seen.update(sizes=sizes, scales=scales, flags=flags)
        return x

    run(one_node("Op", sizes=[3], scales=[0.5], flags=[0]), x=np.zeros(1, "f"))
    assert seen == {"sizes": [3], "scales": [0.5], "flags": [False]}


@pytest.mark.parametrize("array", ["numpy", "torch"])
def test_a_kernel_that_changes_a_list_changes_nothing_for_the_next_run(array: Any) -> None:
    @op(f"{DOMAIN}::Op", array=array, inputs=["float32"], outputs=["float32"])
    def kernel(x, *, order: list[int], absent: list[int] | None = None):
        assert absent is None
        order.reverse()
        return x[order]

    session = ort_ops.InferenceSession(one_node("Op", order=[0, 1, 2]))
    x = np.array([1, 2, 3], "f")
    for _ in range(3):
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], x[::-1])


def test_lists_of_strings_arrive_as_they_are() -> None:
    seen: dict[str, Any] = {}

    @op(f"{DOMAIN}::Op")
    def kernel(x, *, many: list[str], names=["a"], absent=("b", "c")):  # noqa: B006 # only read
        seen.update(many=many, names=names, absent=absent)
        return x

    with from_ort((1, 25), Exception, 'attribute "many" is a list of strings, .* ONNX Runtime 1.25 on'):
        run(one_node("Op", many=["a", "", "ü"], names=["b"]), x=np.zeros(1, "f"))
        assert seen == {"many": ["a", "", "ü"], "names": ["b"], "absent": ("b", "c")}
        assert type(seen["many"]) is list


@pytest.mark.parametrize("default", [(1, "a"), (), {}, None])
def test_a_default_that_names_no_kind_is_refused(default: Any) -> None:
    with pytest.raises(SchemaError, match=r"attribute 'a' (is annotated|has the default)"):

        @op(f"{DOMAIN}::Op")
        def kernel(x, *, a=default):
            return x


@pytest.mark.parametrize("array", ["numpy", "torch"])
def test_a_kernel_fills_the_buffers_it_is_handed(array: Any) -> None:
    shapes: list[Any] = []

    @op(f"{DOMAIN}::Op", array=array, inputs=["float32"], outputs=["float32", "int64"])
    def kernel(x, *, out):
        out[0][...] = x + x
        out[1][...] = 7

    @kernel.infer
    def infer(x):
        shapes.append(x.shape)
        return x, ort_ops.TensorType(np.int64, (x.shape[0],))

    outputs = [tensor("y"), tensor("z", "int64")]
    data = model([node("Op", ["x"], ["y", "z"])], [tensor("x", shape=["n", 2])], outputs)
    session = ort_ops.InferenceSession(data)
    for rows in (3, 3, 0, 5):
        x = np.arange(2 * rows, dtype="f").reshape(rows, 2)
        y, z = session.run(None, {"x": x})
        np.testing.assert_array_equal(y, 2 * x)
        np.testing.assert_array_equal(z, np.full(rows, 7))
    assert [shape for shape in shapes if "n" not in shape] == [(3, 2), (0, 2), (5, 2)]  # asked once a shape


def test_without_infer_the_models_shape_serves_out() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32], *, out):
        np.negative(x, out=out)
        return out

    ends = [tensor("x", shape=["n", 2])], [tensor("y", shape=["n", 2])]
    np.testing.assert_array_equal(run(model([node("Op")], *ends), x=np.ones((3, 2), "f")), -np.ones((3, 2)))
    for shape in (["m", 2], None):
        with pytest.raises(ResultError, match="give the kernel an infer function"):
            run(model([node("Op")], ends[0], [tensor("y", shape=shape)]), x=np.ones((3, 2), "f"))


@pytest.mark.parametrize("array", ["numpy", "torch"])
def test_a_result_beside_out_is_refused(array: Any) -> None:
    @op(f"{DOMAIN}::Op", array=array, inputs=["float32"], outputs=["float32"])
    def kernel(x, *, out):
        return x + 1

    kernel.infer(lambda x: x)
    with pytest.raises(ResultError, match="it is given out="):
        run(one_node("Op"), x=np.ones(3, "f"))


def test_out_that_is_kept_is_found() -> None:
    kept = []

    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32], *, out):
        kept.append(out)
        out[...] = x

    kernel.infer(lambda x: x)
    with pytest.raises(ResultError, match="kept a view"):
        run(one_node("Op"), x=np.ones(3, "f"))


@pytest.mark.parametrize("array", ["numpy", "torch", "dlpack"])
def test_every_output_has_a_buffer_to_be_filled(array: Any) -> None:
    @op(f"{DOMAIN}::Op", array=array, inputs=["float32"], outputs=["float32", "float32"])
    def kernel(x, *, out):
        pass

    @kernel.infer
    def infer(x):
        return (x, x) if "n" in x.shape else x

    data = model([node("Op", ["x"], ["y", "z"])], [tensor("x", shape=["n"])], [tensor("y"), tensor("z")])
    with pytest.raises(KernelError, match=r"gives 1 outputs; expected one .* each of the kernel's 2"):
        run(data, x=np.ones(3, "f"))


def test_an_infer_function_that_gives_no_size_can_not_serve_out() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32], *, out):
        out[...] = 0

    kernel.infer(lambda x: ort_ops.TensorType(x.dtype, (None,)))
    with pytest.raises(ResultError, match="gives no number"):
        run(one_node("Op"), x=np.ones(3, "f"))


def test_plain_onnxruntime_is_told_of_an_infer_function_that_fails() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x

    @kernel.infer
    def infer(x):
        raise ZeroDivisionError("in infer")

    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    data = model([node("Op")], [tensor("x", shape=[2])])
    with pytest.raises(Exception, match="infer function failed: ZeroDivisionError: in infer"):
        onnxruntime.InferenceSession(data, options)


def test_what_an_infer_function_raised_for_another_model_is_no_matter() -> None:
    @op(f"{DOMAIN}::Op", inputs=["float32"], outputs=["float32"])
    def kernel(x):
        return x

    @kernel.infer
    def infer(x):
        if x.shape == (7,):
            raise ZeroDivisionError("in infer")
        return x

    def session(size: int, *nodes: Any) -> Any:
        options = onnxruntime.SessionOptions()
        ort_ops.register(options)
        data = model([node("Op", outputs=["v"]), *nodes], [tensor("x", shape=[size])], [tensor("y")])
        return onnxruntime.InferenceSession(data, options)

    with pytest.raises(Exception, match="NoSuchOperator"):
        session(7, node("NoSuchOperator", ["v"], ["y"]))
    y = session(2, builtin("Neg", ["v"], ["y"])).run(None, {"x": np.ones(2, "f")})[0]
    np.testing.assert_array_equal(y, -np.ones(2))
    with pytest.raises(Exception, match="infer function failed: ZeroDivisionError: in infer"):
        session(7, builtin("Neg", ["v"], ["y"]))


def test_what_infer_raised_is_said_by_the_kernel_of_whichever_provider() -> None:
    kernel = op(
        f"{DOMAIN}::Op", providers=[CUDA, CPU], array="torch", inputs=["float32"], outputs=["float32"]
    )
    kernel(lambda x: x).infer(lambda x: 1 // 0)
    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    data = model([node("Op")], [tensor("x", shape=[2])], [tensor("y")])
    with pytest.raises(Exception, match="infer function failed: ZeroDivisionError"):
        onnxruntime.InferenceSession(data, options)


DEBUGGED = """
import sys
import numpy as np, ort_ops
from tests.ort_ops.models import DOMAIN, one_node
kept = []
@ort_ops.onnx_op(f"{DOMAIN}::Op", inputs=["float32"], outputs=["float32"], array=sys.argv[1])
def kernel(x, *, out):
    kept.append(x)
    assert np.isnan(np.asarray(out)).all()
    out[:1] = x[:1]
    if x[0] < 0:
        raise ValueError("negative")
kernel.infer(lambda x: x)
session = ort_ops.InferenceSession(one_node("Op"))
print(session.run(None, {"x": np.array([1, 2], "f")})[0])
try:
    session.run(None, {"x": np.array([-1, 2], "f")})
except ort_ops.errors.KernelError as error:
    step = error.__cause__.__traceback__
    while step.tb_next is not None:
        step = step.tb_next
    print(np.asarray(step.tb_frame.f_locals["x"]), np.asarray(kept[0]))
"""


@pytest.mark.parametrize("array", ["numpy", "torch"])
def test_debug_shows_what_was_not_filled_and_keeps_the_frames(array: str) -> None:
    environment = os.environ | {"ORT_OPS_DEBUG": "1"}
    command = [sys.executable, "-c", DEBUGGED, array]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["[ 1. nan]", "[-1.  2.] [1. 2.]"], done.stderr


def test_complex_tensors_are_refused_with_the_type_named() -> None:
    op(f"{DOMAIN}::Op")(lambda x: x)
    value = helper.make_tensor("c", TensorProto.COMPLEX64, [1], np.ones(1, np.complex64).tobytes(), raw=True)
    nodes = [builtin("Constant", [], ["c"], value=value), node("Op", ["c"], ["y"])]
    with pytest.raises((KernelError, InvalidGraph)):
        run(model(nodes, []))


def test_strings_beside_bfloat16_are_said_not_to_go() -> None:
    """ONNX Runtime's Python has no OrtValue of strings, and arrays of bfloat16 go by such values alone."""

    @ort_ops.onnx_op("test.types.beside::Length", inputs=["string"], outputs=["bfloat16"])
    def length(s: Any) -> Any:
        return np.array([len(each) for each in s], ml_dtypes.bfloat16)

    ends = [helper.make_tensor_value_info(*each, ["n"]) for each in (("s", 8), ("y", 16))]
    node = helper.make_node("Length", ["s"], ["y"], domain="test.types.beside")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("test.types.beside", 1)]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = ort_ops.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(
        NotImplementedError, match=r"input 's' is a tensor\(string\), which .* without bfloat16"
    ):
        session.run(None, {"s": np.array(["a", "bcd"], object)})
