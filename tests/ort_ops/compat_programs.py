"""Code that moves over: small programs on the Python-op API, each given the library that it is to use.

``python -m tests.ort_ops.compat_programs LIBRARY`` prints what each found, as JSON;
``onnxruntime_extensions`` and ``ort_ops.compat`` have to find the same. Neither is imported here. Each
program has a process of its own and defines its operators before it makes a session, since
onnxruntime-extensions can't take one more afterwards.
"""

import importlib
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

CONTRIB = "ai.onnx.contrib"
PROGRAMS: dict[str, Callable[[Any], Any]] = {}


def program(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    PROGRAMS[function.__name__] = function
    return function


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


def one_node(
    op: str, inputs: list[int], outputs: list[int], *, domain: str = CONTRIB, **attributes: Any
) -> Any:
    """A model of one node; ``inputs`` and ``outputs`` are element types."""
    ins = [helper.make_tensor_value_info(f"x{i}", t, None) for i, t in enumerate(inputs)]
    outs = [helper.make_tensor_value_info(f"y{i}", t, None) for i, t in enumerate(outputs)]
    names = [[end.name for end in ends] for ends in (ins, outs)]
    node = helper.make_node(op, *names, name="node", domain=domain, **attributes)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]
    return helper.make_model(helper.make_graph([node], "g", ins, outs), opset_imports=opsets, ir_version=8)


def add_then_mul(ox: Any) -> Any:
    """A model of built-in nodes: (a + b) * b."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["t"], "add"),
        helper.make_node("Mul", ["t", "b"], ["y"], "mul"),
    ]
    a, b, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "aby")
    return ox.make_onnx_model(helper.make_graph(nodes, "g", [a, b], [y]))


def run(ox: Any, model: Any, *arrays: Any) -> list[Any]:
    """The outputs by plain onnxruntime with the library registered."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(ox.get_library_path())
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {i.name: array for i, array in zip(session.get_inputs(), arrays, strict=True)}
    return [seen(output) for output in session.run(None, feed)]


def seen(array: Any) -> Any:
    return [str(array.dtype), list(array.shape), array.tolist()]


@program
def one_float_in_one_out_by_default(ox: Any) -> Any:
    @ox.onnx_op()
    def Defaulted(x):  # noqa: N802  # the operator's name
        return x * 2

    return (
        Defaulted.op_type,
        seen(Defaulted(floats(1))),
        run(ox, one_node("Defaulted", [1], [1]), floats(1, 2)),
    )


@program
def an_attribute_that_was_not_declared(ox: Any) -> Any:
    ox.onnx_op(op_type="Undeclared")(lambda x: x)
    model = one_node("Undeclared", [1], [1], by=2.0)
    return [run(ox, model, floats(1)), seen(ox.ort_inference(model, floats(1)))]


@program
def shapes_of_inputs(ox: Any) -> Any:
    @ox.onnx_op(op_type="Shape_", outputs=[ox.PyOp.dt_int64])
    def shape(x):
        return np.array(x.shape, np.int64)

    model = one_node("Shape_", [1], [7])
    return [run(ox, model, np.zeros(s, np.float32)) for s in ((), (0,), (0, 3), (2, 0), (3, 1, 2))]


@program
def every_type_that_it_has(ox: Any) -> Any:
    names = ("float", "double", "uint8", "int8", "uint16", "int16", "int32", "int64", "uint32", "bool")
    types = [getattr(ox.PyCustomOpDef, f"dt_{name}") for name in names]
    for t in types:
        ox.Opdef.create(lambda x: x, op_type=f"Same{t}", inputs=[t], outputs=[t])
    arrays = [np.array([0, 1, 100]).astype(helper.tensor_dtype_to_np_dtype(t)) for t in types]
    return [run(ox, one_node(f"Same{t}", [t], [t]), a) for t, a in zip(types, arrays, strict=True)]


@program
def type_numbers(ox: Any) -> Any:
    return {name: getattr(ox.PyOp, name) for name in dir(ox.PyOp) if name[:3] == "dt_" or name == "undefined"}


@program
def attributes_by_a_list_of_names(ox: Any) -> Any:
    @ox.onnx_op(op_type="Named", attrs=["a", "b"])
    def named(x, **attributes):
        return x * len(attributes["a"]) + len(attributes["b"])

    return run(ox, one_node("Named", [1], [1], a="ä", b=""), floats(1, 2))


@program
def attributes_by_a_mapping_to_types(ox: Any) -> Any:
    got = {}

    @ox.onnx_op(
        op_type="Typed", attrs={"i": ox.PyOp.dt_int64, "f": ox.PyOp.dt_float, "lambda": ox.PyOp.dt_string}
    )
    def typed(x, i, f, **rest):
        got.update(rest, i=i, f=f)
        return x

    run(ox, one_node("Typed", [1], [1], i=2**60 + 1, f=0.5, **{"lambda": "s"}), floats(1))
    return dict(sorted(got.items()))


@program
def attributes_that_are_not_there_or_of_another_type(ox: Any) -> Any:
    @ox.onnx_op(op_type="Strict", attrs={"k": ox.PyOp.dt_int64})
    def strict(x, k):
        return x * k

    found = []
    for given in ({}, {"k": 1.0}, {"k": "1"}, {"k": 3, "unknown": 1}):
        try:
            found.append(run(ox, one_node("Strict", [1], [1], **given), floats(2)))
        except ox.ONNXRuntimeException:
            found.append("ONNXRuntimeException")
    return found


@program
def several_outputs(ox: Any) -> Any:
    @ox.onnx_op(op_type="Several", inputs=[1, 7], outputs=[ox.PyOp.dt_float, ox.PyOp.dt_int64])
    def several(x, n):
        return x.sum(), np.stack([n, n])

    return run(ox, one_node("Several", [1, 7], [1, 7]), floats(1, 2), np.array([3, 4]))


@program
def no_inputs(ox: Any) -> Any:
    @ox.onnx_op(op_type="Three", inputs=[])
    def three():
        return floats(3)

    return run(ox, one_node("Three", [], [1]))


@program
def any_type(ox: Any) -> Any:
    @ox.onnx_op(op_type="AnyType", inputs=[ox.PyOp.undefined], outputs=[ox.PyOp.undefined])
    def any_type(x):
        return x

    return run(ox, one_node("AnyType", [7], [7]), np.array([5]))


@program
def overloads_by_type(ox: Any) -> Any:
    @ox.onnx_op(op_type="Over")
    def of_floats(x):
        return x + 1

    @ox.onnx_op(op_type="Over", inputs=[ox.PyOp.dt_int64], outputs=[ox.PyOp.dt_int64])
    def of_integers(x):
        return x + 2

    return [
        run(ox, one_node("Over", [1], [1]), floats(1)),
        run(ox, one_node("Over", [7], [7]), np.array([1])),
    ]


@program
def inputs_are_the_functions_own(ox: Any) -> Any:
    kept = []

    @ox.onnx_op(op_type="Writes")
    def writes(x):
        x[:1] = 7
        kept.append(x)
        return x

    given = floats(1, 2)
    return run(ox, one_node("Writes", [1], [1]), given), seen(given), seen(kept[0])


@program
def results_of_other_types_whose_values_survive(ox: Any) -> Any:
    import torch

    results = {
        "float64": lambda x: x.astype(np.float64) / 2,
        "int64": lambda x: x.astype(np.int64),
        "bool": lambda x: x > 1,
        "scalar": lambda x: x.sum(),
        "objects": lambda x: np.array([1.0, 0.5], object),
        "transposed": lambda x: np.stack([x, x + 1]).T,
        "tuple": lambda x: (x,),
        "torch": lambda x: torch.from_numpy(x) * 2,
        "torch with a gradient": lambda x: torch.from_numpy(x).requires_grad_() * 2,
        "torch in bfloat16": lambda x: torch.from_numpy(x).bfloat16(),
    }
    for number, function in enumerate(results.values()):
        ox.Opdef.create(function, op_type=f"Result{number}")
    runs = [run(ox, one_node(f"Result{i}", [1], [1]), floats(1, 2)) for i in range(len(results))]
    return dict(zip(results, runs, strict=True))


@program
def strings(ox: Any) -> Any:
    @ox.onnx_op(op_type="Upper", inputs=[ox.PyOp.dt_string], outputs=[ox.PyOp.dt_string])
    def upper(x):
        return np.array([text.upper() for text in x.flat]).reshape(x.shape)

    @ox.onnx_op(op_type="Length", inputs=[ox.PyOp.dt_string], outputs=[ox.PyOp.dt_int64])
    def length(x):
        return np.array([len(text) for text in x.flat], np.int64).reshape(x.shape)

    @ox.onnx_op(op_type="Bytes", inputs=[ox.PyOp.dt_string], outputs=[ox.PyOp.dt_string])
    def as_bytes(x):
        return np.array([text.encode() for text in x.flat], object)

    cases = [np.array(texts, object) for texts in (["ab", "ü字", ""], [["a", "bb"]], [])]
    found = [run(ox, one_node("Upper", [8], [8]), case) for case in cases if case.size]
    found += [run(ox, one_node("Length", [8], [7]), case) for case in cases]
    return [*found, run(ox, one_node("Bytes", [8], [8]), cases[0])]


@program
def callables_that_are_no_functions(ox: Any) -> Any:
    class PlusFive:
        def __call__(self, x):
            return x + 5

    ox.Opdef.create(PlusFive(), op_type="PlusFive")
    ox.Opdef.create(np.negative, op_type="Negative")
    return [run(ox, one_node(op, [1], [1]), floats(1)) for op in ("PlusFive", "Negative")]


@program
def disabling_python_operators(ox: Any) -> Any:
    ox.Opdef.create(np.square, op_type="Square")
    model = one_node("Square", [1], [1])
    answers = [ox.enable_py_op(False), ox.enable_py_op(False)]
    try:
        run(ox, model, floats(1))
    except ox.ONNXRuntimeError as error:
        answers.append("not a registered function/op" in str(error))
    return [*answers, ox.enable_py_op(True), ox.enable_py_op(True), run(ox, model, floats(1))]


@program
def hashes(ox: Any) -> Any:
    texts = ["", "a", "abcdefg", "abcdefgh", "abcdefghi", "ü字", *("0123456789abcdef" * 4)[:17:3], "x" * 1001]
    sizes = (1, 100, 2**40, 2**63 - 1, 2**64 - 1)
    return [ox.hash_64(text, size, fast) for text in texts for size in sizes for fast in (False, True, 0, 1)]


@program
def a_model_made(ox: Any) -> Any:
    graph = add_then_mul(ox).graph
    models = [ox.make_onnx_model(graph), ox.make_onnx_model(graph, 15, "d", 2)]
    return ox.default_opset_domain(), [model.SerializeToString().hex() for model in models]


@program
def a_node_hooked(ox: Any) -> Any:
    calls = []

    def hook(t, b):
        calls.append([seen(t), seen(b)])
        return t, b + 1

    model = add_then_mul(ox)
    hooked = ox.hook_model_op(model, "mul", hook, [ox.PyOp.dt_float] * 2)
    nodes = [[n.op_type, n.name, n.domain, list(n.input), list(n.output)] for n in hooked.graph.node]
    opsets = [(o.domain, o.version) for o in hooked.opset_import]
    return hooked is model, nodes, opsets, run(ox, hooked, floats(1, 2), floats(3, 4)), calls


@program
def a_node_that_is_not_there(ox: Any) -> Any:
    try:
        ox.hook_model_op(add_then_mul(ox), "nothing", lambda *x: x, [1])
    except ValueError:
        return "ValueError"


@program
def inputs_replaced(ox: Any) -> Any:
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"])
    model = add_then_mul(ox)
    made = ox.expand_onnx_inputs(model, "a", [helper.make_node("Neg", ["z"], ["a"], "neg")], [z])
    names = [i.name for i in made.graph.input], [i.name for i in model.graph.input]
    return names, made is model, run(ox, made, floats(3, 4), floats(1, 2))


@program
def a_model_as_a_function(ox: Any) -> Any:
    model = add_then_mul(ox)
    function = ox.OrtPyFunction.from_model(model, cpu_only=True)
    found = [function.input_names, function.output_names, function.onnx_model is model]
    found += [[i.name for i in function.inputs], [o.name for o in function.outputs]]
    found += [function.execution_providers, dict(function.default_inputs), function.ort_session is None]
    found += [seen(function(floats(1), floats(2))), seen(function(floats(1), floats(2), b=floats(5)))]
    function.add_default_input(b=floats(3))
    found += [seen(function(floats(1))), seen(function(floats(1), b=floats(4)))]
    function.extra_session_options["log_severity_level"] = 3
    found += [function.get_ort_session_options().log_severity_level, ox.PyOrtFunction is ox.OrtPyFunction]
    return found


@program
def a_model_from_a_file(ox: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path, out = str(Path(folder, "model.onnx")), str(Path(folder, "optimized.onnx"))
        model = ox.hook_model_op(add_then_mul(ox), "add", lambda *x: x, [1, 1])
        onnx.save(model, path)
        found = [seen(ox.OrtPyFunction(path)(floats(1), floats(2)))]
        found += [seen(ox.ort_inference(m, floats(1), floats(2), cpu_only=True)) for m in (path, model)]
        for given in (path, model):
            ox.optimize_model(given, out)
            found.append([node.op_type for node in onnx.load(out).graph.node])
        return found


@program
def numbers_and_lists_as_arguments(ox: Any) -> Any:
    @ox.onnx_op(op_type="Integers", inputs=[ox.PyOp.dt_int64], outputs=[ox.PyOp.dt_int64])
    def integers(x):
        return x

    ox.Opdef.create(lambda x: x, op_type="Bytes", inputs=[ox.PyOp.dt_uint8], outputs=[ox.PyOp.dt_uint8])
    ox.Opdef.create(np.square, op_type="Square")
    model = one_node("Integers", [7], [7])
    found = [seen(ox.ort_inference(model, x)) for x in (3, True, np.array([1, 2], np.int32), np.array([2.0]))]
    function = ox.OrtPyFunction(one_node("Bytes", [2], [2]))
    function.add_default_input(x0=b"ab")
    return [*found, seen(function()), seen(ox.ort_inference(one_node("Square", [1], [1]), [1.0, 2.0]))]


@program
def a_class_for_an_operator(ox: Any) -> Any:
    class Scaled(ox.CustomOp):
        @classmethod
        def get_inputs(cls):
            return [cls.io_def("a", TensorProto.FLOAT, [None])]

        @classmethod
        def get_outputs(cls):
            return [cls.io_def("b", TensorProto.FLOAT, [None])]

        @classmethod
        def serialize_attr(cls, attrs):
            return {name: 2 * value for name, value in attrs.items()}

    class Derived(Scaled): ...

    class Converter(ox.CustomOpConverter):
        def __call__(self, **kwargs):
            return {"k": kwargs["half"] * 2}

    @ox.onnx_op(op_type="Scaled", attrs={"k": ox.PyOp.dt_int64})
    def scaled(x, k):
        return x * k

    functions = [
        ox.OrtPyFunction.from_customop(Scaled, k=1, cpu_only=True),
        ox.OrtPyFunction().create_from_customop(Derived, k=2),
        ox.OrtPyFunction.from_customop(Scaled, cvt=Converter(), half=3),
        ox.OrtPyFunction.from_customop(Scaled, Converter(), half=4),
    ]
    return [(f.onnx_model.graph.node[0].op_type, f.input_names, seen(f(floats(1)))) for f in functions]


@program
def a_domain_of_its_own(ox: Any) -> Any:
    @ox.onnx_op(op_type="my.domain::Own")
    def own(x):
        return x + 1

    before = ox.enable_py_op(False)  # of no effect on other domains than the default one
    # A single session: onnxruntime-extensions registers such a domain wrongly from the second on.
    found = run(ox, one_node("Own", [1], [1], domain="my.domain"), floats(1))
    return own.op_type, before, found, ox.enable_py_op(before)


def each_in_a_process(library: Any) -> dict[str, Any]:
    """What each program found; None where its process did not live to tell."""
    context, found = multiprocessing.get_context("fork"), {}
    for name, function in PROGRAMS.items():
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=lambda f=function, w=writer: w.send(f(library)))
        process.start()
        process.join(60)
        found[name] = reader.recv() if process.exitcode == 0 else None
    return found


if __name__ == "__main__":
    print(json.dumps(each_in_a_process(importlib.import_module(sys.argv[1]))))
