import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import ort_ops
from ort_ops.builtin import TELLS_OVERLOADS_APART
from ort_ops.dtypes import type_name
from ort_ops.errors import ModelError, ProviderError
from ort_ops.inspection import CustomNodes, Inspection, inspect_model
from ort_ops.providers import CPU, CUDA

from .models import DOMAIN, builtin, function, model, node, one_node, tensor


@pytest.fixture(autouse=True)
def _kernels() -> None:
    """The kernels that every test here has: of any type, of float32 alone, and some that can't run."""

    @ort_ops.onnx_op(f"{DOMAIN}::Any")
    def any_type(x): ...

    @ort_ops.onnx_op(f"{DOMAIN}::Float", "::Float")
    def float_only(x: NDArray[np.float32], y: NDArray[np.float32] | None = None): ...

    @ort_ops.onnx_op(f"{DOMAIN}::Cuda", providers=[CUDA], array="torch")
    def on_cuda(x): ...

    @ort_ops.onnx_op(f"{DOMAIN}::Newer", version=3)
    def newer(x): ...


def inspect(data: bytes, **options: Any) -> Inspection:
    return inspect_model(data, [CPU], **options)


def runners(found: Inspection) -> dict[str, str]:
    return {f"{nodes.op_type} in {nodes.inside}".removesuffix(" in "): nodes.runner for nodes in found.custom}


def body(op: str, *nodes: onnx.NodeProto) -> Any:
    return function(op, ["a"], ["b"], *(nodes or [builtin("Neg", ["a"], ["b"])]))


def inner(op: str) -> onnx.NodeProto:
    return node(op, ["a"], ["b"])


def double(*nodes: onnx.NodeProto, **options: Any) -> bytes:
    return model(nodes, [tensor("x", "float64")], [tensor("y", "float64")], **options)


def choice(then: str, otherwise: str) -> bytes:
    """A model with an If whose branches hold one custom node each."""
    branches = {
        f"{which}_branch": helper.make_graph([node(op, ["x"], ["b"])], which, [], [tensor("b")])
        for which, op in (("then", then), ("else", otherwise))
    }
    return model([builtin("If", ["on"], ["y"], **branches)], [tensor("x"), tensor("on", "bool", [])])


def loop(op: str) -> bytes:
    """A model with a Loop that has one custom node in its body."""
    inputs = [tensor("i", "int64", []), tensor("more", "bool", []), tensor("v")]
    nodes = [builtin("Identity", ["more"], ["again"]), node(op, ["v"], ["w"])]
    graph = helper.make_graph(nodes, "body", inputs, [tensor("again", "bool", []), tensor("w")])
    ends = [tensor("n", "int64", []), tensor("on", "bool", []), tensor("x")]
    return model([builtin("Loop", ["n", "on", "x"], ["y"], body=graph)], ends)


def foreign(domain: str, op: str, **options: Any) -> bytes:
    """A model of one node in another domain than the tests', which it imports unless told otherwise."""
    imports = options.pop("imports", [("", 18), (domain, 1)] if domain else [("", 18)])
    overload = options.pop("overload", "")
    made = helper.make_node(op, ["x"], ["y"], domain=domain, name=op, overload=overload)
    graph = helper.make_graph([made], "g", [tensor("x")], [tensor("y")])
    opsets = [helper.make_opsetid(*each) for each in imports]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **options).SerializeToString()


def body_in(domain: str, op: str, overload: str = "") -> Any:
    opsets = [helper.make_opsetid("", 18)]
    nodes = [builtin("Neg", ["a"], ["b"])]
    return helper.make_function(domain, op, ["a"], ["b"], nodes, opsets, overload=overload)


# What runs each custom node: the model, and what is said of it.
CASES: dict[str, tuple[Callable[[], bytes], dict[str, str]]] = {
    "no custom node": (lambda: model([builtin("Neg", ["x"], ["y"])]), {}),
    "kernel": (lambda: one_node("Any"), {"Any": "kernel"}),
    "kernel of this type": (lambda: one_node("Float"), {"Float": "kernel"}),
    "kernel, absent optional": (lambda: model([node("Float", ["x", ""])]), {"Float": "kernel"}),
    "kernel in the default domain": (lambda: foreign("", "Float"), {"Float": "kernel"}),
    "kernel before the body": (
        lambda: model([node("Any")], functions=[body("Any")]),
        {"Any": "kernel"},
    ),
    "body": (lambda: model([node("Op")], functions=[body("Op")]), {"Op": "function body"}),
    "body, the kernel's type is another": (
        lambda: double(node("Float"), functions=[body("Float")]),
        {"Float": "function body"},
    ),
    "body, the kernel is for CUDA": (
        lambda: model([node("Cuda")], functions=[body("Cuda")]),
        {"Cuda": "function body"},
    ),
    "body, the kernel is newer": (
        lambda: model([node("Newer")], functions=[body("Newer")]),
        {"Newer": "function body"},
    ),
    "body in a domain of ONNX Runtime's": (
        lambda: foreign("com.microsoft", "Op", functions=[body_in("com.microsoft", "Op")]),
        {"Op": "function body"},
    ),
    "kernel in a body": (
        lambda: model([node("Op")], functions=[body("Op", inner("Any"))]),
        {"Op": "function body", f"Any in {DOMAIN}::Op": "kernel"},
    ),
    "body in a body": (
        lambda: model([node("Op")], functions=[body("Op", inner("Two")), body("Two")]),
        {"Op": "function body", f"Two in {DOMAIN}::Op": "function body"},
    ),
    "nobody in a body that isn't run": (
        lambda: model([node("Any")], functions=[body("Any", inner("None"))]),
        {"Any": "kernel", f"None in {DOMAIN}::Any": "not needed"},
    ),
    "nobody in a body in a body that isn't run": (
        lambda: model([node("Any")], functions=[body("Any", inner("Two")), body("Two", inner("None"))]),
        {"Any": "kernel", f"Two in {DOMAIN}::Any": "not needed", f"None in {DOMAIN}::Two": "not needed"},
    ),
    "nobody in a body that nothing calls": (
        lambda: model([builtin("Neg", ["x"], ["y"])], functions=[body("Op", inner("None"))]),
        {f"None in {DOMAIN}::Op": "not needed"},
    ),
    "overload that has a body": (
        lambda: foreign("o", "Op", overload="p", functions=[body_in("o", "Op", "p")]),
        {"Op": "function body"},
    ),
    "branches": (lambda: choice("Any", "Float"), {"Any": "kernel", "Float": "kernel"}),
    "loop": (lambda: loop("Float"), {"Float": "kernel"}),
    "a built-in of another domain": (lambda: foreign("com.microsoft", "QuickGelu"), {}),
    "nobody": (lambda: one_node("None"), {"None": "nobody"}),
    "nobody in the default domain": (lambda: foreign("", "None"), {"None": "nobody"}),
    "nobody in Microsoft's domain": (lambda: foreign("com.microsoft", "None"), {"None": "nobody"}),
    "nobody, though its result isn't used": (
        lambda: model([builtin("Neg", ["x"], ["y"]), node("None", ["x"], ["z"])]),
        {"None": "nobody"},
    ),
    "nobody for this type": (lambda: one_node("Float", "float64"), {"Float": "nobody"}),
    "nobody for one of two types": (
        lambda: model(
            [node("Float"), node("Float", ["d"], ["e"])],
            [tensor("x"), tensor("d", "float64")],
            [tensor("y"), tensor("e", "float64")],
        ),
        {"Float": "nobody"},  # the second; see test_nodes_of_one_operator_may_fare_differently
    ),
    "nobody for so many inputs": (lambda: model([node("Any", ["x", "x"])]), {"Any": "nobody"}),
    "nobody for so few inputs": (lambda: model([node("Any", [])]), {"Any": "nobody"}),
    "nobody for an absent input": (lambda: model([node("Float", ["", "x"])]), {"Float": "nobody"}),
    "nobody on this provider": (lambda: one_node("Cuda"), {"Cuda": "nobody"}),
    "nobody of this version": (lambda: one_node("Newer"), {"Newer": "nobody"}),
    "nobody in a branch": (lambda: choice("None", "Any"), {"None": "nobody", "Any": "kernel"}),
    "nobody in a loop": (lambda: loop("None"), {"None": "nobody"}),
    "nobody in a body": (
        lambda: model([node("Op")], functions=[body("Op", inner("None"))]),
        {"Op": "function body", f"None in {DOMAIN}::Op": "nobody"},
    ),
    "nobody in a body in a body": (
        lambda: model([node("Op")], functions=[body("Op", inner("Two")), body("Two", inner("None"))]),
        {
            "Op": "function body",
            f"Two in {DOMAIN}::Op": "function body",
            f"None in {DOMAIN}::Two": "nobody",
        },
    ),
    "a body in the default domain": (
        lambda: foreign("", "Op", functions=[body_in("", "Op")]),
        {"Op": "nobody"},
    ),
    "a body whose domain isn't imported": (
        lambda: foreign("o", "Op", functions=[body_in("o", "Op")], imports=[("", 18)]),
        {"Op": "nobody"},
    ),
    "overload that has no body": (
        lambda: foreign("o", "Op", overload="p", functions=[body_in("o", "Op")]),
        {"Op": "nobody" if TELLS_OVERLOADS_APART else "function body"},
    ),
    "a built-in of a newer opset": (
        lambda: model([builtin("Gelu", ["x"], ["y"])], opset=18),
        {"Gelu": "nobody"},
    ),
    "a built-in that ended": (
        lambda: model([builtin("Upsample", ["x", "s"], ["y"])], [tensor("x"), tensor("s")]),
        {"Upsample": "nobody"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_who_runs_what_is_what_a_session_does(case: str) -> None:
    data, expected = CASES[case][0](), CASES[case][1]
    found = inspect(data)
    assert runners(found) == expected
    assert found.runnable == ("nobody" not in expected.values())
    if not found.runnable:
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            ort_ops.InferenceSession(data, providers=[CPU])
        return
    session = ort_ops.InferenceSession(data, providers=[CPU])
    said = {(run.op, run.runner, run.kernel) for run in session.explain()}
    assert said == {(nodes.op, nodes.runner, nodes.kernel) for nodes in found.custom if not nodes.inside}


def only(found: Inspection) -> CustomNodes:
    (nodes,) = found.custom
    return nodes


def test_a_kernel_is_named_with_its_provider() -> None:
    nodes = only(inspect(one_node("Any")))
    assert (nodes.op, nodes.count, nodes.nodes, nodes.dtypes) == (f"{DOMAIN}::Any", 1, ("Any",), ("float32",))
    assert nodes.kernel == f"{__name__}._kernels.<locals>.any_type"
    assert (nodes.provider, nodes.reason, nodes.inside) == (CPU, "", "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (one_node("None"), "no kernel is registered for it"),
        (one_node("Float", "float64"), r"float_only can't take \(float64\)"),
        (model([node("Float", ["", "v"])]), r"float_only can't take \(absent, \?\)"),
        (one_node("Cuda"), f"its kernels run on {CUDA}; this session has {CPU}"),
        (one_node("Newer"), rf"its kernel is of version 3, the model imports {DOMAIN} 1"),
        (model([builtin("Gelu", ["x"], ["y"])]), r"has it in opset 20, the model imports ai\.onnx 18"),
        (foreign("", "Op", functions=[body_in("", "Op")]), "no function body in the default domain"),
        (foreign("o", "Op", functions=[body_in("o", "Op")], imports=[("", 18)]), "an opset import of 'o'"),
        (double(node("Float"), functions=[body("Float")]), "takes the element types of node 'Float'"),
        (model([node("Op")], functions=[body("Op")]), "no kernel is registered for it"),
    ],
)  # fmt: skip
def test_why_no_kernel_runs_it(data: bytes, reason: str) -> None:
    nodes = only(inspect(data))
    assert nodes.runner in ("nobody", "function body")
    assert re.search(reason, nodes.reason)


def test_types_that_the_file_does_not_state_are_a_condition() -> None:
    unstated = [builtin("Neg", ["x"], ["v"]), node("Float", ["v"])]
    nodes = only(inspect(model(unstated)))
    assert (nodes.runner, nodes.dtypes) == ("kernel", ("?",))
    assert nodes.reason == "if its inputs are (float32, float32): the file doesn't state their types"
    assert only(inspect(model([builtin("Neg", ["x"], ["v"]), node("Any", ["v"])]))).reason == ""
    known = model(unstated, value_info=[tensor("v")])
    assert (only(inspect(known)).dtypes, only(inspect(known)).reason) == (("float32",), "")


def test_nodes_of_one_operator_may_fare_differently() -> None:
    data = CASES["nobody for one of two types"][0]()
    assert [(n.dtypes, n.runner) for n in inspect(data).custom] == [
        (("float32",), "kernel"),
        (("float64",), "nobody"),
    ]
    twice = inspect(model([node("Any", ["x"], ["v"]), node("Any", ["v"])]))
    assert [(n.count, n.nodes) for n in twice.custom] == [(2, ("Any", "Any"))]


@pytest.mark.parametrize("new", [True, False])
def test_overloads_that_a_release_does_not_tell_apart(monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    monkeypatch.setattr("ort_ops.builtin.TELLS_OVERLOADS_APART", new)
    one = foreign("o", "Op", functions=[body_in("o", "Op")])
    two = foreign("o", "Op", functions=[body_in("o", "Op"), body_in("o", "Op", "p")])
    other = foreign("o", "Op", overload="p", functions=[body_in("o", "Op")])
    assert ["WRONG ANSWERS" in only(inspect(data)).reason for data in (one, two)] == [False, not new]
    assert only(inspect(other)).runner == ("nobody" if new else "function body")
    assert ("there is no function body for its overload 'p'" in only(inspect(other)).reason) == new


def test_prefer_body_is_a_sessions() -> None:
    data = model([node("Any", outputs=["v"]), node("Float", ["v"])], functions=[body("Any")])
    found = inspect(data, prefer="body")
    assert runners(found) == {"Any": "function body", "Float": "kernel"}
    assert found.custom[0].reason == 'prefer="body"'


def test_a_release_that_refuses_a_kernel_leaves_it_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::Computed")
    def computed(x, y=None): ...

    computed.infer(lambda x, y: x)
    monkeypatch.setattr(ort_ops.registry, "RELEASE", (1, 21))
    nodes = only(inspect(one_node("Computed")))
    assert nodes.runner == "nobody"
    assert "needs ONNX Runtime 1.22" in nodes.reason


def everything() -> bytes:
    weights = [numpy_helper.from_array(np.ones((3, 2)), "w"), numpy_helper.from_array(np.array(1), "one")]
    inputs = [tensor("x", "float16", ["batch", 3, None]), tensor("s", "string", []), tensor("w", "float64")]
    inputs.append(helper.make_tensor_sequence_value_info("list", 1, None))
    return model(
        [node("Any", ["x"])],
        inputs,
        [tensor("y", "float16", ["batch", "length"]), tensor("z", "float16")],
        initializers=weights,
        functions=[body("Op")],
    )


def test_opsets_types_and_dimensions() -> None:
    found = inspect(everything())
    assert (found.ir_version, dict(found.opsets)) == (8, {"ai.onnx": 18, DOMAIN: 1})
    assert found.dtypes == ("int64", "string", "float16", "float64")
    assert [value.name for value in found.inputs] == ["x", "s", "list"]  # w has its value
    assert found.dynamic_dims == {"batch": ("x[0]", "y[0]"), "": ("x[2]",), "length": ("y[1]",)}
    assert (found.node_count, found.functions, found.providers) == (1, (f"{DOMAIN}::Op",), (CPU,))


def test_json_has_all_of_it_under_the_names_that_are_promised() -> None:
    whole = json.loads(inspect(everything()).to_json())
    assert list(whole) == [
        *("runnable", "onnxruntime", "ir_version", "opsets", "providers", "inputs", "outputs"),
        *("dynamic_dims", "dtypes", "node_count", "functions", "custom"),
    ]
    assert whole["inputs"] == [
        {"name": "x", "kind": "tensor", "dtype": "float16", "shape": ["batch", 3, None]},
        {"name": "s", "kind": "tensor", "dtype": "string", "shape": []},
        {"name": "list", "kind": "sequence", "dtype": "?", "shape": None},
    ]
    assert whole["outputs"][1] == {"name": "z", "kind": "tensor", "dtype": "float16", "shape": None}
    (custom,) = whole["custom"]
    assert list(custom) == [
        *("domain", "op_type", "count", "nodes", "dtypes", "inside"),
        *("runner", "kernel", "provider", "reason", "libraries"),
    ]
    assert (custom["op_type"], custom["runner"], whole["runnable"]) == ("Any", "kernel", True)


def test_what_can_not_be_inspected_is_refused() -> None:
    with pytest.raises(ModelError):
        inspect(b"no model")
    with pytest.raises(ProviderError, match="NoSuchExecutionProvider is not in this onnxruntime"):
        inspect_model(one_node("Any"), ["NoSuchExecutionProvider"])


def test_element_types_have_names() -> None:
    assert [type_name(t) for t in (None, 0, 1, 14, 99)] == ["?", "?", "float32", "complex64", "type 99"]
