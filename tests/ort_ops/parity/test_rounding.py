"""How far rounding errors may carry outputs, as evaluations with them show it."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import parser

import ort_ops
from ort_ops.parity.exact import ExactFile
from ort_ops.parity.rounding import rounding_spread, spread_of
from ort_ops.parity.runtime_side import RoundingBounds, own_arithmetic
from ort_ops.parity.sample import Given, Sample

SIGNS = np.random.default_rng(0).choice([-1.0, 1.0], (4, 8))


def test_an_element_that_turns_excuses_none_beside_it() -> None:
    exact = np.full(8, 30.0)
    samples = [exact + 1e-6 * signs + 10 * (np.arange(8) == 3) for signs in SIGNS]
    allowed = spread_of(exact, samples)
    assert allowed[3] > 10
    assert np.delete(allowed, 3).max() < 1e-5


def test_an_element_that_no_sample_moved_may_be_off_as_most_are() -> None:
    exact = np.array([3.0, 0.0, 2.0, 1.0, 4.0, 5.0, 6.0, 7.0])
    samples = [exact + 1e-6 * signs * (np.arange(8) > 1) for signs in SIGNS]
    assert spread_of(exact, samples).min() > 1e-6


def test_large_elements_excuse_no_small_ones() -> None:
    exact = 10.0 ** np.array([8, 8, 8, 8, 8, 0, 0, 0])
    samples = [exact * (1 + 1e-7 * signs * (np.arange(8) < 5)) for signs in SIGNS]
    assert spread_of(exact, samples)[5:].max() < 1e-2


@pytest.fixture
def kernel() -> Iterator[None]:
    @ort_ops.onnx_op("tests.rounding::Exp")
    def exp(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.exp(x)

    yield
    ort_ops.registry._ops.remove(exp)


@pytest.mark.usefixtures("kernel")
def test_elements_of_a_custom_node_are_off_by_a_share_of_their_size() -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 18, "tests.rounding": 1]> '
        "g (float[n, 5] x) => (float[n, 5] y) { y = tests.rounding.Exp(x) }"
    )
    file = ExactFile(ir.from_proto(parser.parse_model(text)))
    x = np.array([[-14.0, 0.0, 1.0, 2.0, 21.0]], np.float32)
    exact = file.run({"x": x})["y"]
    samples = rounding_spread(file, {"x": x}, own_arithmetic(file))
    allowed = spread_of(exact, [each["y"] for each in samples])
    assert (allowed[0, 1:] < 1e-3 * exact[0, 1:]).all()
    assert (allowed > 1e-7 * exact).all()


@pytest.mark.parametrize(
    ("body", "numbers"),
    [
        ("m = ReduceMean(x) q = Mul(m, m) s = Mul(x, x) e = ReduceMean(s) v = Sub(e, q) y = Sqrt(v)", False),
        ("e = Exp(x) y = Log(e)", False),  # beyond float32, and back
        ("e = Exp(x) y = Identity(e)", False),
        ("e = Tanh(x) y = Log(e)", True),
    ],
)
def test_what_rounding_or_an_overflow_makes_of_numbers_is_known(body: str, numbers: bool) -> None:
    text = f'<ir_version: 8, opset_import: ["": 18]> g (float[n, 4] x) => (float[n, m] y) {{ {body} }}'
    file = ExactFile(ir.from_proto(parser.parse_model(text)))
    feed = {"x": np.full((1, 4), 100.1, np.float32) + np.arange(4, dtype=np.float32) * np.float32(1e-5)}
    exact = file.run(feed)
    given = Given(((), {}), feed)
    bounds = RoundingBounds(file, Sample(given, [], [], exact))
    assert np.isfinite(exact["y"]).all()
    assert bool(bounds.undecided("y").all()) is not numbers
