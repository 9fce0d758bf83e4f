"""How far a node's result may be off: above what kernels are, and not far above."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx import helper

from ort_ops.parity.bounds import local_errors
from ort_ops.parity.exact import ExactFile
from ort_ops.parity.step import Step
from ort_ops.parity.tolerance import arithmetic_of

from .models import uniform

Array = NDArray[Any]


def bounded(node: Any, feed: dict[str, Array], opset: int = 18) -> tuple[Array, Array]:
    """Return what a node of one output gives in float64, and how far a kernel in its dtype may be off."""
    kinds = [(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape) for name, each in feed.items()]
    ends = [helper.make_tensor_value_info(*each) for each in kinds]
    graph = helper.make_graph([node], "g", ends, [helper.make_empty_tensor_value_info("y")])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("tests.bounds", 1)]
    file = ExactFile(ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9)))
    steps: list[Step] = []
    file.run(feed, after=lambda step: steps.append(step))
    dtype = next(each.dtype for each in feed.values() if each.dtype.kind == "f")
    (error,) = local_errors(steps[0], arithmetic_of(dtype))
    assert error is not None
    return steps[0].outputs[0], 4 * error


@pytest.mark.parametrize(("opset", "weights"), [(18, 2), (21, 6)])
def test_groups_have_deviations_of_their_own(opset: int, weights: int) -> None:
    x = uniform(2, 6, 7, 5)
    x[:, :3] = 100 + x[:, :3] * 1e-2
    scale, shift = uniform(weights), uniform(1, weights)[0]
    node = helper.make_node("GroupNormalization", ["x", "scale", "shift"], ["y"], num_groups=2)
    feed = {"x": x.numpy(), "scale": scale.numpy(), "shift": shift.numpy()}
    exact, error = bounded(node, feed, opset)
    channels = [each.repeat_interleave(6 // weights) for each in (scale, shift)]
    own = torch.nn.functional.group_norm(x, 2, *channels, 1e-5).numpy()
    assert (np.abs(own - exact) <= error).all()
    assert (np.abs(own * np.float32(1.01) - exact) > error)[:, 3:].mean() > 0.9
