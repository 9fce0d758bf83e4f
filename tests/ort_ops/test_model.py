import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from ort_ops.errors import ModelError
from ort_ops.model import Model, Value, read_model

from .models import DOMAIN, builtin, function, model, node, tensor

FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [tensor("b")])


def loop_body() -> onnx.GraphProto:
    inputs = [tensor("i", "int64", []), tensor("more", "bool", []), tensor("v", "float64")]
    nodes = [builtin("Identity", ["more"], ["again"]), node("InLoop", ["v", "x"], ["w"])]
    return helper.make_graph(nodes, "body", inputs, [tensor("again", "bool", []), tensor("w", "float64")])


@functools.cache
def everything() -> bytes:
    """A model with subgraphs, a function, an initializer, an absent input and an attribute of each kind."""
    inputs = [tensor("x"), tensor("on", "bool", []), tensor("n", "int64", []), tensor("d", "float64")]
    nodes = [
        node("Outer", ["x", "", "w", "unknown"], ["o"], a=1, b=2.5, c="text", d=[1, 2], e=[0.5], f=["s"]),
        builtin(
            "If",
            ["on"],
            ["y"],
            then_branch=branch("then", node("Then", ["o"], ["b"])),
            else_branch=branch("else", node("Body", ["x"], ["b"])),
        ),
        builtin("Loop", ["n", "on", "d"], ["z"], body=loop_body()),
    ]
    return model(
        nodes,
        inputs,
        [tensor("y"), tensor("z", "float64")],
        initializers=[numpy_helper.from_array(np.ones(3), "w")],
        functions=[function("Body", ["a"], ["b"], node("Inner", ["a"], ["b"]))],
        value_info=[tensor("o", "float32", [1])],
    )


def onnx_nodes(graph: onnx.GraphProto) -> list[tuple[str, str, str]]:
    """What onnx itself says of a graph and those inside it, each node before its subgraphs."""
    found = []
    for each in graph.node:
        found.append((each.name, each.domain, each.op_type))
        for attribute in each.attribute:
            for inside in [attribute.g, *attribute.graphs]:
                found += onnx_nodes(inside)
    return found


def test_nodes_are_those_that_onnx_reads() -> None:
    theirs = onnx.load_from_string(everything())
    expected = onnx_nodes(theirs.graph) + [(n.name, n.domain, n.op_type) for n in theirs.functions[0].node]
    ours = read_model(everything())
    assert [(n.name, n.domain, n.op_type) for n in ours.nodes] == expected
    assert {"Outer", "Then", "Body", "InLoop", "Inner"} <= {n.name for n in ours.nodes}


def test_attributes_are_known_by_name() -> None:
    made = [node("Op", b=1, a=[2.0]), node("Bare")]
    body = function("Body", ["a"], ["b"], node("Inner", ["a"], ["b"], c="text"))
    names = {n.name: sorted(n.attributes) for n in read_model(model(made, functions=[body])).nodes}
    assert names == {"Op": ["a", "b"], "Bare": [], "Inner": ["c"]}


def test_opsets_functions_and_calls() -> None:
    found = read_model(everything())
    assert found.opsets == {"": 18, DOMAIN: 1}
    assert found.functions == {(DOMAIN, "Body")}
    assert {(DOMAIN, "Inner"), ("", "If")} <= found.calls()
    assert [n.in_function for n in found.nodes if n.name == "Inner"] == [(DOMAIN, "Body")]


def test_types_of_inputs_are_known_as_far_as_the_file_states_them() -> None:
    types = {n.name: n.input_types for n in read_model(everything()).nodes}
    assert types["Outer"] == (FLOAT, 0, DOUBLE, None)
    assert types["Then"] == (FLOAT,)  # a value of the graph around it
    assert types["InLoop"] == (DOUBLE, FLOAT)
    assert types["Inner"] == (None,)


def test_inputs_and_outputs_are_those_that_onnx_reads() -> None:
    ends = [
        tensor("x", "float32", ["batch", 3, None, 0]),
        tensor("scalar", "bool", []),
        tensor("any_rank", "string"),
        helper.make_tensor_sequence_value_info("list", FLOAT, None),
        helper.make_value_info("optional", helper.make_optional_type_proto(onnx.TypeProto())),
        onnx.ValueInfoProto(name="untyped"),
        tensor("w", "float64"),  # as before IR 4: an initializer's name among the inputs
    ]
    expected = (
        Value("x", "tensor", FLOAT, ("batch", 3, None, 0)),
        Value("scalar", "tensor", BOOL, ()),
        Value("any_rank", "tensor", 8, None),
        Value("list", "sequence"),
        Value("optional", "optional"),
        Value("untyped"),
    )
    weights = [numpy_helper.from_array(np.ones(3), "w")]
    found = read_model(model([], ends, ends[:1], initializers=weights))
    assert (found.inputs, found.outputs) == (expected, expected[:1])


def test_a_dimension_below_zero_is_none() -> None:
    (x,) = read_model(model([], [tensor("x", "float32", [-1, 2])])).inputs
    assert x.shape == (None, 2)


def test_element_types_and_ir_version() -> None:
    found = read_model(everything())
    assert found.element_types == {FLOAT, INT64, BOOL, DOUBLE}
    assert found.ir_version == 8


def test_overloads_of_function_bodies_are_told_apart() -> None:
    made = helper.make_node("Op", ["x"], ["y"], domain=DOMAIN, overload="second")
    bodies = [function("Op", ["a"], ["b"]) for _ in range(2)]
    bodies[1].overload = "second"
    found = read_model(model([made], functions=bodies))
    assert found.bodies == {(DOMAIN, "Op", ""), (DOMAIN, "Op", "second")}
    assert found.functions == {(DOMAIN, "Op")}
    assert found.nodes[0].overload == "second"


def test_the_default_domain_has_one_name() -> None:
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"], domain="ai.onnx")], "g", [], [])
    found = read_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx", 17)]).SerializeToString()
    )
    assert found.nodes[0].domain == ""
    assert found.opsets == {"": 17}


def test_a_file_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(everything())
    assert read_model(path) == read_model(str(path)) == read_model(everything())


def test_a_file_may_be_cut_short_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(everything())
    model = read_model(path)

    def cut_short(buffer: Any) -> bool:
        path.write_bytes(b"")
        return False

    monkeypatch.setattr("ort_ops.model._is_in_orts_format", cut_short)  # what is looked at first
    assert read_model(path) == model


@pytest.mark.parametrize("whole", [True, False])
def test_weights_are_stepped_over_in_the_file_and_outside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    if not whole:  # mapped, as a large file is
        monkeypatch.setattr("ort_ops.wire._SMALL", 0)
    weight = numpy_helper.from_array(np.zeros((1024, 1024), np.float32), "w")
    data = model([node("Op", ["x", "w"])], initializers=[weight])
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    inside.write_bytes(data)
    onnx.save(onnx.load_from_string(data), outside, save_as_external_data=True, location="weights")
    assert outside.stat().st_size < 1000 < inside.stat().st_size
    assert read_model(inside) == read_model(outside)
    assert read_model(inside).nodes[0].input_types == (FLOAT, FLOAT)


@pytest.mark.parametrize("content", [b"", b"\x00", b"no model", b"\x3a\x05", b"PK\x03\x04", b"\x08\x08"])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="other"):
        read_model(path)
    with pytest.raises(ModelError, match="the given bytes"):
        read_model(content)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_model(tmp_path / "missing.onnx")


def read_or_refuse(data: bytes) -> Model | None:
    try:
        return read_model(data)
    except ModelError:
        return None


def test_a_model_cut_short_is_read_or_refused() -> None:
    whole = read_model(everything())
    cut = [read_or_refuse(everything()[:end]) for end in range(0, len(everything()), 7)]
    assert None in cut
    assert whole not in cut


def test_graphs_nested_beyond_reason_are_refused() -> None:
    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    graph = b""
    for _ in range(2000):
        graph = field(1, field(5, field(6, graph)))  # a node with an attribute that is a graph
    with pytest.raises(ModelError):
        read_model(field(7, graph))


@given(st.binary(max_size=64))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    read_or_refuse(data)


@given(st.data())
def test_a_damaged_model_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(everything())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(damaged))
