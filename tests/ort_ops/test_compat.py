"""ort_ops.compat beside onnxruntime-extensions, whose Python-op API it has."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import ort_ops
import ort_ops.compat as ox
from ort_ops.compat.casting import cast_exactly
from ort_ops.errors import KernelError, RegistrationError, ResultError, SchemaError

from .compat_programs import PROGRAMS, add_then_mul, floats, one_node, run
from .test_lazy import loaded_by

pytestmark = pytest.mark.needs("onnxruntime_extensions")  # which it is compared with

FLOAT, INT64, STRING, BOOL = ox.PyOp.dt_float, ox.PyOp.dt_int64, ox.PyOp.dt_string, ox.PyOp.dt_bool


def printed_by(*arguments: str) -> str:
    """What a fresh interpreter prints: onnxruntime-extensions can't be trusted in this one."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the same as onnxruntime-extensions -------------------------------------------------------------------


@pytest.fixture(scope="module")
def found_by_theirs() -> Any:
    return json.loads(printed_by("-m", "tests.ort_ops.compat_programs", "onnxruntime_extensions"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_finds_the_same_with_both(name: str, found_by_theirs: Any) -> None:
    assert found_by_theirs[name] is not None
    assert json.loads(json.dumps(PROGRAMS[name](ox))) == found_by_theirs[name]


MOVING = """
import numpy as np
import onnx
import onnxruntime
import onnxruntime_extensions
from onnx import TensorProto, helper


@onnxruntime_extensions.onnx_op(
    op_type="Scale",
    inputs=[onnxruntime_extensions.PyCustomOpDef.dt_float],
    attrs={"by": onnxruntime_extensions.PyCustomOpDef.dt_float},
)
def scale(x, by):
    return x * by


node = helper.make_node("Scale", ["x"], ["y"], domain=onnxruntime_extensions.default_opset_domain(), by=2.5)
ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])] for name in "xy"]
model = onnxruntime_extensions.make_onnx_model(helper.make_graph([node], "g", *ends))
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
session = onnxruntime.InferenceSession(model.SerializeToString(), options)
print(session.run(None, {"x": np.array([1, 2], np.float32)}))
print(onnxruntime_extensions.ort_inference(model, np.array([3], np.float32)))
"""


def test_code_moves_over_by_its_import_alone() -> None:
    line = "import onnxruntime_extensions\n"
    moved = MOVING.replace(line, "import ort_ops.compat as onnxruntime_extensions\n")
    assert moved != MOVING
    assert printed_by("-c", moved) == printed_by("-c", MOVING) != ""


def test_every_public_name_of_theirs_is_here_or_says_where_it_is() -> None:
    code = "import json, onnxruntime_extensions as o; print(json.dumps([*dir(o), *o.__all__]))"
    theirs = {name for name in json.loads(printed_by("-c", code)) if name[0] != "_"}
    modules_that_it_imports = {"numpy", "onnx", "onnx_proto", "onnxruntime"}
    for name in theirs - modules_that_it_imports - set(ox.__all__):
        with pytest.raises(AttributeError, match=rf"use\s+onnxruntime_extensions\.{name}\b"):
            getattr(ox, name)
    assert "OrtPyFunction" in theirs
    assert "GPT2Tokenizer" in theirs


def test_a_name_that_nobody_has_is_refused_without_a_hint() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ox.nothing


def test_all_is_what_is_there() -> None:
    assert all(hasattr(ox, name) for name in ox.__all__)
    assert sorted(set(ox.__all__)) == sorted(ox.__all__)


# --- what is cast, and what is refused --------------------------------------------------------------------

SURVIVES = [
    (np.array([1.5, np.nan, np.inf]), FLOAT),
    (np.array([2.0**24, -0.0]), FLOAT),
    (np.array([-(2.0**63), 2.0**62]), INT64),
    (np.array([1.0, 0.0]), BOOL),
    (np.array([2**64 - 2**11], np.uint64), ox.PyOp.dt_double),
    (np.array([255], np.int64), 2),
    (np.array([1.5], ">f8"), FLOAT),
    (np.zeros((0, 3), object), FLOAT),
    (np.zeros((0,)), INT64),
    (np.array([["a"], ["b"]]), STRING),
    (["a\0", ""], STRING),
    ([[1, 2], [3, 4]], FLOAT),
    ([], INT64),
    (2.0, INT64),
    (True, FLOAT),
    (0.5, 16),  # bfloat16
]


@pytest.mark.parametrize(("value", "element_type"), SURVIVES)
def test_a_cast_keeps_every_value(value: Any, element_type: int) -> None:
    cast = cast_exactly(value, element_type)
    expected = object if element_type == STRING else helper.tensor_dtype_to_np_dtype(element_type)
    assert cast.dtype == expected
    before = np.asarray(value, object)
    assert cast.shape == before.shape
    for one, other in zip(cast.astype(object).flat, before.flat, strict=True):
        assert one == other or (one != one and other != other)


LOST = [
    (np.array([1.5]), INT64, "float64 1.5 at (0,) would become int64 1"),
    (np.array([1, 0.1]), FLOAT, "float64 0.1 at (1,) would become float32 0.1"),
    (np.array([1e300]), FLOAT, "would become float32 inf"),
    (np.array([2.0**63]), INT64, "don't survive"),
    (np.array([np.nan]), INT64, "don't survive"),
    (np.array([[2**24, 2**24 + 1]]), FLOAT, "int64 16777217 at (0, 1)"),
    (np.array([2**63 - 1]), 11, "don't survive"),
    (np.array([2**64 - 1], np.uint64), 11, "don't survive"),
    (np.array([-1]), 13, "don't survive"),
    (np.array([2**64 - 1], np.uint64), INT64, "don't survive"),
    (np.array([65536]), 10, "would become float16 inf"),
    (2, BOOL, "int64 2 at () would become bool True"),
    ([2**53 + 1, 0.5], 11, "9007199254740993 would be rounded"),
    ([[1], [1, 2]], FLOAT, "inhomogeneous"),
]


@pytest.mark.parametrize(("value", "element_type", "message"), LOST)
def test_a_value_that_would_not_survive_is_an_error(value: Any, element_type: int, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below
        cast_exactly(value, element_type)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [None, "text", [None], np.array([1j]), np.array(["a"]), object()])
def test_what_is_no_number_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match="expected float32"):
        cast_exactly(value, FLOAT)


@pytest.mark.parametrize("value", [1, [1.0], np.array([1]), None, ["a", 1]])
def test_what_is_no_string_is_no_string(value: Any) -> None:
    with pytest.raises(TypeError, match="expected str"):
        cast_exactly(value, STRING)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, r"result for output 0: it is None \(did the function forget its return\?\)"),
        (np.array([0.1]), "would become float32"),
        ((floats(1), floats(1)), "returned 2 results; expected one for each of 1 outputs"),
        (["a"], "expected float32"),
    ],
)
def test_a_wrong_result_is_an_exception_and_the_session_goes_on(result: Any, message: str) -> None:
    given = [result, floats(7)]
    ox.Opdef.create(lambda x: given.pop(0), op_type="Wrong")
    function = ox.OrtPyFunction(one_node("Wrong", [FLOAT], [FLOAT]))
    with pytest.raises(ResultError, match=message):
        function(floats(1))
    assert function(floats(1)).tolist() == [7]


def test_lists_and_scalars_are_results() -> None:
    ox.Opdef.create(lambda x: [x, 2], op_type="Two", outputs=[FLOAT, INT64])
    ox.Opdef.create(lambda x: [[1, 2], [3, 4]], op_type="Nested")
    two = ox.ort_inference(one_node("Two", [FLOAT], [FLOAT, INT64]), floats(1))
    assert [(r.dtype, r.shape) for r in two] == [(np.float32, (1,)), (np.int64, ())]
    assert ox.ort_inference(one_node("Nested", [FLOAT], [FLOAT]), floats(1)).tolist() == [[1, 2], [3, 4]]


def test_an_exception_in_a_function_is_an_exception() -> None:
    @ox.onnx_op(op_type="Fails")
    def fails(x):
        raise ValueError("no")

    model = one_node("Fails", [FLOAT], [FLOAT])
    with pytest.raises(ox.ONNXRuntimeError, match=r"of node 'node' failed.*: ValueError: no[\s\S]*Traceback"):
        run(ox, model, floats(1))
    with pytest.raises(KernelError) as caught:
        ox.ort_inference(model, floats(1))
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_theirs_corrupts_comes_through_whole() -> None:
    ox.Opdef.create(lambda x: x, op_type="Big", inputs=[13], outputs=[13])
    big = np.array([2**64 - 1, 2**53 + 1], np.uint64)
    assert (ox.ort_inference(one_node("Big", [13], [13]), big) == big).all()
    ox.Opdef.create(lambda x: x * 2.0, op_type="Double", inputs=[INT64], outputs=[INT64])
    assert ox.ort_inference(one_node("Double", [INT64], [INT64]), np.array([1, -2])).tolist() == [2, -4]
    ox.Opdef.create(lambda x, f: x * f, op_type="Tiny", inputs=[11], outputs=[11], attrs={"f": FLOAT})
    tiny = ox.ort_inference(one_node("Tiny", [11], [11], f=1 / 3), np.array([1.0]))
    assert tiny.tolist() == [float(np.float32(1 / 3))]  # all of its bits, not six digits
    ox.Opdef.create(lambda x: x, op_type="Nul", inputs=[STRING], outputs=[STRING])
    texts = np.array(["a\0b", "\0", ""], object)
    assert ox.ort_inference(one_node("Nul", [STRING], [STRING]), texts).tolist() == texts.tolist()


@pytest.mark.parametrize("element_type", [ox.PyOp.dt_float16, ox.PyOp.dt_bfloat16])
def test_half_precision_works(element_type: int) -> None:
    ox.Opdef.create(lambda x: x + x, op_type="Half", inputs=[element_type], outputs=[element_type])
    x = np.array([1.5, -2], helper.tensor_dtype_to_np_dtype(element_type))
    y = ox.ort_inference(one_node("Half", [element_type], [element_type]), x)
    assert y.dtype == x.dtype
    assert (y == x + x).all()


# --- declarations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": [ox.PyOp.dt_complex64]}, "Bad: input 0: ONNX element type 14"),
        ({"outputs": [FLOAT, 99]}, "Bad: output 1: ONNX element type 99"),
        ({"attrs": {"a": ox.PyOp.dt_double}}, "attribute 'a' is of type 11; expected dt_int64, dt_float"),
        ({"op_type": "a::b::Bad"}, "names no operator; expected 'Name' or 'domain::Name'"),
        ({"op_type": "a::"}, "names no operator"),
    ],
)
def test_a_declaration_that_can_not_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        ox.onnx_op(**{"op_type": "Bad", **arguments})(lambda x: x)


def test_a_decorator_without_its_call_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"expected @onnx_op\(\)"):

        @ox.onnx_op
        def bare(x): ...


def test_the_first_argument_is_the_op_type() -> None:
    opdef = ox.onnx_op("Positional", [FLOAT], [FLOAT], ["a"])(lambda x, a: x)
    assert (opdef.op_type, opdef(3, "a")) == ("Positional", 3)


def test_a_function_defined_anew_replaces_itself_and_another_is_refused() -> None:
    def define(plus: int) -> Any:
        @ox.onnx_op(op_type="Anew")
        def function(x):
            return x + plus

        return function

    model = one_node("Anew", [FLOAT], [FLOAT])
    before = define(1), ox.OrtPyFunction(model)
    assert before[1](floats(1)).tolist() == [2]
    define(2)
    assert run(ox, model, floats(1))[0][2] == [3]
    assert before[1](floats(1)).tolist() == [2]
    with pytest.raises(RegistrationError, match="kernels for the same operator"):
        ox.onnx_op(op_type="Anew")(lambda x: x)


def test_a_declaration_by_hand() -> None:
    opdef = ox.Opdef("ByHand", lambda x: x + 1)
    declared = ox.PyCustomOpDef()
    declared.op_type, declared.obj_id = opdef.op_type, id(opdef)
    declared.input_types = declared.output_types = [FLOAT]
    with pytest.raises(SchemaError, match=r"'ByHand': no Opdef has the id \d+"):
        ox.add_custom_op(declared)
    declared.obj_id = id(ox.Opdef.create(lambda x: x + 2, op_type="Other"))
    ox.add_custom_op(declared)
    assert run(ox, one_node("ByHand", [FLOAT], [FLOAT]), floats(1))[0][2] == [3]


@pytest.mark.parametrize("size", [0, -1, 2**64])
def test_a_number_of_buckets_that_can_not_be(size: int) -> None:
    with pytest.raises(ValueError, match=rf"num_buckets is {size}; expected 1 to"):
        ox.hash_64("a", size, True)


# --- models -----------------------------------------------------------------------------------------------


def test_hooks_on_nodes_that_share_a_value() -> None:
    found = []
    model = add_then_mul(ox)
    model.graph.node.append(helper.make_node("Mul", ["y", "y"], ["z"], "square"))
    model.graph.output[0].name = "z"
    for name in ("add", "mul", "square"):
        ox.hook_model_op(model, name, lambda *x: found.append([a.tolist() for a in x]) or x, [FLOAT, FLOAT])
    assert ox.ort_inference(model, floats(1), floats(2)).tolist() == [36]
    assert found == [[[1], [2]], [[3], [2]], [[6], [6]]]


def test_a_hook_leaves_an_absent_input_absent() -> None:
    clip = helper.make_node("Clip", ["x", "", "high"], ["y"], "a::clip")
    ends = [helper.make_tensor_value_info(n, FLOAT, s) for n, s in (("x", ["n"]), ("high", []), ("y", ["n"]))]
    model = ox.make_onnx_model(helper.make_graph([clip], "g", ends[:2], ends[2:]))
    ox.hook_model_op(model, "a::clip", lambda x, high: (x, high - 1), [FLOAT, FLOAT])
    onnx.checker.check_model(model)
    assert ox.ort_inference(model, floats(1, 9), np.array(5, np.float32)).tolist() == [1, 4]


def test_replaced_inputs_leave_a_valid_model() -> None:
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"])
    made = ox.expand_onnx_inputs(add_then_mul(ox), "a", [helper.make_node("Neg", ["z"], ["a"])], [z])
    onnx.checker.check_model(made)  # so the nodes are in order


@pytest.mark.parametrize("op_type", ["Registered", "some.domain::Registered"])
def test_a_registered_operator_as_a_function_by_its_name(op_type: str) -> None:
    @ox.onnx_op(op_type=op_type, inputs=[FLOAT, INT64], attrs={"k": INT64})
    def registered(x, n, k):
        return x * int(n.sum()) * k

    assert ox.OrtPyFunction.from_customop(op_type, k=3)(floats(1), 2).tolist() == [6]


def test_an_operator_of_theirs_as_a_function_says_where_it_is() -> None:
    with pytest.raises(RegistrationError, match=r"'GPT2Tokenizer' is no operator .* onnxruntime-extensions"):
        ox.OrtPyFunction.from_customop("GPT2Tokenizer")


def test_arguments_that_do_not_fit_are_refused() -> None:
    function = ox.OrtPyFunction(add_then_mul(ox))
    with pytest.raises(TypeError, match="got 1 arguments; expected 2: a, b"):
        function(floats(1))
    with pytest.raises(TypeError, match="got 3 arguments; expected 2: a, b"):
        function(floats(1), floats(1), floats(1))
    assert function(floats(1), b=floats(2)).tolist() == [6]
    with pytest.raises(ValueError, match="no model is attached"):
        _ = ox.OrtPyFunction().onnx_model


def test_an_argument_for_int64_keeps_its_value_or_is_refused() -> None:
    ox.Opdef.create(lambda x: x, op_type="Int", inputs=[INT64], outputs=[INT64])
    function = ox.OrtPyFunction(one_node("Int", [INT64], [INT64]))
    assert function([1, 2]).tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"input 'x0': float64 1\.5 at .* would become int64 1"):
        function(np.array([1.5]))


def test_a_number_becomes_what_the_input_is() -> None:
    ox.Opdef.create(lambda x: x, op_type="Number")
    function = ox.OrtPyFunction(one_node("Number", [FLOAT], [FLOAT]))
    assert function(1.5).tolist() == 1.5
    with pytest.raises(ValueError, match="would become float32"):
        function(0.1)


# --- sessions ---------------------------------------------------------------------------------------------


def test_plain_onnxruntime_is_given_what_compat_registered_and_no_other_of_that_domain() -> None:
    ox.onnx_op(op_type="Mine")(lambda x: x + 1)
    ort_ops.onnx_op("ai.onnx.contrib::NotCompats")(lambda x: x)
    assert run(ox, one_node("Mine", [FLOAT], [FLOAT]), floats(1))[0][2] == [2]
    with pytest.raises(ox.ONNXRuntimeError, match="NotCompats"):
        run(ox, one_node("NotCompats", [FLOAT], [FLOAT]), floats(1))


def test_registering_twice_and_an_operator_added_after_a_session() -> None:
    options = onnxruntime.SessionOptions()
    ox.onnx_op(op_type="Early")(lambda x: x + 1)
    for _ in range(2):
        options.register_custom_ops_library(ox.get_library_path())
    model = one_node("Early", [FLOAT], [FLOAT]).SerializeToString()
    session = onnxruntime.InferenceSession(model, options)
    ox.onnx_op(op_type="Late")(lambda x: x + 2)
    assert run(ox, one_node("Late", [FLOAT], [FLOAT]), floats(1))[0][2] == [3]
    assert session.run(None, {"x0": floats(1)})[0].tolist() == [2]


BOTH = """
import sys
import numpy as np
import onnxruntime
import onnxruntime_extensions as theirs
import ort_ops
import ort_ops.compat as ours
from onnx import helper

@ours.onnx_op(op_type=sys.argv[1])
def ours_op(x):
    return x + 1

@theirs.onnx_op(op_type="Theirs")
def theirs_op(x):
    return x * 10

domain = "my.domain" if sys.argv[1] != "Ours" else "ai.onnx.contrib"
nodes = [helper.make_node("Ours", ["x"], ["t"], domain=domain)]
nodes += [helper.make_node("Theirs", ["t"], ["y"], domain="ai.onnx.contrib")]
ends = [[helper.make_tensor_value_info(name, 1, ["n"])] for name in "xy"]
model = ours.make_onnx_model(helper.make_graph(nodes, "g", *ends), extra_domain="ai.onnx.contrib")
model.opset_import.extend([helper.make_opsetid("my.domain", 1)])
for order in ([ours, theirs], [theirs, ours]):
    for make in eval(sys.argv[2]):
        options = onnxruntime.SessionOptions()
        for library in order:
            options.register_custom_ops_library(library.get_library_path())
        try:
            session = make(model.SerializeToString(), options)
            print(session.run(None, {"x": np.array([1], np.float32)})[0].tolist())
        except ort_ops.errors.RegistrationError as error:
            print(error)
"""
SESSIONS = "[onnxruntime.InferenceSession, ort_ops.InferenceSession]"


def test_both_libraries_work_in_one_session_when_their_domains_differ() -> None:
    assert printed_by("-c", BOTH, "my.domain::Ours", SESSIONS).split() == ["[20.0]"] * 4


def test_both_libraries_in_one_domain_are_one_error_that_names_both() -> None:
    printed = printed_by("-c", BOTH, "Ours", "[ort_ops.InferenceSession]").splitlines()
    assert len(printed) == 2
    for line in printed:
        assert "ort_ops and onnxruntime-extensions both register" in line


# --- what is loaded ---------------------------------------------------------------------------------------


def test_importing_loads_nothing_heavy() -> None:
    assert loaded_by("import ort_ops.compat; ort_ops.compat.onnx_op()(lambda x: x)") == set()


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("make_onnx_model", lambda: ox.make_onnx_model(None)),
        ("hook_model_op", lambda: ox.hook_model_op(None, "n", print, [])),
        ("expand_onnx_inputs", lambda: ox.expand_onnx_inputs(None, "x", [], [])),
        ("OrtPyFunction", lambda: ox.OrtPyFunction("model.onnx")),
    ],
)
def test_without_onnx_what_needs_it_says_so(what: str, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=rf"ort_ops\.compat\.{what} needs the onnx package: pip"):
        call()
