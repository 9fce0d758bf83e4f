"""Operators in float64 as ONNX has them, where onnx's reference evaluator computes something else."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference.ops.op_max_pool import MaxPool as ReferenceMaxPool

from ort_ops.parity.chance import by_chance
from ort_ops.parity.exact import ExactFile
from ort_ops.parity.windows import convolve

from .models import uniform

Array = NDArray[Any]


def of_node(node: Any, inputs: dict[str, Array], opset: int) -> ModelProto:
    """Return a model of one node, whose inputs and outputs are the model's."""
    ends = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "g", ends, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def in_float64(model: ModelProto, feed: dict[str, Array]) -> list[Array]:
    """Return what a model gives in float64, of which nothing was computed in fewer digits."""
    file = ExactFile(ir.from_proto(model))
    outputs = file.run(feed)
    assert not file.notes
    return list(outputs.values())


def assert_as_onnx_runtime(node: Any, opset: int, **feed: Array) -> None:
    """Assert that a node gives what it gives in ONNX Runtime, up to some roundings of float32."""
    model = of_node(node, feed, opset)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for own, theirs in zip(in_float64(model, feed), session.run(None, feed), strict=True):
        assert own.shape == theirs.shape
        assert np.allclose(own, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [11, 12, 13])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 5), (0, 3, 2)])
def test_softmax_is_over_all_axes_from_one_on_before_opset_13(
    kind: str, opset: int, shape: tuple[int, ...]
) -> None:
    x = uniform(*shape).numpy()
    for axis in (None, 0, 1, -1):
        attributes = {} if axis is None else {"axis": axis}
        assert_as_onnx_runtime(helper.make_node(kind, ["x"], ["y"], **attributes), opset, x=x)


def test_a_body_that_depends_on_types_is_made_when_they_are_known() -> None:
    x, scale, shift = uniform(2, 4, 5), uniform(4), uniform(1, 4)[0]
    node = helper.make_node("GroupNormalization", ["x", "scale", "shift"], ["y"], num_groups=2)
    feed = {"x": x.numpy() * 1e-3, "scale": scale.numpy(), "shift": shift.numpy()}
    (y,) = in_float64(of_node(node, feed, 21), feed)
    wide = [torch.from_numpy(array).double() for array in feed.values()]
    expected = torch.nn.functional.group_norm(wide[0], 2, wide[1], wide[2], 1e-5).numpy()
    assert np.allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15])
def test_batch_normalisation_is_by_the_statistics_given_in_every_opset(opset: int) -> None:
    x, statistics = uniform(2, 3, 5).numpy(), uniform(4, 3).numpy()
    scale, shift, mean, variance = (*statistics[:3], np.abs(statistics[3]))
    node = helper.make_node("BatchNormalization", ["x", "scale", "shift", "mean", "variance"], ["y"])
    assert_as_onnx_runtime(node, opset, x=x, scale=scale, shift=shift, mean=mean, variance=variance)


@pytest.mark.parametrize("shape", [(1, 6, 3, 3), (4, 3, 1, 2), (2, 0, 3, 1)])
def test_local_responses_are_normalised_by_neighbouring_channels(shape: tuple[int, ...]) -> None:
    node = helper.make_node("LRN", ["x"], ["y"], size=3, alpha=0.5, beta=0.7, bias=2.0)
    assert_as_onnx_runtime(node, 13, x=uniform(*shape).numpy())


@pytest.mark.parametrize("p", [1, 2])
def test_norms_are_of_absolute_values(p: int) -> None:
    for axis in (-1, 0):
        node = helper.make_node("LpNormalization", ["x"], ["y"], p=p, axis=axis)
        for x in (uniform(3, 5), torch.zeros(2, 3), torch.zeros(0, 3)):
            assert_as_onnx_runtime(node, 13, x=x.numpy())


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (1, 2, 3, 1, 2), (0, 3, 2)])
def test_a_channel_is_pooled_over_all_of_its_axes(shape: tuple[int, ...]) -> None:
    x = uniform(*shape).numpy()
    for kind, attributes in (("GlobalMaxPool", {}), ("GlobalLpPool", {}), ("GlobalLpPool", {"p": 3})):
        assert_as_onnx_runtime(helper.make_node(kind, ["x"], ["y"], **attributes), 13, x=x)


def test_the_logarithm_of_nothing_but_zeros_is_minus_infinity() -> None:
    x = np.array([[0, 1, 2], [-np.inf] * 3, [-np.inf, 1, 0], [np.inf, 0, 1]], np.float32)
    for keepdims in (0, 1):
        node = helper.make_node("ReduceLogSumExp", ["x"], ["y"], axes=[1], keepdims=keepdims)
        assert_as_onnx_runtime(node, 13, x=x)
    axes = {"axes": np.array([1])}
    assert_as_onnx_runtime(helper.make_node("ReduceLogSumExp", ["x", "axes"], ["y"]), 18, x=x, **axes)
    assert_as_onnx_runtime(helper.make_node("ReduceLogSumExp", ["x"], ["y"]), 18, x=x[[0, 2]])


def test_a_dynamic_scale_is_as_exact_as_its_input() -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])
    for x in (uniform(7, 5).numpy(), np.abs(uniform(7).numpy()), np.zeros(3, np.float32)):
        assert_as_onnx_runtime(node, 13, x=x)
    x = uniform(7, 5).numpy()
    scale = in_float64(of_node(node, {"x": x}, 13), {"x": x})[1]
    assert scale == (np.float64(x.max()) - x.min()) / 255


GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(kind: str, directions: int, steps: int = 5, batch: int = 3) -> dict[str, Array]:
    """Return what a layer of 4 inputs and 2 states takes, all of it."""
    rows = GATES[kind] * 2
    feed = {
        "x": uniform(steps, batch, 4),
        "weight": uniform(directions, rows, 4),
        "recurrence": uniform(directions, rows, 2),
        "bias": uniform(directions, 2 * rows),
        "lengths": torch.tensor([steps, 1, 2][:batch], dtype=torch.int32),
        "h": uniform(directions, batch, 2),
    }
    if kind == "LSTM":
        feed |= {"c": uniform(directions, batch, 2), "peepholes": uniform(directions, 6)}
    return {name: tensor.numpy() for name, tensor in feed.items()}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_a_recurrent_layer_stops_at_each_sequences_end(kind: str, direction: str) -> None:
    outputs = ["y", "h_last", *(["c_last"] if kind == "LSTM" else [])]
    for steps, batch in ((5, 3), (1, 1), (2, 0)):
        feed = recurrent(kind, 1 + (direction == "bidirectional"), steps, batch)
        for names in (
            list(feed),
            ["x", "weight", "recurrence"],
            ["x", "weight", "recurrence", "", "lengths"],
        ):
            node = helper.make_node(kind, names, outputs, direction=direction, hidden_size=2)
            given = {name: feed[name] for name in names if name}
            if batch:
                assert_as_onnx_runtime(node, 14, **given)
            else:  # which ONNX Runtime refuses
                y = in_float64(of_node(node, given, 14), given)[0]
                assert y.shape == (2, 1 + (direction == "bidirectional"), 0, 2)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("RNN", {"activations": ["Relu"]}),
        ("RNN", {"activations": ["HardSigmoid"], "clip": 0.5}),
        ("GRU", {"linear_before_reset": 1}),
        (
            "GRU",
            {"activations": ["tanh", "ScaledTanh"], "activation_alpha": [2.0], "activation_beta": [0.5]},
        ),
        ("GRU", {"activations": ["Elu", "LEAKYRELU"], "activation_alpha": [0.25]}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"clip": 0.5, "activations": ["Sigmoid", "Softsign", "Tanh"]}),
        (
            "LSTM",
            {"activations": ["HardSigmoid", "Softplus", "ThresholdedRelu"], "activation_alpha": [0.5] * 2},
        ),
    ],
)
def test_a_recurrent_layer_has_the_nodes_activations(kind: str, attributes: dict[str, Any]) -> None:
    feed = recurrent(kind, 1)
    node = helper.make_node(kind, list(feed), ["y"], hidden_size=2, **attributes)
    assert_as_onnx_runtime(node, 14, **feed)


@pytest.mark.parametrize("kind", GATES)
def test_a_recurrent_layers_batch_may_come_first(kind: str) -> None:
    feed = recurrent(kind, 2)
    outputs = ["y", "h_last"]
    node = helper.make_node(kind, list(feed), outputs, direction="bidirectional", hidden_size=2)
    y, h_last = in_float64(of_node(node, feed, 14), feed)
    node.attribute.append(helper.make_attribute("layout", 1))
    swapped = {
        name: array.swapaxes(0, 1) if name in ("x", "h", "c") else array for name, array in feed.items()
    }
    y_swapped, h_swapped = in_float64(of_node(node, swapped, 14), swapped)
    assert np.array_equal(y_swapped, y.transpose(2, 0, 1, 3))
    assert np.array_equal(h_swapped, h_last.swapaxes(0, 1))


def test_an_activation_that_isnt_defined_is_left_to_onnx_runtime() -> None:
    feed = recurrent("RNN", 1)
    node = helper.make_node("RNN", list(feed), ["y"], hidden_size=2, activations=["Affine"])
    file = ExactFile(ir.from_proto(of_node(node, feed, 14)))
    file.run(feed)
    (note,) = file.notes.values()
    assert "without its alpha and beta" in note.reason


def chance(nodes: list[Any], functions: list[Any] | None = None) -> dict[str, str]:
    """Return which outputs of a graph of a float x, a boolean condition and an output y are of chance."""
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])]
    ends.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    graph = helper.make_graph(nodes, "g", ends, [helper.make_empty_tensor_value_info("y")])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("tests.evaluator", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    file = ExactFile(ir.from_proto(model))
    feed = {"x": uniform(2, 3).numpy(), "condition": np.array(True)}
    return by_chance(file, feed, file.run(feed))


DRAW = helper.make_node("RandomUniformLike", ["x"], ["y"])


@pytest.mark.parametrize(("training", "random"), [(True, True), (False, False)])
def test_dropout_is_of_chance_in_training(training: bool, random: bool) -> None:
    ratio = helper.make_node("Constant", [], ["ratio"], value_float=0.5)
    live = helper.make_node("Constant", [], ["live"], value=numpy_helper.from_array(np.array(training)))
    dropout = helper.make_node("Dropout", ["x", "ratio", "live"], ["y"], name="drop")
    assert chance([ratio, live, dropout]) == ({"y": "drop"} if random else {})


@pytest.mark.parametrize("drawn", [DRAW, helper.make_node("Identity", ["x"], ["y"])])
def test_what_is_drawn_in_a_function_body_or_in_a_branch_is_of_chance(drawn: Any) -> None:
    random = drawn is DRAW
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("tests.evaluator", 1)]
    inner = helper.make_function("tests.evaluator", "Inner", ["x"], ["y"], [drawn], opsets)
    call = helper.make_node("Inner", ["x"], ["y"], domain="tests.evaluator")
    outer = helper.make_function("tests.evaluator", "Outer", ["x"], ["y"], [call], opsets)
    node = helper.make_node("Outer", ["x"], ["y"], domain="tests.evaluator", name="noise")
    assert chance([node], [inner, outer]) == ({"y": "noise"} if random else {})
    branch = helper.make_graph([drawn], "branch", [], [helper.make_empty_tensor_value_info("y")])
    either = helper.make_node(
        "If", ["condition"], ["y"], then_branch=branch, else_branch=branch, name="either"
    )
    assert chance([either]) == ({"y": "either"} if random else {})


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 0, 1], [0, 2, 1, 1]])
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (1, 1, 5, 6), (0, 2, 4, 4)])
def test_a_largest_value_and_its_place_are_onnx_runtimes(
    shape: tuple[int, ...], pads: list[int], ceil_mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReferenceMaxPool, "_run", None)  # which is slow
    for by_columns in (0, 1):
        window = {"kernel_shape": [2, 3], "strides": [3, 2], "pads": pads, "storage_order": by_columns}
        node = helper.make_node("MaxPool", ["x"], ["y", "places"], ceil_mode=ceil_mode, **window)
        assert_as_onnx_runtime(node, 12, x=uniform(*shape).numpy())


@pytest.mark.parametrize(("kind", "opset"), [("Upsample", 9), ("Resize", 10)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_interpolation_is_from_the_left_before_opset_11(kind: str, opset: int, mode: str) -> None:
    node = helper.make_node(kind, ["x", "scales"], ["y"], mode=mode)
    for scales in ((1, 1, 2, 2), (1, 1, 1.5, 3)):
        x = uniform(1, 2, 4, 5).numpy()
        assert_as_onnx_runtime(node, opset, x=x, scales=np.array(scales, np.float32))


@pytest.mark.parametrize("opset", [10, 16])
def test_regions_are_moved_by_half_of_an_element_since_opset_16(opset: int) -> None:
    x, regions = uniform(1, 2, 8, 8).numpy(), np.array([[0, 0, 4, 4], [1.5, 1, 7, 6]], np.float32)
    node = helper.make_node("RoiAlign", ["x", "regions", "batch"], ["y"], output_height=3, sampling_ratio=2)
    assert_as_onnx_runtime(node, opset, x=x, regions=regions, batch=np.zeros(2, np.int64))


@pytest.mark.parametrize("opset", [11, 18, 21])
def test_pads_below_nothing_take_elements_away(opset: int) -> None:
    x, pads = uniform(3, 6).numpy(), np.array([1, -2, 0, -1])
    node = helper.make_node("Pad", ["x", "pads"], ["y"])
    model = of_node(node, {"x": x}, opset)
    model.graph.initializer.append(numpy_helper.from_array(pads, "pads"))
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    (y,) = in_float64(model, {"x": x})
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("shape", "weight", "attributes"),
    [
        ((2, 6, 9, 11), (12, 1, 3, 2), {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 2, 1]}),
        ((2, 4, 10), (4, 1, 3), {}),
        ((1, 3, 5, 6, 7), (3, 1, 2, 2, 2), {"strides": [1, 2, 3]}),
        ((0, 4, 10), (4, 1, 3), {}),
    ],
)
def test_convolutions_of_each_channel_are_torchs(
    shape: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    generator = np.random.default_rng(0)
    x, w, b = (generator.standard_normal(each) for each in (shape, weight, weight[:1]))
    rank, group = len(shape) - 2, shape[1]
    pads = attributes.get("pads", [0] * 2 * rank)
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    plain: Any = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[rank]
    given = [torch.from_numpy(each) for each in (padded, w, b)]
    steps = [attributes.get(name, 1) for name in ("strides", "dilations")]
    expected = plain(*given, steps[0], 0, steps[1], group).numpy()
    np.testing.assert_allclose(convolve(x, w, b, {**attributes, "group": group}), expected, atol=1e-13)
