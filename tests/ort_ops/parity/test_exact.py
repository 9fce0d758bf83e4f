"""A file in float64: an evaluation that goes on from where it paused, and what is noted of nodes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ort_ops.parity.exact import ExactFile
from ort_ops.parity.step import Step


def exact(
    nodes: list[Any], weights: dict[str, Any], inputs: dict[str, int], output: str, kind: int
) -> ExactFile:
    ends = [helper.make_tensor_value_info(name, each, None) for name, each in inputs.items()]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", ends, [helper.make_tensor_value_info(output, kind, None)], tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return ExactFile(ir.from_proto(model))


def chain() -> tuple[ExactFile, dict[str, Any]]:
    """Return tanh(tanh(x·w0)·w1)·w2 + w0[0], in which w0 is read twice, with its input."""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.standard_normal((3, 3)).astype(np.float32) for i in range(3)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["c"]),
        helper.make_node("Tanh", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w2"], ["e"]),
        helper.make_node("Add", ["e", "w0"], ["y"]),
    ]
    file = exact(nodes, weights, {"x": TensorProto.FLOAT}, "y", TensorProto.FLOAT)
    return file, {"x": rng.standard_normal((3, 3)).astype(np.float32)}


@pytest.mark.parametrize("names", [["w0"], ["w1"], ["w2", "w1"], ["y"], ["x"], ["nowhere"]])
def test_an_evaluation_goes_on_from_where_it_paused(names: list[str]) -> None:
    file, feed = chain()
    paused = file.pause(feed, names)
    whole = file.run(feed)["y"]
    for _ in range(2):  # what was paused can be gone on from again and again
        assert np.array_equal(file.run(feed, start=paused)["y"], whole)
    if names[0] in ("w1", "w2"):
        changed = {names[0]: 2 * file.weight(names[0])}
        there = file.run(feed, replaced=changed)["y"]
        assert not np.array_equal(there, whole)
        assert np.array_equal(file.run(feed, replaced=changed, start=paused)["y"], there)


def test_it_pauses_before_the_first_use_and_computes_nothing_twice() -> None:
    file, feed = chain()
    paused = file.pause(feed, ["w2", "w1"])
    seen: list[str] = []
    file.run(feed, after=lambda step: seen.append(step.node.output[0]), start=paused)
    assert seen == ["c", "d", "e", "y"]


def test_evaluations_beside_each_other_give_what_each_gives_and_read_weights_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, feed = chain()
    feeds = [{"x": factor * feed["x"]} for factor in (1, 2, 3)]

    def scale(by: float) -> Callable[[Step], list[Any]]:
        return lambda step: [by * each for each in step.outputs]

    afters = [scale(1 + each / 8) for each in range(3)]
    alone = [file.run(each, after=after)["y"] for each, after in zip(feeds, afters, strict=True)]
    reads: list[str] = []
    weight = file.weight
    monkeypatch.setattr(file, "weight", lambda name: reads.append(name) or weight(name))
    beside = file.run_beside(feeds, afters)
    assert reads == ["w0", "w1", "w2"]
    assert all(np.array_equal(each["y"], one) for each, one in zip(beside, alone, strict=True))
    assert not np.array_equal(alone[0], alone[1])
    with_other = {"w1": np.ones((3, 3))}
    replaced = file.run_beside(feeds, afters, replaced=with_other)
    one = file.run(feeds[2], after=afters[2], replaced=with_other)["y"]
    assert np.array_equal(replaced[2]["y"], one)


def test_what_is_made_of_a_weight_is_made_once() -> None:
    file, feed = chain()
    made: list[int] = []

    def negative(array: Any) -> Any:
        made.append(array.size)
        return -array

    def after(step: Step) -> None:
        if step.node.op_type == "MatMul":
            assert np.allclose(step.on(negative)[0], step.outputs[0])

    file.run_beside([feed] * 4, [after] * 4)
    assert len(made) == 3 * (4 + 1)  # each MatMul's input four times, its weight once


def test_integers_that_onnx_runtime_computes_lose_nothing() -> None:
    # onnx's evaluator doesn't know it.
    node = helper.make_node("GatherND", ["table", "i"], ["y"], domain="com.microsoft", name="gather")
    indices = np.arange(13)[:, None]
    for dtype, noted in ((np.int64, []), (np.float32, ["gather"])):
        table = (np.arange(512) * 10).astype(dtype)
        kind = helper.np_dtype_to_tensor_dtype(table.dtype)
        file = exact([node], {"table": table}, {"i": TensorProto.INT64}, "y", kind)
        assert np.array_equal(file.run({"i": indices})["y"], 10 * indices[:, 0])
        assert list(file.notes) == noted


def test_elements_are_put_and_gathered_as_onnx_says() -> None:
    data = np.arange(12, dtype=np.float32).reshape(3, 4)
    indices = np.array([[0, -1], [-2, 0]])  # fewer than there are elements, on both axes
    gathered = helper.make_node("GatherElements", ["x", "i"], ["g"], axis=1)
    put = helper.make_node("ScatterElements", ["x", "i", "g"], ["y"], axis=-1, reduction="mul")
    file = exact([gathered, put], {"i": indices}, {"x": TensorProto.FLOAT}, "y", TensorProto.FLOAT)
    expected = data.copy()
    expected[[0, 0, 1, 1], [0, 3, 2, 0]] *= data[[0, 0, 1, 1], [0, 3, 2, 0]]
    assert np.array_equal(file.run({"x": data})["y"], expected)


CONTRIB = {
    "FusedMatMul": (((2, 3, 4), (2, 4, 5)), {"alpha": 0.3}, 1),
    "FusedMatMul, transposed": (((2, 4, 3), (2, 5, 4)), {"alpha": 0.3, "transA": 1, "transB": 1}, 1),
    "FusedMatMul, batch last": (((3, 2, 4), (5, 2, 4)), {"transBatchA": 1, "transBatchB": 1, "transB": 1}, 1),
    "FusedGemm": (((3, 4), (4, 5), (5,)), {"alpha": 0.3, "beta": 2.0, "activation": "Relu"}, 1),
    "FusedGemm, transposed": (
        ((4, 3), (5, 4)),
        {"transA": 1, "transB": 1, "activation": "LeakyRelu", "activation_alpha": 0.3},
        1,
    ),
    "FusedConv": (((2, 3, 9, 7), (4, 3, 3, 3), (4,)), {"activation": "Tanh", "pads": [1, 0, 1, 0]}, 1),
    "FusedConv, with a summand": (
        ((1, 4, 9, 9), (4, 1, 3, 3), (4,), (1, 4, 4, 4)),
        {"activation": "Clip", "activation_params": [-0.5, 0.5], "group": 4, "strides": [2, 2]},
        1,
    ),
    "FusedConv, hard": (
        ((2, 3, 9, 9), (4, 3, 3, 3)),
        {"activation": "HardSigmoid", "activation_params": [0.3, 0.4], "auto_pad": "SAME_UPPER"},
        1,
    ),
    "Gelu": (((3, 5),), {}, 1),
    "BiasGelu": (((3, 5), (5,)), {}, 1),
    "FastGelu": (((3, 5), (5,)), {}, 1),
    "QuickGelu": (((3, 5),), {"alpha": 1.5}, 1),
    "SkipLayerNormalization": (((2, 3, 8), (2, 3, 8), (8,), (8,), (8,)), {"epsilon": 1e-3}, 4),
    "SkipLayerNormalization, plain": (((2, 3, 8), (2, 3, 8), (8,)), {"epsilon": 1e-3}, 1),
    "SkipSimplifiedLayerNormalization": (((2, 3, 8), (2, 3, 8), (8,), (8,)), {"epsilon": 1e-3}, 4),
}


@pytest.mark.parametrize("name", CONTRIB)
def test_what_onnx_runtime_fuses_is_computed_in_float64(name: str) -> None:
    shapes, attributes, outputs = CONTRIB[name]
    rng = np.random.default_rng(0)
    feed = {f"i{place}": rng.standard_normal(shape).astype(np.float32) for place, shape in enumerate(shapes)}
    names = ["y", "", "", "total"][:outputs]  # the CPU has no kernel that gives the others
    kind = name.partition(",")[0]
    node = helper.make_node(kind, [*feed], names, domain="com.microsoft", name="fused", **attributes)
    types = dict.fromkeys(feed, TensorProto.FLOAT)
    for output in filter(None, names):
        file = exact([node], {}, types, output, TensorProto.FLOAT)
        wide = file.run(feed)[output]
        session = onnxruntime.InferenceSession(ir.to_proto(file.model).SerializeToString())
        assert np.allclose(wide, session.run([output], feed)[0], rtol=1e-5, atol=1e-6)
        assert wide.dtype == np.float64
        assert not file.notes
