"""Random signatures and random models: a kernel sees what NumPy would have made of the inputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import ort_ops
from ort_ops.dtypes import DTYPES, DType

from .models import DOMAIN, builtin, model, node, tensor

# What ``run`` takes as NumPy arrays and hypothesis can make.
PLAIN = [dtype for dtype in DTYPES if dtype.onnx < 16 and dtype.name != "string"]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta"])
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
VALUES = st.one_of(
    INT64, FLOAT32, st.text(st.characters(exclude_characters="\0", codec="utf-8")), st.booleans()
)
VALUES |= st.lists(INT64, min_size=1) | st.lists(FLOAT32, min_size=1)

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def inputs(draw: Callable[..., Any]) -> tuple[DType, np.ndarray[Any, Any]]:
    dtype = draw(st.sampled_from(PLAIN))
    return dtype, draw(arrays.arrays(dtype.numpy, draw(SHAPES)))


def same_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@quick
@given(st.lists(inputs(), min_size=1, max_size=4), st.data())
def test_a_kernel_of_any_signature_sees_its_inputs_bit_for_bit(
    given_inputs: list[tuple[DType, np.ndarray[Any, Any]]], data: st.DataObject
) -> None:
    present = [True] + [data.draw(st.booleans()) for _ in given_inputs[1:]]
    present[-1] = True  # a node's last input is never an empty name
    attributes = data.draw(st.dictionaries(NAMES, VALUES))
    seen: dict[str, Any] = {}
    parameters = [
        f"x{i}: '{dtype.name}'{'' if i == 0 else ' = None'}" for i, (dtype, _) in enumerate(given_inputs)
    ]
    keywords = [f"{name}={value!r}" for name, value in default_of(attributes).items()]
    source = f"def kernel({', '.join(parameters)}{', *, ' if keywords else ''}{', '.join(keywords)}):\n"
    namespace: dict[str, Any] = {"seen": seen, "np": np}
    exec(source + "    seen.update({k: np.array(v) for k, v in locals().items()})\n    return x0", namespace)
    ort_ops.onnx_op(f"{DOMAIN}::Op")(namespace["kernel"])

    names = [f"x{i}" if there else "" for i, there in enumerate(present)]
    ends = [tensor(n, d.name) for n, (d, _) in zip(names, given_inputs, strict=True) if n]
    first = given_inputs[0]
    session = ort_ops.InferenceSession(
        model([node("Op", names, **attributes)], ends, [tensor("y", first[0].name)])
    )
    feed = {name: array for name, (_, array) in zip(names, given_inputs, strict=True) if name}
    (y,) = session.run(None, feed)

    assert same_bits(y, first[1])
    for i, (_, array) in enumerate(given_inputs):
        if present[i]:
            assert same_bits(seen[f"x{i}"], array)
        else:
            assert seen[f"x{i}"] == np.array(None)
    for name, value in attributes.items():
        assert seen[name].tolist() == value
        assert type(seen[name].tolist()) is type(value)
    ort_ops.registry._ops.clear()


def default_of(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return for each attribute another value of its kind, which only shows where the attribute is lost."""
    lost = {int: 77, float: 0.77, str: "lost", bool: False}
    return {
        name: [lost[type(value[0])]] if isinstance(value, list) else lost[type(value)]
        for name, value in attributes.items()
    }


STEPS: dict[str, Callable[..., Any]] = {
    "Neg": np.negative,
    "Abs": np.abs,
    "Add": np.add,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Transpose": np.transpose,
}


@quick
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.booleans(), st.data()), min_size=1, max_size=8))
def test_a_model_of_kernels_and_built_in_nodes_computes_what_numpy_does(steps: Any) -> None:
    """Every node is, at random, a built-in one or our kernel of the same function."""
    for name, function in STEPS.items():
        register(name, function)
    x = np.arange(9, dtype=np.float32).reshape(3, 3) - 4
    values, nodes = [x], []
    for number, (name, ours, data) in enumerate(steps):
        arity = STEPS[name].nin if isinstance(STEPS[name], np.ufunc) else 1
        chosen = [data.draw(st.integers(0, number)) for _ in range(arity)]
        sources = ["x" if i == 0 else f"v{i}" for i in chosen]
        made = node(name, sources, [f"v{number + 1}"]) if ours else builtin(name, sources, [f"v{number + 1}"])
        made.name = f"n{number}"
        nodes.append(made)
        values.append(STEPS[name](*(values[i] for i in chosen)).astype(np.float32))
    outputs = [tensor(f"v{i}") for i in range(1, len(values))]
    session = ort_ops.InferenceSession(model(nodes, [tensor("x")], outputs))
    for got, expected in zip(session.run(None, {"x": x}), values[1:], strict=True):
        np.testing.assert_array_equal(got, expected)
    ort_ops.registry._ops.clear()


def register(name: str, function: Callable[..., Any]) -> None:
    arity = function.nin if isinstance(function, np.ufunc) else 1
    one = ort_ops.onnx_op(f"{DOMAIN}::{name}", inputs=["float32"] * arity)
    if arity == 1:
        one(lambda a: function(a))
    else:
        one(lambda a, b: function(a, b))
