import ml_dtypes
import numpy as np
import pytest

from ort_ops.errors import ParityError
from ort_ops.parity import arithmetic_of, dot_error
from ort_ops.parity.tolerance import TF32

UNITS = {
    np.float16: (2.0**-24, 2.0**-11),
    ml_dtypes.bfloat16: (2.0**-24, 2.0**-8),
    np.float32: (2.0**-24, 2.0**-24),
    np.float64: (2.0**-53, 2.0**-53),
}


@pytest.mark.parametrize("dtype", UNITS)
def test_units_are_half_the_distance_from_one_to_the_next_number(dtype):
    arithmetic = arithmetic_of(dtype)
    assert (arithmetic.unit, arithmetic.storage) == UNITS[dtype]


@pytest.mark.parametrize("terms", [1, 7, 64, 1000])
def test_sums_in_float32_stay_inside_the_bound_in_any_order(terms):
    random = np.random.default_rng(terms)
    a, b = random.standard_normal((2, 200, terms)).astype(np.float32)
    exact = (a.astype(np.float64) * b.astype(np.float64)).sum(1)
    bound = dot_error(terms, (np.abs(a.astype(np.float64)) * np.abs(b)).sum(1), arithmetic_of(np.float32))
    forward = np.zeros(200, np.float32)
    for i in range(terms):
        forward += a[:, i] * b[:, i]
    for result in (forward, np.einsum("ri,ri->r", a, b), (a[:, ::-1] * b[:, ::-1]).sum(1)):
        assert (np.abs(result - exact) <= bound).all()


def test_a_sum_with_a_wrong_term_leaves_the_bound():
    a = np.ones((1, 64), np.float32)
    wrong = a.copy()
    wrong[0, 3] = 1.001
    bound = dot_error(64, np.abs(a).sum(1), arithmetic_of(np.float32))
    assert (np.abs((wrong.astype(np.float64) - a).sum(1)) > bound).all()


def test_factors_rounded_to_tf32_stay_inside_its_bound_and_leave_float32s():
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 100, 64)).astype(np.float32)
    exact = (a.astype(np.float64) * b).sum(1)
    narrow = [(x.view(np.uint32) + 0x1000 & 0xFFFFE000).view(np.float32) for x in (a, b)]
    error = np.abs((narrow[0].astype(np.float64) * narrow[1]).sum(1) - exact)
    magnitude = np.abs(a.astype(np.float64) * b).sum(1)
    assert (error <= dot_error(64, magnitude, TF32)).all()
    assert (error > dot_error(64, magnitude, arithmetic_of(np.float32))).any()


def test_a_sum_too_long_for_its_arithmetic_is_refused():
    with pytest.raises(ParityError, match="every digit"):
        dot_error(2**24, np.ones(1), arithmetic_of(np.float32))


def test_integers_have_no_rounding():
    with pytest.raises(ParityError, match="no rounding errors"):
        arithmetic_of(np.int64)
