"""How far rounding errors may carry outputs, as evaluations with them show it."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import parser
from torch import Tensor
from torch.autograd import Function

import ort_ops
from ort_ops.export import export
from ort_ops.parity import check
from ort_ops.parity.exact import ExactFile
from ort_ops.parity.given import Given
from ort_ops.parity.rounding import spread_of
from ort_ops.parity.runtime_side import RoundingBounds
from ort_ops.parity.sample import Sample
from ort_ops.parity.verdict import GOOD

from .models import Model, uniform

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


def test_where_few_of_a_row_were_moved_by_chance_others_rows_tell() -> None:
    exact, by = np.full((6, 3), 2.0), np.full((6, 3), 1e-7)
    by[0] = [0.0, 1e-9, 1e-7]
    assert spread_of(exact, [exact + by]).min() > 1e-7


def test_large_elements_excuse_no_small_ones() -> None:
    exact = 10.0 ** np.array([8, 8, 8, 8, 8, 0, 0, 0])
    samples = [exact * (1 + 1e-7 * signs * (np.arange(8) < 5)) for signs in SIGNS]
    assert spread_of(exact, samples)[5:].max() < 1e-2


class Gelu(Function):
    """By what is left of 1, which is exact where x is far below 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 0.5 * x * torch.erfc(-x / math.sqrt(2))

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.rounding::Gelu", x)


@pytest.fixture
def kernel() -> Iterator[None]:
    @ort_ops.onnx_op("tests.rounding::Gelu")
    def gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
        half = np.float32(0.5) * (np.float32(1) + torch.erf(torch.from_numpy(x / np.float32(2**0.5))).numpy())
        return half * x  # type: ignore[no-any-return]

    yield
    ort_ops.registry._ops.remove(gelu)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("shape", [(64, 64), (400,)])
def test_a_kernel_of_another_formula_is_not_wrong(shape: tuple[int, ...]) -> None:
    model = Model(lambda m, x: Gelu.apply(x)).eval()
    x = 12 * uniform(*shape) - 6
    report = check(model, export(model, (x,), verbose=False), x)
    assert report.verdict in GOOD, str(report)


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
