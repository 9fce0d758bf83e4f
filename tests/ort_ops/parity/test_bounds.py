"""How far a node's result may be off: above what kernels are, and not far above."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper

from ort_ops.parity.bounds import local_errors
from ort_ops.parity.exact import ExactFile
from ort_ops.parity.step import Step
from ort_ops.parity.tolerance import arithmetic_of

from .models import uniform
from .test_evaluator import of_node

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


def apart(kernel: Callable[[Array], Array], exact: Callable[[Array], Array], x: Array) -> Array:
    """Return how far a custom operator's kernel is off, in parts of how far it may be."""
    node = helper.make_node("Any", ["x"], ["y"], domain="tests.bounds")
    wide = x.astype(np.float64)
    step = Step(node, [wide], [exact(wide)], lambda inputs: [exact(inputs[0])], {})
    (error,) = local_errors(step, arithmetic_of(x.dtype))
    assert error is not None
    off: Array = np.abs(kernel(x) - step.outputs[0]) / (4 * error)
    return off


def gelu(x: Array) -> Array:
    one = x.dtype.type(1)
    return x * (one / 2) * (one + torch.erf(torch.from_numpy(x / np.sqrt(2 * one))).numpy())


def softmax(x: Array) -> Array:
    shares: Array = np.exp(x - x.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


CUSTOM: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "softmax": softmax,
    "exp": np.exp,
    "1 - cos": lambda x: 1 - np.cos(x),
    "centred": lambda x: x - x.mean(0),
    "sum": lambda x: x.sum(-1, keepdims=True),
}


@pytest.mark.parametrize("operator", CUSTOM.values(), ids=CUSTOM)
def test_a_custom_operators_kernel_is_within_its_bound(operator: Any) -> None:
    sizes = np.float32(10) ** np.linspace(-4, 1, 40, dtype=np.float32)[:, None]
    for x in (uniform(40, 25).numpy() * sizes, sizes + uniform(40, 25).numpy() * sizes / 1000):
        assert apart(operator, operator, x).max() < 1


def test_small_rows_of_a_custom_operator_are_not_bounded_by_large_ones() -> None:
    x = np.linspace(-10, 10, 30, dtype=np.float32)[:, None] + uniform(30, 16).numpy()
    wrong = apart(lambda x: np.where(np.exp(x) < 0.003, 0, np.exp(x)), np.exp, x) > 1
    assert wrong[np.exp(x) < 0.003].mean() > 0.9
    assert not wrong[np.exp(x) >= 0.003].any()


def numbers(kind: str, count: int) -> Array:
    """Return two rows of numbers to be added up."""
    random = uniform(2, count).numpy()
    return {"random": random, "positive": np.abs(random), "equal": np.full_like(random, 0.1)}[kind]


@pytest.mark.parametrize("kind", ["random", "positive", "equal"])
@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceSumSquare", "CumSum", "GlobalAveragePool"])
def test_sums_of_many_are_within_their_bound_in_onnx_runtime(operator: str, kind: str) -> None:
    for count in (3001, 200_000):
        x = numbers(kind, count)
        feed = {"x": x[None] if operator == "GlobalAveragePool" else x, "axis": np.array([1])}
        inputs = ["x"] if operator == "GlobalAveragePool" else ["x", "axis"]
        feed = {name: feed[name] for name in inputs}
        exact, error = bounded(helper.make_node(operator, inputs, ["y"]), feed)
        session = onnxruntime.InferenceSession(
            of_node(helper.make_node(operator, inputs, ["y"]), feed, 18).SerializeToString(),
            providers=["CPUExecutionProvider"],
        )
        assert (np.abs(session.run(None, feed)[0] - exact) <= error).all()


def test_a_sum_of_many_that_is_one_in_a_thousand_off_is_beyond_its_bound() -> None:
    x = np.abs(uniform(2, 200_000).numpy())
    for operator, reverse in (("ReduceSum", {}), ("CumSum", {}), ("CumSum", {"reverse": 1})):
        node = helper.make_node(operator, ["x", "axis"], ["y"], **reverse)
        exact, error = bounded(node, {"x": x, "axis": np.array([1])})
        assert (exact / 1000 > error).all()
    single = uniform(3, 1).numpy()
    exact, error = bounded(node, {"x": single, "axis": np.array([1])})
    assert (error > 0).all()


def test_what_a_custom_operator_gives_beside_arrays_of_fractions_has_no_bound() -> None:
    x = np.exp(np.linspace(-20, 20, 8))[:, None] * np.ones((8, 3))
    node = helper.make_node("Any", ["x"], ["y", "parts", "count"], domain="tests.bounds")
    outputs = [x, [x[:1], x[1:]], np.array(8)]
    step = Step(node, [x], outputs, lambda inputs: [inputs[0], *outputs[1:]], {})
    errors = local_errors(step, arithmetic_of(np.float32))
    assert errors[0] is not None
    assert errors[1:] == [None, None]


def near_zero(*shape: int) -> Any:
    """Logarithms of shares, whose sum is 1 and its logarithm 0."""
    x = uniform(*shape).numpy().astype(np.float64)
    return (x - np.log(np.exp(x).sum(1, keepdims=True))).astype(np.float32)


def nearly_cancelling(*shape: int) -> tuple[Any, Any, Any]:
    a, c = uniform(*shape).numpy(), uniform(*shape[::-1]).numpy().T
    return a, (-a * np.float32(1.001)).astype(np.float32), (c * np.float32(1e-3)).astype(np.float32)


SURE = np.where(np.arange(33) == 0, 20, 0).astype(np.float32) + uniform(8, 33).numpy() / 20
PLACES = np.arange(12, dtype=np.float32).reshape(1, 1, 6, 2) / 6 - 0.93
SINGULAR = np.stack([np.stack([row, row, *uniform(3, 5).numpy()]) for row in uniform(4, 5).numpy()])
SINGULAR[:, 1, 1] += 1e-3

ONES = np.ones(33, np.float32)
# Operators, an opset, attributes and inputs: where sums cancel, or a share of another size is what is off.
HARD: dict[str, tuple[str, int, dict[str, Any], tuple[Any, ...]]] = {
    "the logarithm of a sum that is 1": ("ReduceLogSumExp", 13, {"axes": [1]}, (near_zero(64, 33),)),
    "the loss of what is sure": (
        *("SoftmaxCrossEntropyLoss", 13, {"reduction": "none"}),
        (SURE, np.zeros(8, np.int64)),
    ),
    "a sum of three that cancels": ("Sum", 18, {}, nearly_cancelling(64, 33)),
    "a mean of three that cancels": ("Mean", 18, {}, nearly_cancelling(64, 33)),
    "places in a large image": ("GridSample", 20, {}, (uniform(1, 2, 700, 700).numpy(), PLACES)),
    "shares over several axes": ("Softmax", 11, {"axis": 1}, (uniform(4, 7, 9).numpy() * 8,)),
    "a matrix that is nearly singular": ("Det", 18, {}, (SINGULAR,)),
    "attention to large scores": (
        *("Attention", 23, {}),
        tuple(uniform(1, 2, 50, size).numpy() * 6 for size in (16, 16, 16)),
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_a_right_node_is_within_its_bound_in_hard_regimes(name: str) -> None:
    op, opset, attributes, inputs = HARD[name]
    names = [f"x{place}" for place in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], "node", **attributes)
    types = [helper.np_dtype_to_tensor_dtype(each.dtype) for each in inputs]
    ends = [
        helper.make_tensor_value_info(n, t, each.shape)
        for n, t, each in zip(names, types, inputs, strict=True)
    ]
    graph = helper.make_graph([node], "g", ends, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    feed = dict(zip(names, inputs, strict=True))
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)[0]
    found: list[tuple[Any, Any]] = []

    def after(step: Step) -> None:
        found.append((step.outputs[0], local_errors(step, arithmetic_of(np.float32))[0]))

    ExactFile(ir.from_proto(model)).run(feed, after=after)
    ((exact, error),) = found
    assert (np.abs(got - exact) <= 4 * error).all()
    assert (error <= 1e-3 * max(np.abs(each).max() for each in (exact, *inputs))).all()
