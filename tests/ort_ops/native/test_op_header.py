"""Operators on <ort_ops/op.hpp>, in sessions of plain onnxruntime and of ours."""

import os
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import ort_ops
from ort_ops.errors import RegistrationError

from .build import build, run
from .conftest import Session, parse

RELEASE = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
HERE = Path(__file__).parent


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (1, 1)])
def test_several_element_types_are_one_operator(
    session: Session, dtype: type, shape: tuple[int, ...]
) -> None:
    name = {np.float32: "float", np.float64: "double", np.float16: "float16"}[dtype]
    made = session(f"g ({name}[n, m] x) => ({name}[n, m] y) {{ y = n.Scale <factor = 2.5> (x) }}")
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    (y,) = made.run(None, {"x": x})
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, (2.5 * x).astype(dtype))


def test_shapes_are_known_where_there_is_a_shape_function(session: Session) -> None:
    graph = "g (double[n, 3] x) => (double z) { y = n.Scale (x) z = n.Scale (y) }"
    model = parse(graph)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", 11, None))
    assert session(model).get_outputs()[0].shape == ["n", 3]
    assert session(model).get_outputs()[0].type == "tensor(double)"


@pytest.mark.parametrize(("inputs", "added"), [("x, b", 2.0), ("x", 0.0), ("x, ''", 0.0)])
def test_inputs_and_outputs_may_be_absent(session: Session, inputs: str, added: float) -> None:
    x, b = np.ones((2, 2), np.float32), np.array([2.0], np.float32)
    graph = f"g (float[n, m] x, float[k] b) => (float[n, m] y, int64 c) {{ y, c = n.AddAndCount ({inputs}) }}"
    model = parse(graph.replace(", ''", ""))
    if "''" in inputs:
        model.graph.node[0].input.append("")
    y, count = session(model).run(None, {"x": x, "b": b})
    assert (y.tolist(), count) == ((x + added).tolist(), 4)
    alone = parse(graph.replace(", int64 c)", ")").replace("y, c =", "y =").replace(", ''", ""))
    assert session(alone).run(None, {"x": x, "b": b})[0].tolist() == (x + added).tolist()


def test_inputs_and_outputs_may_be_many(session: Session) -> None:
    graph = """g (double[a] p, double[b] q, double[c] r) => (double[d] x, double[e] y, double[f] z)
               { x, y, z = n.Rotate (p, q, r) }"""
    given = {name: np.arange(size).astype(np.float64) for name, size in (("p", 1), ("q", 0), ("r", 3))}
    results = session(graph).run(None, given)
    assert [result.tolist() for result in results] == [[], [0, 1, 2], [0]]


def test_attributes_of_every_kind_are_read(session: Session) -> None:
    node = helper.make_node(
        "Describe",
        [],
        ["y"],
        name="here",
        domain="test.native",
        i=-3,
        f=0.5,
        s="text",
        ints=[1, 2],
        floats=[0.25],
        flag=1,
        tensor=numpy_helper.from_array(np.full((1, 2), 1.5)),
    )
    assert session(model_of(node, [], [("y", 8)])).run(None, {})[0].tolist() == [
        "i=-3 f=0.500000 s=text flag=yes 1 2 0.250000 tensor(1, 2)=1.500000 node=here"
    ]
    del node.attribute[[each.name for each in node.attribute].index("f")]
    with pytest.raises(Exception, match='attribute "f" is missing; expected a float'):
        session(model_of(node, [], [("y", 8)]))


def test_a_tensor_of_another_type_than_is_read_is_refused(session: Session) -> None:
    kinds = {"i": 1, "f": 0.5, "s": "", "ints": [1], "floats": [0.5], "flag": 0}
    tensor = numpy_helper.from_array(np.ones((1, 2), np.float32))
    node = helper.make_node("Describe", [], ["y"], domain="test.native", **kinds, tensor=tensor)
    with pytest.raises(Exception, match='attribute "tensor" is a tensor of another type; expected a tensor'):
        session(model_of(node, [], [("y", 8)]))


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({}, [7, 8, 9, 0, "none"]),
        (
            {"sizes": [2, 3], "floats": [4.0], "i": 5, "f": 6.0, "flag": 1, "symbol": "m"},
            [2, 3, 4, 5, 6, 1, "m"],
        ),
        ({"symbol": "ü"}, [7, 8, 9, 0, "ü"]),
    ],
)
def test_a_shape_function_reads_attributes(
    session: Session, attributes: dict[str, Any], shape: list[Any]
) -> None:
    node = helper.make_node("Shaped", ["x"], ["y"], domain="test.native", **attributes)
    model = model_of(node, [helper.make_tensor_value_info("x", 1, None)], [("y", 1)])
    assert session(model).get_outputs()[0].shape == shape


@pytest.mark.skipif(RELEASE < (1, 25), reason="ONNX Runtime 1.25 gives lists")
def test_a_list_of_strings_is_read(session: Session) -> None:
    node = helper.make_node("ListOfStrings", [], ["y"], domain="test.native", each=["a", "", "ü"])
    assert session(model_of(node, [], [("y", 8)])).run(None, {})[0].tolist() == ["a", "", "ü"]


def model_of(node: onnx.NodeProto, inputs: list[Any], outputs: list[tuple[str, int]]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs]
    graph = helper.make_graph([node], "g", inputs, ends)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("test.native", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_strings_go_in_and_come_out(session: Session) -> None:
    made = session("g (string[n] x) => (string[n] y) { y = n.Upper (x) }")
    assert made.run(None, {"x": np.array(["abc", "", "Zü"], object)})[0].tolist() == ["ABC", "", "Zü"]


@pytest.mark.skipif(RELEASE < (1, 22), reason="a computed type needs 1.22")
@pytest.mark.parametrize(("name", "dtype"), [("int64", np.int64), ("float", np.float32)])
def test_elements_may_be_of_any_type(session: Session, name: str, dtype: type) -> None:
    made = session(f"g ({name}[n] x) => ({name}[n] y) {{ y = n.Copy (x) }}")
    assert made.run(None, {"x": np.array([5, 0, 7], dtype)})[0].tolist() == [5, 0, 7]


def test_constants_are_there_when_the_kernel_is_made(session: Session) -> None:
    graph = """g (float[n] x) => (int64[n] y, bool c)
               <float[3] table = {3.0, 1.0, 2.0}> { y, c = n.Rank (x, table) }"""
    y, known = session(graph).run(None, {"x": np.array([0.5, 1.5, 9], np.float32)})
    assert (y.tolist(), known) == ([0, 1, 3], True)
    given = "g (float[n] x, float[m] table) => (int64[n] y, bool c) { y, c = n.Rank (x, table) }"
    feed = {"x": np.ones(1, np.float32), "table": np.ones(1, np.float32)}
    assert not session(given).run(None, feed)[1]


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_loops_run_in_onnx_runtimes_threads(session: Session, count: int) -> None:
    made = session("g (double[n] x) => (double y) { y = n.SumOfSquares (x) }")
    x = np.arange(count).astype(np.float64)
    assert made.run(None, {"x": x})[0] == np.square(x).sum()
    if count > 1:
        x[500] = -1
        with pytest.raises(Exception, match="element 500 is negative"):
            made.run(None, {"x": x})


def test_built_in_operators_are_invoked_and_packed(session: Session) -> None:
    weight = np.arange(6).reshape(2, 3).astype(np.float32)
    graph = "g (float[n, 3] x) => (float[n, 2] y, float[n, 2] z) { y, z = n.Products (x, w) }"
    model = parse(graph)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    x = np.arange(12).reshape(4, 3).astype(np.float32)
    packed = RELEASE >= (1, 23)  # before, there are no sessions inside of kernels
    for y in session(model).run(None if packed else ["y"], {"x": x}):
        np.testing.assert_array_equal(y, x @ weight.T)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (0, "refused when it is made"),
        (1, "Fail: its infer function failed: Fail: no such shape"),
        (2, r"Fail: x is \(2, 0\); expected another"),
        (3, "a standard exception"),
        (4, "an exception that is no std::exception"),
        (5, "(?i)shape|dimension|negative|size"),
        (6, "out of memory"),
    ],
)
def test_no_exception_escapes(session: Session, how: int, text: str) -> None:
    graph = f"g (float[n, m] x) => (float[n, m] y) {{ y = n.Fail <how = {how}> (x) }}"
    with pytest.raises(Exception, match=text):
        session(graph).run(None, {"x": np.ones((2, 0), np.float32)})


@pytest.mark.parametrize("how", [0, 1, 2])
def test_the_node_is_named_whether_it_is_made_or_run(session: Session, how: int) -> None:
    model = parse(f"g (float[n, m] x) => (float[n, m] y) {{ y = n.Fail <how = {how}> (x) }}")
    model.graph.node[0].name = "my_node"
    with pytest.raises(Exception, match=r"Fail node.*my_node"):
        session(model).run(None, {"x": np.ones((2, 0), np.float32)})


def test_a_kernel_that_failed_runs_again(session: Session) -> None:
    made = session("g (double[n] x) => (double y) { y = n.SumOfSquares (x) }")
    with pytest.raises(Exception, match="negative"):
        made.run(None, {"x": np.array([-1.0])})
    assert made.run(None, {"x": np.array([2.0])})[0] == 4


def of_all_bits(dtype: Any) -> Any:
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_half_is_widened_exactly_and_comes_back(library: Path, dtype: Any) -> None:
    name = np.dtype(dtype).name
    model = parse(f"g ({name}[n] x) => (float[n] w, {name}[n] b) {{ w, b = n.Half (x) }}")
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    x = of_all_bits(dtype)
    wide, back = ort_ops.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    with np.errstate(invalid="ignore"):  # which AArch64 says of a signalling NaN
        np.testing.assert_array_equal(wide, x.astype(np.float32))
    same = back.view(np.uint16) == x.view(np.uint16)
    assert (same | np.isnan(wide)).all()
    assert np.isnan(back[np.isnan(wide)].astype(np.float32)).all()


@pytest.mark.parametrize(("name", "dtype"), [("Float16", np.float16), ("BFloat16", ml_dtypes.bfloat16)])
def test_narrowing_rounds_to_the_nearest(library: Path, name: str, dtype: Any) -> None:
    kind = np.dtype(dtype).name
    model = parse(f"g (float[n] x) => ({kind}[n] y) {{ y = n.To{name} (x) }}")
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 18, dtype=np.uint64).astype(np.uint32)
    with np.errstate(all="ignore"):
        halves = of_all_bits(dtype).astype(np.float32)
        middles = (halves[:-1].astype(np.float64) + halves[1:]) / 2  # ties, which go to the even one
        x = np.concatenate([bits.view(np.float32), halves, middles.astype(np.float32)])
        expected = x.astype(dtype)
    (y,) = ort_ops.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    nan = np.isnan(x)
    np.testing.assert_array_equal(y[~nan].view(np.uint16), expected[~nan].view(np.uint16))
    assert np.isnan(y[nan].astype(np.float32)).all()


def test_an_operator_may_be_in_another_domain(session: Session) -> None:
    made = session("g (int64[n] x) => (int64[n] y) { y = test.other.Elsewhere (x) }")
    assert made.run(None, {"x": np.array([4, 2])})[0].tolist() == [4, 2]


def test_a_library_registered_twice_is_there_once(library: Path) -> None:
    options = onnxruntime.SessionOptions()
    for _ in range(2):
        options.register_custom_ops_library(str(library))
    model = parse("g (float[n] x) => (float[n] y) { y = n.Scale (x) }")
    assert onnxruntime.InferenceSession(model.SerializeToString(), options) is not None


def test_a_session_says_that_the_library_runs_a_node(library: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    model = parse("g (float[n] x) => (float[n] y) { y = n.Scale (x) }")
    (run,) = ort_ops.InferenceSession(model.SerializeToString(), options).explain()
    assert (run.runner, run.kernel, run.provider) == ("library", str(library), "CPUExecutionProvider")


def test_a_domain_of_both_goes_to_the_library_unless_python_is_asked_for(library: Path) -> None:
    @ort_ops.onnx_op("test.native::Scale")
    def scale(x: NDArray[np.float32], *, factor: float = 1) -> NDArray[np.float32]:
        return x * 100

    model = parse("g (float[n] x) => (float[n] y) { y = n.Scale <factor = 2.0> (x) }").SerializeToString()
    x = {"x": np.ones(1, np.float32)}

    def with_library() -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(library))
        return options

    session = ort_ops.InferenceSession(model, with_library())
    assert session.run(None, x)[0] == 2
    assert str(library) in session.explain()[0].reason
    assert ort_ops.InferenceSession(model, ops=[scale]).run(None, x)[0] == 100
    with pytest.raises(RegistrationError, match=r"liboperators.*takes a domain from one library"):
        ort_ops.InferenceSession(model, with_library(), ops=[scale])
    with pytest.raises(RegistrationError, match=r"liboperators.*Python kernels"):
        ort_ops.register(with_library(), ops=["test.native::Scale"])
    options = onnxruntime.SessionOptions()
    ort_ops.register(options, ops=["test.native::Scale"])
    with pytest.raises(Exception, match=r"Python kernels.*liboperators"):
        options.register_custom_ops_library(str(library))


@pytest.mark.needs("torch")
def test_a_project_of_somebody_elses_builds_and_runs(tmp_path: Path) -> None:
    example = HERE.parents[2] / "examples" / "cpp_operator"
    made = build(example, tmp_path / "build") / "libsoftshrink.so"
    assert run(sys.executable, example / "use.py", made).startswith("[-0.75 -0.5 ")


@pytest.mark.parametrize("value", [1, "text", [1, 2], [0.5], numpy_helper.from_array(np.ones(1))])
def test_an_attribute_of_another_type_is_no_default(session: Session, value: Any) -> None:
    node = helper.make_node("Scale", ["x"], ["y"], domain="test.native", factor=value)
    x = helper.make_tensor_value_info("x", 1, ["n"])
    with pytest.raises(Exception, match=r'attribute "factor" is an? .*; expected a float'):
        session(model_of(node, [x], [("y", 1)]))


def test_a_list_is_not_read_off_a_number(session: Session) -> None:
    kinds = {"i": 1, "f": 0.5, "s": "", "floats": [0.5], "flag": 0}
    tensor = numpy_helper.from_array(np.ones((1, 2)))
    node = helper.make_node("Describe", [], ["y"], domain="test.native", **kinds, ints=3, tensor=tensor)
    with pytest.raises(Exception, match='attribute "ints" is an integer; expected a list of integers'):
        session(model_of(node, [], [("y", 8)]))


def test_a_constant_of_another_type_is_refused(session: Session) -> None:
    graph = "g (float[n] x) => (float[n] y) <float[2] c = {1, 2}> { y = n.Misread (x, c) }"
    with pytest.raises(Exception, match="input 1 is of element type 1; expected 7"):
        session(parse(graph))


def test_strings_are_not_copied_as_bytes(session: Session) -> None:
    model = parse("g (string[n] x) => (string[n] y) { y = n.Copy (x) }")
    made = session(model)
    with pytest.raises(Exception, match="a tensor of strings has no elements to be copied"):
        made.run(None, {"x": np.array(["a" * 100], object)})


@pytest.mark.parametrize("kind", ["float", "double"])
def test_what_a_shape_function_throws_is_the_error_of_that_session(session: Session, kind: str) -> None:
    wrong = f"g ({kind}[n] x) => ({kind} y) {{ y = n.Sized <size = -1> (x) }}"
    with pytest.raises(Exception, match="Sized: its infer function failed: Sized: size is -1"):
        session(wrong)
    session(wrong.replace("-1", "1"))  # and of no other


@pytest.mark.cuda
def test_on_cuda_an_operator_has_the_stream_memory_and_built_in_operators(session: Session) -> None:
    graph = "g (float[n] x) => (float[n] y) <int64[1] k = {3}> { v = Neg (x) y = n.AddTimes (v, k) }"
    made = session(graph, providers=["CUDAExecutionProvider"])
    assert made.get_providers()[0] == "CUDAExecutionProvider"
    for size in (0, 1, 5, 1 << 20):
        x = np.arange(size, dtype=np.float32) % 1000
        np.testing.assert_array_equal(made.run(None, {"x": x})[0], -5 * x)


@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer keeps what is freed")
def test_memory_for_a_run_is_given_back_with_its_allocator(session: Session) -> None:
    made = session("g (double[n] x) => (double y) { y = n.SumOfSquares (x) }")
    feed = {"x": np.ones(4)}

    def grown(runs: int) -> int:
        before = resident()
        for _ in range(runs):
            made.run(None, feed)
        return resident() - before

    grown(2_000)
    # An allocator that is kept takes 64 bytes and more of each run; nothing else grows every time.
    assert min(grown(20_000) for _ in range(4)) < 300_000


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
