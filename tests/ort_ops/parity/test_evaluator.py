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
from onnx import ModelProto, helper

from ort_ops.parity.exact import ExactFile

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
