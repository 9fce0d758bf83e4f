"""Nodes that nobody needs, or that may never run, are no nodes that ONNX Runtime took for its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import ort_ops
from ort_ops.needed import needed_nodes
from tests.ort_ops.models import DOMAIN, builtin, function, model, node, tensor

TRUE = numpy_helper.from_array(np.array([True]), "true")
X = np.ones((2, 3), np.float32)


def graph(name: str, output: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [tensor(output)])


def if_true(*nodes: onnx.NodeProto) -> onnx.NodeProto:
    """An If of which ONNX Runtime keeps the first branch alone; the nodes stand in the other."""
    branches = {
        "then_branch": graph("then", "t", builtin("Neg", ["x"], ["t"])),
        "else_branch": graph("else", "e", *nodes),
    }
    return builtin("If", ["true"], ["y"], **branches)


SHAPED = [builtin("Shape", ["v"], ["s"]), builtin("Cast", ["s"], ["y"], to=1)]
CASES: list[tuple[str, Sequence[Any]]] = [
    ("needed by nobody", [node("Cast", outputs=["v"]), builtin("Neg", ["x"], ["y"])]),
    ("of known shape", [node("Cast", outputs=["v"]), *SHAPED]),
    ("in a branch that never runs", [if_true(node("Cast", outputs=["e"]))]),
    ("used by such a branch", [node("Cast", outputs=["v"]), if_true(builtin("Abs", ["v"], ["e"]))]),
    ("read by a body that ignores it", [node("Cast", outputs=["v"]), node("Body", ["x", "v"])]),
]


@pytest.mark.parametrize("nodes", [nodes for _, nodes in CASES], ids=[case for case, _ in CASES])
def test_no_false_alarm(nodes: Sequence[onnx.NodeProto]) -> None:
    op = ort_ops.onnx_op(f"{DOMAIN}::Cast", inputs=["float32"], outputs=["float32"])(lambda x: x * 3)
    op.infer(lambda x: x)
    body = function("Body", ["a", "b"], ["c"], builtin("Neg", ["a"], ["c"]))
    ends = [tensor("x", shape=(2, 3))], [tensor("y")]
    ort_ops.InferenceSession(model(nodes, *ends, initializers=[TRUE], functions=[body])).run(None, {"x": X})


def test_needed_nodes_are_found_in_graphs_inside_a_loop() -> None:
    inner = graph("loop", "c", node("Cast", outputs=["v"]), builtin("Neg", ["v"], ["u"]), node("Unused"))
    inner.node.append(builtin("Identity", ["true"], ["c"]))
    inner.output.append(tensor("u"))
    inner.input.extend([tensor("i", "int64", ()), tensor("c_in", "bool", ())])
    loop = builtin("Loop", ["", "true"], ["y"], body=inner)
    needed = needed_nodes(model([node("Before", outputs=["true"]), loop]))
    assert sorted(op for domain, op, _ in needed if domain == DOMAIN) == ["Before", "Cast"]


SCALE = [
    numpy_helper.from_array(np.array(0.05, np.float32), "s"),
    numpy_helper.from_array(np.uint8(128), "z"),
]


def quantised(source: str, to: str) -> list[onnx.NodeProto]:
    """Return what rounds a value to 8 bits and back."""
    return [
        builtin("QuantizeLinear", [source, "s", "z"], [f"{to}_q"]),
        builtin("DequantizeLinear", [f"{to}_q", "s", "z"], [to]),
    ]


@pytest.mark.parametrize("name", ["Clip", "Transpose"])
@pytest.mark.parametrize("before", [True, False])
def test_the_name_of_an_operator_that_is_moved_beside_quantised_values_may_be_had(
    name: str, before: bool
) -> None:
    @ort_ops.onnx_op(f"{DOMAIN}::{name}", inputs=["float32"])
    def op(x: Any) -> Any:
        return 100 * x

    nodes = (
        [*quantised("x", "a"), node(name, ["a"], ["b"]), builtin("Identity", ["b"], ["y"])]
        if before
        else [builtin("Mul", ["x", "s"], ["a"]), node(name, ["a"], ["b"]), *quantised("b", "y")]
    )
    ends = [tensor("x", shape=[1, 4, 4, 4])], [tensor("y")]
    data = model(nodes, *ends, initializers=SCALE)
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    (y,) = ort_ops.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})

    def rounded(values: Any) -> Any:
        return (np.clip(np.round(values / np.float32(0.05)) + 128, 0, 255) - 128) * np.float32(0.05)

    expected = 100 * rounded(x) if before else rounded(100 * (x * np.float32(0.05)))
    np.testing.assert_allclose(y, expected, rtol=1e-5)
