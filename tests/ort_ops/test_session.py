import importlib
import importlib.util
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import ort_ops
from ort_ops.dtypes import DTYPES, DType
from ort_ops.errors import KernelError, ModelError, ProviderError, RegistrationError, ResultError, SchemaError
from ort_ops.providers import CPU, CUDA

from .models import DOMAIN, builtin, function, model, node, one_node, tensor
from .releases import ORT, from_ort

T = TypeVar("T")
# Tests that use it are marked, and skipped where it is missing.
torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
SHAPES = ((2, 3), (7,), (), (0,), (3, 0, 5), (1, 1, 1, 1))
X = np.arange(6, dtype=np.float32).reshape(2, 3)
# The types that arrays of bytes are; test_types.py has the others.
BIT_TYPES = [dtype for dtype in DTYPES if dtype.name != "string" and dtype.onnx < 17]
BODY = function("Op", ["a"], ["b"], builtin("Neg", ["a"], ["b"]))
WITH_BODY = model([node("Op")], functions=[BODY])

READS_STRINGS = pytest.mark.skipif(ORT < (1, 25), reason="before 1.25 it says nothing of lists of strings")

op = ort_ops.onnx_op


def run(data: bytes, *arrays: Any, **options: Any) -> Any:
    """Run a model on arrays in the order of its inputs; one output comes as it is, several as a list."""
    session = ort_ops.InferenceSession(data, **options)
    outputs = session.run(None, dict(zip((i.name for i in session.get_inputs()), arrays, strict=True)))
    return outputs[0] if len(outputs) == 1 else outputs


def noise(dtype: DType, shape: tuple[int, ...]) -> Any:
    """Every bit pattern may occur, NaNs with a payload and negative zeros among them."""
    size = int(np.prod(shape)) * dtype.numpy.itemsize
    raw = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    return (raw % 2 if dtype.name == "bool" else raw).view(dtype.numpy).reshape(shape)


@pytest.mark.parametrize("array", ["numpy", "torch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", BIT_TYPES, ids=lambda dtype: dtype.name)
def test_every_type_and_shape_comes_through_bit_for_bit(
    dtype: DType, shape: tuple[int, ...], array: Any
) -> None:
    seen: list[Any] = []

    @op(f"{DOMAIN}::Op", array=array, inputs=[T], outputs=[T])
    def kernel(x: Any) -> Any:
        seen.append((str(x.dtype).removeprefix("torch."), tuple(x.shape)))
        return x

    x = noise(dtype, shape)
    y = run(one_node("Op", dtype.name), x)
    assert seen == [(dtype.name, shape)]
    assert (y.dtype, y.shape) == (x.dtype, shape)
    assert y.tobytes() == x.tobytes()


@pytest.mark.parametrize(
    "relayout",
    [
        lambda x: np.asfortranarray(x),
        lambda x: x.T.copy().T,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x[:, ::-1].copy()[:, ::-1],
        lambda x: x.astype(x.dtype.newbyteorder()),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    ],
    ids=["fortran", "transposed", "strided", "reversed", "reversed_rows", "byte_swapped", "unaligned"],
)
def test_a_result_may_lie_in_memory_as_it_likes(relayout: Callable[[Any], Any]) -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return relayout(x * 2)

    np.testing.assert_array_equal(run(one_node("Op"), X), X * 2)
    big = np.random.default_rng(0).normal(size=(513, 1025)).astype(np.float32)  # copied without the GIL
    np.testing.assert_array_equal(run(one_node("Op"), big), big * 2)


def test_a_result_may_be_broadcast_or_a_scalar() -> None:
    @op(f"{DOMAIN}::Op")
    def broadcast(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.broadcast_to(x.sum(), (3, 2))

    @op(f"{DOMAIN}::Sum")
    def scalar(x: NDArray[np.float32]) -> Any:
        return x.sum()

    np.testing.assert_array_equal(run(one_node("Op"), X), np.full((3, 2), 15, np.float32))
    assert run(one_node("Sum"), X).shape == ()


# Inputs of any type; declared ones.
KINDS = pytest.mark.parametrize("kind", [None, "float32"], ids=["any", "typed"])


def computed(kind: Any, release: tuple[int, int] = (1, 22)) -> AbstractContextManager[Any]:
    """Expect the error by which a type that has to be computed is refused before a release."""
    needed = ".".join(map(str, release))
    return from_ort((1, 0) if kind else release, RegistrationError, f"needs ONNX Runtime {needed}")


@KINDS
@pytest.mark.parametrize(
    ("inputs", "added"), [(["x"], 3), (["x", "x"], 2), (["x", "x", "x"], 0)], ids=["one", "two", "three"]
)
def test_absent_optional_inputs_are_none(inputs: list[str], added: int, kind: Any) -> None:
    register_optional(kind)
    np.testing.assert_array_equal(run(model([node("Op", inputs)]), X), X + added)


def register_optional(kind: Any) -> ort_ops.registry.Op:
    @op(f"{DOMAIN}::Op", inputs=[kind] * 3)
    def kernel(x, a=None, b=None):
        return x + (1 if a is None else 0) + (2 if b is None else 0)

    return kernel


# Before release 1.24 ONNX Runtime would end the process if it were given a function for their shapes.
@KINDS
@pytest.mark.parametrize(
    ("inputs", "added"), [(["x", "", "x"], 1), (["x", "x", ""], 2), (["x", "", ""], 3)], ids=str
)
def test_inputs_that_a_node_leaves_out_are_none(inputs: list[str], added: int, kind: Any) -> None:
    register_optional(kind).infer(lambda x, a, b: x)
    data = model([node("Op", inputs)], [tensor("x", shape=X.shape)])
    with computed(kind, (1, 24) if ORT >= (1, 22) else (1, 22)):
        np.testing.assert_array_equal(run(data, X), X + added)
        options = onnxruntime.SessionOptions()
        ort_ops.register(options, [f"{DOMAIN}::Op"])
        plain = onnxruntime.InferenceSession(data, options)
        np.testing.assert_array_equal(plain.run(None, {"x": X})[0], X + added)


@pytest.mark.parametrize("called_with", [["x", ""], ["x"]], ids=str)
def test_an_input_that_is_left_out_by_the_caller_of_a_body_is_none(called_with: list[str]) -> None:
    register_optional("float32").infer(lambda x, a, b: x)
    body = function("Caller", ["a", "c"], ["b"], node("Op", ["a", "c", "a"], ["b"]))
    np.testing.assert_array_equal(run(model([node("Caller", called_with)], functions=[body]), X), X + 1)


@KINDS
def test_variadic_inputs_come_in_any_number(kind: Any) -> None:
    @op(f"{DOMAIN}::Op", inputs=[kind, kind])
    def kernel(x, *more):
        return x + sum(more) + np.float32(100 * len(more))

    for count in (0, 1, 5):
        expected = X * (1 + count) + 100 * count
        np.testing.assert_array_equal(run(model([node("Op", ["x"] * (1 + count))]), X), expected)


ATTRIBUTES = {"i": 3, "f": 0.5, "b": True, "s": "é\0", "li": [1, -2], "lf": [0.5]}


def test_attributes_come_with_their_types_and_defaults() -> None:
    seen: list[Any] = []

    @op(f"{DOMAIN}::Op")
    def kernel(
        x,
        *,
        i: int = 7,
        f: float = 0.25,
        b: bool = False,
        s: str = "default",
        li: list[int] = [9],  # noqa: B006
        lf: list[float] = [],  # noqa: B006
    ):
        seen.append({"i": i, "f": f, "b": b, "s": s, "li": li, "lf": lf})
        return x

    run(one_node("Op", **ATTRIBUTES), X)
    run(one_node("Op"), X)
    assert seen[0] == ATTRIBUTES
    assert [type(value) for value in seen[0].values()] == [int, float, bool, str, list, list]
    assert seen[1] == {"i": 7, "f": 0.25, "b": False, "s": "default", "li": [9], "lf": []}


def test_a_missing_attribute_fails_when_the_session_is_made() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x, *, needed: int):
        return x * needed

    assert run(one_node("Op", needed=2), X)[1, 2] == 10
    with pytest.raises(Exception, match='node "Op" has no attribute "needed"; expected one, since'):
        ort_ops.InferenceSession(one_node("Op"))


@pytest.mark.parametrize(
    "given",
    [
        *({"f": 2}, {"f": [2.5]}, {"lf": [1, 2]}, {"lf": 0.5}, {"lf": "text"}, {"t": [0.5]}, {"t": 1}),
        pytest.param({"lf": ["text"]}, marks=READS_STRINGS),
        pytest.param({"t": ["text"]}, marks=READS_STRINGS),
    ],
    ids=str,
)
def test_an_attribute_of_another_type_does_not_pass_for_an_absent_one(given: Any) -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x, *, f: float = 1.0, lf: list[float] = [], t: np.ndarray[Any, Any] = np.ones(1)):  # noqa: B006, B008
        return x

    with pytest.raises(
        Exception,
        match=r'Op node "Op": attribute "(l?f|t)" is an? .*; expected a.*, which .*kernel declares',
    ):
        ort_ops.InferenceSession(one_node("Op", **given))


def register_three(array: Any) -> None:
    @op(f"{DOMAIN}::Op", array=array, inputs=["float32"], outputs=["float32"] * 3)
    def kernel(x: Any) -> Any:
        return x + 1, x + 2, x + 3


@pytest.mark.parametrize("array", ["numpy", "torch"])
@pytest.mark.parametrize("outputs", [("a", "b", "c"), ("a", "", "c"), ("a", "b"), ("a",)])
def test_outputs_that_a_node_leaves_out_are_dropped(outputs: tuple[str, ...], array: Any) -> None:
    register_three(array)
    named = [tensor(name) for name in outputs if name]
    session = ort_ops.InferenceSession(model([node("Op", outputs=outputs)], outputs=named))
    for value, info in zip(session.run(None, {"x": X}), named, strict=True):
        np.testing.assert_array_equal(value, X + 1 + "abc".index(info.name))


def test_outputs_that_a_run_does_not_ask_for_cost_nothing_but_are_right() -> None:
    register_three("numpy")
    named = [tensor(name) for name in "abc"]
    session = ort_ops.InferenceSession(model([node("Op", outputs=tuple("abc"))], outputs=named))
    c, a = session.run(["c", "a"], {"x": X})
    np.testing.assert_array_equal(c - a, np.full_like(X, 2))


def test_no_outputs() -> None:
    seen = []

    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> None:
        seen.append(x.sum())

    run(model([node("Op", outputs=()), builtin("Identity", ["x"], ["y"])]), X)
    assert seen == [15]


# --- who runs what ---------------------------------------------------------------------------------


def register_plus_one(name: str = "Op", kind: Any = None, **options: Any) -> ort_ops.registry.Op:
    @op(f"{DOMAIN}::{name}", inputs=None if kind is None else [kind], **options)
    def plus_one(x: Any) -> Any:
        return x + 1

    return plus_one


def explained(session: ort_ops.InferenceSession) -> list[tuple[str, str, str]]:
    return [(run.node, run.runner, run.reason) for run in session.explain()]


def test_a_kernel_wins_over_the_body_unless_the_body_is_preferred() -> None:
    register_plus_one()
    data = WITH_BODY
    np.testing.assert_array_equal(run(data, X), X + 1)
    np.testing.assert_array_equal(run(data, X, prefer="body"), -X)
    session = ort_ops.InferenceSession(data, prefer="body")
    assert explained(session) == [("Op", "function body", 'prefer="body"')]
    (made,) = ort_ops.InferenceSession(data).explain()
    assert str(made).endswith("register_plus_one.<locals>.plus_one on CPUExecutionProvider")


def test_ops_limits_the_session_to_some_operators() -> None:
    plus = register_plus_one()
    data = WITH_BODY
    np.testing.assert_array_equal(run(data, X, ops=[plus]), X + 1)
    np.testing.assert_array_equal(run(data, X, ops=[]), -X)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"kind": "float64"}, "no kernel takes the element types of node 'Op'"),
        ({"providers": [CUDA], "array": "torch"}, f"its kernels run on {CUDA}; this session has {CPU}"),
    ],
)
def test_a_kernel_that_can_not_run_leaves_the_body(options: Any, why: str) -> None:
    register_plus_one(**options)
    session = ort_ops.InferenceSession(WITH_BODY, providers=[CPU])
    assert explained(session) == [("Op", "function body", why)]
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], -X)


def test_a_kernel_that_turns_out_not_to_fit_leaves_the_body() -> None:
    register_plus_one(kind="float64")
    nodes = [builtin("Identity", ["x"], ["v"]), node("Op", ["v"])]  # the file does not state v's type
    session = ort_ops.InferenceSession(model(nodes, functions=[BODY]))
    assert session.explain()[0].reason.startswith("with its kernel the session fails")
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], -X)
    data = model(nodes, functions=[BODY])
    with pytest.raises(Exception, match="float") as caught:  # options keep what was registered with them
        ort_ops.InferenceSession(data, onnxruntime.SessionOptions())
    assert 'prefer="body" runs them' in caught.value.__notes__[-1]
    np.testing.assert_array_equal(run(data, X, sess_options=onnxruntime.SessionOptions(), prefer="body"), -X)


def conditional(condition: bool, *branches: str) -> bytes:
    """A model in which a node of each of these operators is in a branch of a condition that is a constant."""
    graphs = []
    for branch, name in zip(("then", "else"), branches, strict=True):
        inside = node(name, ["x"], [branch])
        inside.name = f"in {branch}"
        graphs.append(helper.make_graph([inside], branch, [], [tensor(branch)]))
    choice = builtin("If", ["c"], ["y"], then_branch=graphs[0], else_branch=graphs[1])
    return model([choice], initializers=[numpy_helper.from_array(np.array(condition), "c")])


@pytest.mark.parametrize("condition", [True, False])
def test_a_node_in_a_branch_that_is_never_run_is_left_out(condition: bool) -> None:
    register_plus_one("Then")
    register_plus_one("Else")
    session = ort_ops.InferenceSession(conditional(condition, "Then", "Else"))
    made = {run.node: run for run in session.explain()}
    there, away = ("then", "else") if condition else ("else", "then")
    assert made[f"in {there}"].runner == "kernel"
    assert str(made[f"in {away}"]) == (
        f"in {away} [{DOMAIN}::{away.title()}]: left out (nothing needs its results)"
    )


def test_of_nodes_that_are_renamed_it_is_said_that_one_may_be_left_out() -> None:
    register_plus_one()
    runs = ort_ops.InferenceSession(conditional(True, "Op", "Op")).explain()
    assert [(run.runner, run.provider) for run in runs] == [("kernel", CPU)] * 2
    assert all(run.reason.startswith("or nothing needs its results") for run in runs)


def test_nodes_without_names_are_explained() -> None:
    register_plus_one(kind="float32")

    @op(f"{DOMAIN}::Op")
    def minus_one(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return x - 1

    nodes = [node("Op"), node("Op", ["d"], ["z"])]
    ins, outs = [tensor("x"), tensor("d", "float64")], [tensor("y"), tensor("z", "float64")]
    for each in nodes:
        each.name = ""
    session = ort_ops.InferenceSession(model(nodes, ins, outs))
    assert [run.node for run in session.explain()] == ["", ""]
    assert all("plus_one" in run.kernel and "minus_one" in run.kernel for run in session.explain())
    y, z = session.run(None, {"x": X, "d": X.astype(np.float64)})
    np.testing.assert_array_equal(z, y - 2)


def test_a_provider_that_is_not_there_is_refused_unless_the_cpu_is_named() -> None:
    register_plus_one()
    with pytest.raises(ProviderError, match=f"{CUDA} is not in this onnxruntime"):
        ort_ops.InferenceSession(one_node("Op"), providers=[CUDA])
    with pytest.raises(ProviderError, match="NoSuchExecutionProvider is not in"):
        ort_ops.InferenceSession(one_node("Op"), providers=[("NoSuchExecutionProvider", {})])


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError):
        ort_ops.InferenceSession(b"no model")
    with pytest.raises(TypeError, match=r"is a ModelProto; expected a path, or bytes .*SerializeToString"):
        ort_ops.InferenceSession(onnx.load_from_string(WITH_BODY))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ops": f"{DOMAIN}::Op"}, r"expected a list: ops=\[...\]"),
        ({"trust": "package"}, r"trust='package'; expected a list of packages"),
        ({"providers": CPU}, rf"expected a list of names: \['{CPU}'\]"),
    ],
)
def test_a_text_is_no_list_of_its_letters(options: dict[str, Any], said: str) -> None:
    register_plus_one()
    with pytest.raises(TypeError, match=said):
        ort_ops.InferenceSession(one_node("Op"), **options)
    with pytest.raises(TypeError, match="expected a list"):
        ort_ops.register(onnxruntime.SessionOptions(), f"{DOMAIN}::Op")


@pytest.mark.parametrize("dtype", [">f4", "<f4"])
def test_inputs_of_any_byte_order_are_the_same_numbers(dtype: str) -> None:
    register_plus_one()
    session = ort_ops.InferenceSession(one_node("Op"))
    np.testing.assert_array_equal(session.run(None, {"x": X.astype(dtype)})[0], X + 1)
    done, answers = threading.Event(), []

    def answer(results: Any, data: Any, error: Any) -> None:
        answers.append(error or results[0])
        done.set()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort_ops.InferenceSession(one_node("Op"), options)
    session.run_async(None, {"x": X.astype(dtype)}, answer, None)
    assert done.wait(60)
    np.testing.assert_array_equal(answers[0], X + 1)


@pytest.mark.parametrize(("kind", "dtype"), [("float", ">f4"), ("string", "S3"), ("string", "U3")])
def test_arrays_in_a_sequence_are_read_like_others(kind: str, dtype: str) -> None:
    register_plus_one()
    element = getattr(onnx.TensorProto, kind.upper())
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(element, None))
    nodes = [
        node("Op", outputs=["z"]),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]
    ends = [
        [helper.make_tensor_value_info("x", 1, [3]), helper.make_value_info("s", sequence)],
        [helper.make_tensor_value_info("z", 1, [3]), helper.make_tensor_value_info("y", element, ["n"])],
    ]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    proto = helper.make_model(helper.make_graph(nodes, "g", *ends), opset_imports=opsets, ir_version=8)
    session = ort_ops.InferenceSession(proto.SerializeToString())
    parts = [np.array(["1", "22"]), np.array(["333"])]
    given = [part.astype(np.float32 if kind == "float" else object).astype(dtype) for part in parts]
    got = session.run(["y"], {"x": np.zeros(3, np.float32), "s": given})[0]
    assert got.tolist() == ([1, 22, 333] if kind == "float" else ["1", "22", "333"])


# --- other ways in ---------------------------------------------------------------------------------


def test_options_serve_a_second_session_with_the_same_operators_and_refuse_others() -> None:
    register_plus_one()
    register_plus_one("Other")
    options = onnxruntime.SessionOptions()
    for _ in range(2):
        np.testing.assert_array_equal(run(one_node("Op"), X, sess_options=options), X + 1)
    with pytest.raises(RegistrationError, match="give each session a SessionOptions of its own"):
        ort_ops.InferenceSession(one_node("Other"), options)


def test_options_of_a_session_that_failed_serve_the_next() -> None:
    register_plus_one()
    options = onnxruntime.SessionOptions()
    with pytest.raises(Exception, match="Missing"):
        ort_ops.InferenceSession(model([node("Op", outputs=["v"]), node("Missing", ["v"])]), options)
    np.testing.assert_array_equal(run(one_node("Op"), X, sess_options=options), X + 1)


def test_plain_onnxruntime_takes_the_library_any_number_of_times() -> None:
    register_plus_one()
    options = onnxruntime.SessionOptions()
    for _ in range(2):
        options.register_custom_ops_library(ort_ops.get_library_path())
        ort_ops.register(options)
    session = onnxruntime.InferenceSession(one_node("Op"), options)
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + 1)


def test_plain_onnxruntime_can_name_what_it_wants() -> None:
    register_plus_one()
    register_plus_one("Other")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("ort_ops.ops", f"{DOMAIN}::Op")
    options.register_custom_ops_library(ort_ops.get_library_path())
    onnxruntime.InferenceSession(one_node("Op"), options)
    with pytest.raises(Exception, match="Other"):
        onnxruntime.InferenceSession(one_node("Other"), options)
    with pytest.raises(RegistrationError, match=r"names test\.domain::Missing, for which no kernel"):
        ort_ops.register(onnxruntime.SessionOptions(), [f"{DOMAIN}::Missing"])


def test_a_second_register_adds_domains_and_all_are_all() -> None:
    register_plus_one()
    elsewhere = f"{DOMAIN}.elsewhere"

    @op(f"{elsewhere}::Op")
    def other(x: Any) -> Any:
        return x

    data = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18, "{elsewhere}": 1]>'
        f"g (float[n] x) => (float[n] y) {{ y = {elsewhere}.Op (x) }}"
    ).SerializeToString()
    options = onnxruntime.SessionOptions()
    ort_ops.register(options, [f"{DOMAIN}::Op"])
    with pytest.raises(Exception, match="elsewhere"):
        onnxruntime.InferenceSession(data, options)
    ort_ops.register(options)
    onnxruntime.InferenceSession(data, options)
    alone = onnxruntime.SessionOptions()
    ort_ops.register(alone, [other])
    onnxruntime.InferenceSession(data, alone)
    with pytest.raises(TypeError, match="expected a list"):
        ort_ops.register(alone, other)  # type: ignore[arg-type]
    register_plus_one("More")
    with pytest.raises(RegistrationError, match=r"has had domain .* registered with other operators"):
        ort_ops.register(options)


def test_operators_registered_later_and_other_sessions_disturb_nobody() -> None:
    register_plus_one()
    first = ort_ops.InferenceSession(one_node("Op"))
    for count in range(50):
        register_plus_one(f"Later{count}")
    others = [ort_ops.InferenceSession(one_node(f"Later{count}")) for count in range(50)]
    for session in (*others, first):
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + 1)


def test_kernels_run_in_subgraphs() -> None:
    register_plus_one()
    v, b = tensor("v"), tensor("b")
    arm = helper.make_graph([node("Op", ["x"], ["b"])], "then", [], [b])
    other = helper.make_graph([builtin("Neg", ["x"], ["b"])], "else", [], [b])
    chosen = model(
        [builtin("If", ["on"], ["y"], then_branch=arm, else_branch=other)],
        [tensor("x"), tensor("on", "bool", [])],
    )
    np.testing.assert_array_equal(run(chosen, X, np.array(True)), X + 1)
    np.testing.assert_array_equal(run(chosen, X, np.array(False)), -X)

    nodes = [builtin("Identity", ["more"], ["again"]), node("Op", ["v"], ["w"])]
    ins = [tensor("i", "int64", []), tensor("more", "bool", []), v]
    body = helper.make_graph(nodes, "body", ins, [tensor("again", "bool", []), tensor("w")])
    looped = model(
        [builtin("Loop", ["n", "", "x"], ["y"], body=body)], [tensor("x"), tensor("n", "int64", [])]
    )
    np.testing.assert_array_equal(run(looped, X, np.array(5)), X + 5)
    assert [made.runner for made in ort_ops.InferenceSession(looped).explain()] == ["kernel"]


def test_a_kernel_of_constants_is_run_and_explained() -> None:
    register_plus_one()
    nodes = [node("Op", ["w"], ["v"]), builtin("Add", ["x", "v"], ["y"])]
    data = model(nodes, initializers=[numpy_helper.from_array(X, "w")])
    np.testing.assert_array_equal(run(data, X), 2 * X + 1)
    assert [made.runner for made in ort_ops.InferenceSession(data).explain()] == ["kernel"]


def test_a_kernel_may_make_and_run_a_session() -> None:
    register_plus_one("Inner")

    @op(f"{DOMAIN}::Op")
    def outer(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return run(one_node("Inner"), x.copy()) * 10

    np.testing.assert_array_equal(run(one_node("Op"), X), (X + 1) * 10)


def test_threads_share_a_session() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        if x[0] == 13:
            raise ValueError("thirteen")
        return x * 2

    session = ort_ops.InferenceSession(one_node("Op"))
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for size in (1, 2, 100, 300_000):
            x = np.full(size, seed, np.float32)
            try:
                if not (session.run(None, {"x": x})[0] == 2 * seed).all():
                    wrong.append(seed)
            except KernelError as error:
                if str(error.__cause__) != "thirteen" or seed != 13:
                    wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(10, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_run_with_values_and_with_bindings() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        if x.size == 0:
            raise ValueError("nothing to do")
        return x + 1

    session = ort_ops.InferenceSession(one_node("Op"))
    for x, ok in ((X, True), (X[:0], False), (X, True)):
        value = onnxruntime.OrtValue.ortvalue_from_numpy(x)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", value)
        binding.bind_output("y")
        if ok:
            np.testing.assert_array_equal(session.run_with_ort_values(["y"], {"x": value})[0].numpy(), X + 1)
            session.run_with_iobinding(binding)
            np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], X + 1)
            continue
        with pytest.raises(KernelError, match="nothing to do"):
            session.run_with_ort_values(["y"], {"x": value})
        with pytest.raises(KernelError, match="nothing to do"):
            session.run_with_iobinding(binding)


def test_bfloat16_is_neither_cast_nor_taken_from_another_type() -> None:
    register_plus_one()
    session = ort_ops.InferenceSession(one_node("Op", "bfloat16"))
    with pytest.raises(ValueError, match=r"input 'x' is float32; the model expects bfloat16"):
        session.run(None, {"x": X})


def test_beside_bfloat16_others_are_taken_as_by_onnxruntime() -> None:
    """Strings, lists and sequences, too, where nothing of bfloat16 is asked for."""
    nodes = [
        builtin("ConcatFromSequence", ["s"], ["c"], axis=0),
        builtin("Add", ["c", "x"], ["y"]),
        builtin("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16),
        builtin("Identity", ["t"], ["u"]),
    ]
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    ends = [tensor("x"), tensor("t", "string"), sequence], [tensor("y"), tensor("u", "string")]
    data = model(nodes, ends[0], [*ends[1], tensor("b", "bfloat16")])
    feed = {"x": [1.0, 2.0], "t": np.array(["ab"], object), "s": [np.ones(1, np.float32)] * 2}
    y, u = ort_ops.InferenceSession(data).run(["y", "u"], feed)
    assert (y.tolist(), y.dtype, u.tolist()) == ([2, 3], np.float32, ["ab"])
    short = model(nodes[2:3], [tensor("x")], [tensor("b", "bfloat16")])
    (b,) = ort_ops.InferenceSession(short).run(None, {"x": [1.0, 2.0]})
    assert b.astype(np.float32).tolist() == [1, 2]


def test_vectors_of_values_have_the_errors_of_run() -> None:
    @op(f"{DOMAIN}::Op", inputs=["float32"])
    def failing(x: Any) -> Any:
        raise ValueError("nothing to do")

    session = ort_ops.InferenceSession(one_node("Op"))
    vector = onnxruntime.capi.onnxruntime_pybind11_state.OrtValueVector()
    vector.push_back(onnxruntime.OrtValue.ortvalue_from_numpy(X)._ortvalue)
    results = onnxruntime.capi.onnxruntime_pybind11_state.OrtValueVector()
    cpu = onnxruntime.capi.onnxruntime_pybind11_state.OrtDevice(0, 0, 0)
    with pytest.raises(KernelError, match="nothing to do"):
        session.run_with_ortvaluevector(onnxruntime.RunOptions(), ["x"], vector, ["y"], results, [cpu])


def test_many_kernels_fit_into_one_session() -> None:
    """ONNX Runtime takes 8,192 characters in an entry of the options."""
    for number in range(60):

        @op(f"{DOMAIN}::Many{number}")
        def kernel(a: Any, b: Any) -> Any:
            return a + b

    nodes = [builtin("Identity", ["x"], ["v0"])]
    nodes += [node(f"Many{i}", [f"v{i}", f"v{i}"], [f"v{i + 1}"]) for i in range(60)]
    data = model([*nodes, builtin("Identity", ["v60"], ["y"])])
    (y,) = ort_ops.InferenceSession(data).run(None, {"x": X})
    np.testing.assert_array_equal(y, X * np.float32(2.0**60))
    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    ort_ops.register(options)
    (y,) = onnxruntime.InferenceSession(data, options).run(None, {"x": X})
    np.testing.assert_array_equal(y, X * np.float32(2.0**60))


# --- arrays of torch and DLPack --------------------------------------------------------------------


@pytest.mark.needs("torch")
def test_torch_kernels_run_in_inference_mode_and_on_shared_providers() -> None:
    @op(f"{DOMAIN}::Op", array="torch", providers=[CPU, CUDA])
    def kernel(x: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return torch.nn.functional.relu(x - 2).T

    session = ort_ops.InferenceSession(one_node("Op"), providers=[CPU])
    with torch.inference_mode():
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], np.maximum(X - 2, 0).T)
    assert torch.is_grad_enabled()


@pytest.mark.needs("torch")
def test_a_write_into_a_torch_input_is_found() -> None:
    @op(f"{DOMAIN}::Op", array="torch")
    def kernel(x: torch.Tensor) -> torch.Tensor:
        return x[0:1].add_(1)

    with pytest.raises(ResultError, match=r"wrote into its input 0.*work on a copy \(x.clone\(\)\)"):
        run(one_node("Op"), X.copy())


@pytest.mark.needs("torch")
@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda x: x.double(), "returned torch.float64 on cpu for output 0; expected torch.float32 on cpu"),
        (lambda x: x.to("meta"), "returned torch.float32 on meta"),
        (lambda x: None, "returned None; expected torch.Tensor; did the function forget its return"),
        (lambda x: x.numpy(), "returned a ndarray; expected torch.Tensor"),
        (lambda x: (x, x), r"returned a tuple of 2 \(Tensor, Tensor\); expected torch.Tensor"),
    ],
)
def test_a_wrong_result_of_a_torch_kernel_is_refused(result: Callable[[Any], Any], said: str) -> None:
    @op(f"{DOMAIN}::Op", array="torch", inputs=["float32"], outputs=["float32"])
    def kernel(x: Any) -> Any:
        return result(x)

    with pytest.raises(ResultError, match=said):
        run(one_node("Op"), X)


@pytest.mark.needs("torch")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dlpack_kernels(shape: tuple[int, ...]) -> None:
    @op(f"{DOMAIN}::Op", array="dlpack", inputs=["float32", "float32"], outputs=["float32", "int64"])
    def kernel(x: Any, y: Any = None, *, scale: float) -> Any:
        array = np.from_dlpack(x)
        return array * np.float32(scale), torch.tensor([array.size])

    data = model([node("Op", outputs=["y", "n"], scale=2.0)], outputs=[tensor("y"), tensor("n", "int64")])
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    y, n = run(data, x)
    np.testing.assert_array_equal(y, 2 * x)
    assert n == [x.size]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64"])
def test_numpys_arrays_are_results_of_dlpack_kernels(dtype: str, shape: tuple[int, ...]) -> None:
    @op(f"{DOMAIN}::Op", array="dlpack", inputs=[dtype])
    def kernel(x):
        return np.from_dlpack(x).T.copy()

    x = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    y = run(one_node("Op", dtype), x)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x.T)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda x: np.from_dlpack(x).astype(np.float64), "returned float64 for output 0; expected float32"),
        (lambda x: [1.0], "returned a list; expected an array with __dlpack__"),
    ],
)
def test_a_wrong_result_of_a_dlpack_kernel_is_refused(result: Callable[[Any], Any], said: str) -> None:
    @op(f"{DOMAIN}::Op", array="dlpack", inputs=["float32"], outputs=["float32"])
    def kernel(x: Any) -> Any:
        return result(x)

    with pytest.raises(ResultError, match=said):
        run(one_node("Op"), X)


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["plain", "nul \0 inside", "\udc80 is no UTF-8", "é (ort_ops failure 1)", "", "a\nb"]
)
def test_a_kernels_exception_is_the_cause(text: str) -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x):
        raise ValueError(text)

    with pytest.raises(
        KernelError, match=r"^kernel tests\..*kernel of node 'Op' failed: ValueError"
    ) as caught:
        run(one_node("Op"), X)
    assert type(caught.value.__cause__) is ValueError
    assert caught.value.__cause__.args == (text,)
    assert caught.value.__cause__.__traceback__ is not None


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_error_comes_through_as_it_is(interrupt: type[BaseException]) -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x):
        raise interrupt("stop")

    session = ort_ops.InferenceSession(one_node("Op"))
    with pytest.raises(interrupt, match="stop"):
        session.run(None, {"x": X})


def test_plain_onnxruntime_gets_the_traceback_as_text() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x):
        raise ValueError("in plain sight")

    options = onnxruntime.SessionOptions()
    ort_ops.register(options, [f"{DOMAIN}::Op"])
    session = onnxruntime.InferenceSession(one_node("Op"), options)
    with pytest.raises(Exception, match=r'(?s)node \'Op\' failed.*test_session.py", line \d+, in kernel'):
        session.run(None, {"x": X})


@pytest.mark.parametrize("array", ["numpy", "torch", "dlpack"])
def test_a_view_that_is_kept_is_found(array: Any) -> None:
    kept = []

    @op(f"{DOMAIN}::Op", array=array, inputs=["float32"], outputs=["float32"])
    def kernel(x: Any) -> Any:
        kept.append(x[:1] if array != "dlpack" else x)
        return np.zeros(3, np.float32) if array != "torch" else torch.zeros(3)

    with pytest.raises(ResultError, match="kept a view of an input or of out beyond its call"):
        run(one_node("Op"), X)


def test_a_result_against_the_models_shapes_is_refused() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x[:, :2]

    fixed = model([node("Op")], [tensor("x", shape=["n", 3])], [tensor("y", shape=["n", 3])])
    with pytest.raises(ResultError, match=r"output 0 has shape \(2, 2\) but the model says \(2, 3\)"):
        run(fixed, X)


def test_a_body_is_said_to_run_where_its_nodes_are() -> None:
    data = WITH_BODY
    several = onnxruntime.get_available_providers()
    (run,) = ort_ops.InferenceSession(data, providers=several).explain()
    # From release 1.24 on ONNX Runtime tells; before, it may be any of the session's.
    assert (run.runner, run.provider) == ("function body", CPU if ORT >= (1, 24) else "+".join(several))
    (run,) = ort_ops.InferenceSession(data, onnxruntime.SessionOptions(), providers=several).explain()
    assert set(run.provider.split("+")) <= set(several)


def test_a_kernel_defined_in_a_loop_serves_each_of_its_types() -> None:
    for dtype in (np.float32, np.float64):

        @op(f"{DOMAIN}::Op", inputs=[dtype], outputs=[dtype])
        def negative(x: Any) -> Any:
            return -x

    for dtype in (np.float32, np.float64):
        x = X.astype(dtype)
        assert run(one_node("Op", x.dtype.name), x).tolist() == (-X).tolist()


def test_an_output_of_several_types_for_one_of_an_input_is_refused() -> None:
    with pytest.raises(SchemaError, match="share a type variable"):

        @op(f"{DOMAIN}::Op")
        def kernel(x: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float32] | NDArray[np.float64]:
            return x


@pytest.mark.parametrize("more", [{"prefer": "body"}, {"ops": []}])
def test_options_with_a_kernel_from_before_say_that_it_can_not_be_left_out(more: dict[str, Any]) -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x

    options = onnxruntime.SessionOptions()
    data = WITH_BODY
    ort_ops.InferenceSession(data, options, providers=[CPU])
    ort_ops.InferenceSession(data, options, providers=[CPU])
    with pytest.raises(RegistrationError, match="from before, which is to be left out here"):
        ort_ops.InferenceSession(data, options, providers=[CPU], **more)


def test_a_preference_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="prefer='Body'; expected one of kernel, body"):
        ort_ops.InferenceSession(WITH_BODY, prefer="Body")  # type: ignore[arg-type]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_a_kernel_for_a_provider_that_is_not_there_leaves_the_body_in_plain_onnxruntime() -> None:
    @op(f"{DOMAIN}::Op", providers=[CUDA], array="torch")
    def kernel(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x

    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    session = onnxruntime.InferenceSession(WITH_BODY, options)
    assert session.run(None, {session.get_inputs()[0].name: X})[0].tolist() == (-X).tolist()


def test_a_file_in_onnxruntimes_own_format_runs(tmp_path: Any) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    data = model([builtin("Neg", ["x"], ["y"])], [tensor("x")], [tensor("y")])
    onnxruntime.InferenceSession(data, options)
    session = ort_ops.InferenceSession(tmp_path / "model.ort", providers=[CPU])
    assert session.run(None, {"x": X})[0].tolist() == (-X).tolist()
    assert session.explain() == ()


@pytest.mark.parametrize("outputs", [("a", "b", "c"), ("a", "", "c"), ("a", "b"), ("a",)])
@pytest.mark.parametrize("plain", [False, True])
def test_shapes_of_outputs_that_a_node_leaves_out_are_nobodys(outputs: tuple[str, ...], plain: bool) -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x: Any) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        return x + 1, x + 2, x + 3

    @kernel.infer
    def _(x: ort_ops.TensorType) -> Any:
        return (ort_ops.TensorType(np.dtype(np.float32), (2, 3)),) * 3

    named = [tensor(name) for name in outputs if name]
    data = model([node("Op", outputs=outputs)], outputs=named)
    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    session = onnxruntime.InferenceSession(data, options) if plain else ort_ops.InferenceSession(data)
    for value, info in zip(session.run(None, {"x": X}), named, strict=True):
        np.testing.assert_array_equal(value, X + 1 + "abc".index(info.name))
    told = [output.shape for output in session.get_outputs()]
    assert told[0] == [2, 3]
    assert plain or all(shape == [2, 3] for shape in told)


@pytest.mark.parametrize("outputs", [("a", "b"), ("a",)])
@pytest.mark.parametrize("array", ["numpy", "torch"])
def test_buffers_are_given_of_outputs_that_are_there(outputs: tuple[str, ...], array: Any) -> None:
    if array == "torch" and torch is None:
        pytest.skip("torch is missing")

    @op(f"{DOMAIN}::Op", array=array, inputs=[np.float32], outputs=[np.float32, np.float32])
    def kernel(x: Any, *, out: Any) -> None:
        for place, each in enumerate(out):
            if each is not None:
                each[...] = place

    @kernel.infer
    def _(x: ort_ops.TensorType) -> Any:
        return (x, x)

    data = model([node("Op", outputs=outputs)], outputs=[tensor(name) for name in outputs])
    results = ort_ops.InferenceSession(data).run(None, {"x": X})
    assert [set(result.flat) for result in results] == [{float(i)} for i in range(len(outputs))]


@pytest.mark.parametrize("shape", [["n", "m"], None])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("which", ["two", "optional", "left out", "many", "unknown", "one"])
def test_an_output_whose_shape_is_not_known_is_no_scalar(which: str, plain: bool, shape: Any) -> None:
    functions: dict[str, Callable[..., Any]] = {
        "two": lambda x, y: x,
        "many": lambda *xs: xs[0],
        "one": lambda x: x,
        "unknown": lambda x: x,
    }
    names = ["x"] if which in ("one", "unknown", "left out") else ["x", "y"]
    typed: Any = {"inputs": [np.float32], "outputs": [np.float32]} if which == "unknown" else {}
    kernel = op(f"{DOMAIN}::Op", **typed)(functions.get(which, lambda x, y=None: x))
    if which in ("unknown", "one"):
        kernel.infer(lambda x: ort_ops.TensorType(x.dtype, None))
    nodes = [node("Op", names, ["v"]), builtin("Shape", ["v"], ["s"])]
    data = model(nodes, [tensor(name, shape=shape) for name in names], [tensor("s", "int64")])
    options = onnxruntime.SessionOptions()
    ort_ops.register(options)
    session = onnxruntime.InferenceSession(data, options) if plain else ort_ops.InferenceSession(data)
    assert session.run(None, dict.fromkeys(names, X))[0].tolist() == [2, 3]


@pytest.mark.skipif(ORT < (1, 22), reason="a computed type needs 1.22")
def test_a_computed_type_without_a_rank_is_an_error() -> None:
    @op(f"{DOMAIN}::Op")
    def kernel(x, y):
        return x

    kernel.infer(lambda x, y: ort_ops.TensorType(x.dtype, None))
    with pytest.raises(Exception, match="expected its rank at least, or a declared type"):
        ort_ops.InferenceSession(model([node("Op", ["x", "x"])]))
