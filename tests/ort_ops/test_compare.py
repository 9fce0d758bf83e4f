import ml_dtypes
import numpy as np
import pytest

from ort_ops.errors import ParityError
from ort_ops.parity import compare

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def zeros(shape):
    return np.zeros(shape, np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbours_are_one_ulp_apart(dtype):
    x = np.array([1.0, -1.0, 1e-3], dtype)
    bits = x.view({2: np.int16, 4: np.int32, 8: np.int64}[x.dtype.itemsize])
    found = compare((bits + 1).view(dtype), x, zeros(3))
    assert (found.max_ulp, found.exceeding) == (1, 3)


def test_zero_and_minus_zero_are_equal_and_the_signs_meet_there():
    tiny = np.float32(1e-45)
    assert compare(np.array([-0.0], "f"), np.array([0.0], "f"), zeros(1)).within
    assert compare(np.array([-tiny]), np.array([tiny]), zeros(1)).max_ulp == 2


def test_the_largest_ulp_distance_does_not_overflow():
    top = np.finfo(np.float64).max
    found = compare(np.array([-top]), np.array([top]), np.array([np.inf]))
    assert found.max_ulp == 2 * int(np.float64(top).view(np.int64))


@pytest.mark.parametrize(
    ("got", "expected", "within"),
    [
        (np.nan, np.nan, True),
        (np.inf, np.inf, True),
        (np.nan, 1.0, False),
        (1.0, np.nan, False),
        (np.inf, -np.inf, False),
        (np.inf, 1.0, False),
    ],
)
def test_nan_and_infinity_equal_only_themselves_whatever_is_allowed(got, expected, within):
    assert compare(np.array([got]), np.array([expected]), np.array([1e300])).within is within


def test_the_worst_element_is_the_one_nearest_its_own_tolerance():
    got, expected = np.array([[1.0, 2.0], [3.0, 4.5]]), np.array([[1.1, 2.0], [3.0, 4.0]])
    found = compare(got, expected, np.array([[0.01, 1], [1, 1]]))
    assert found.index == (0, 0)
    assert found.exceeding == 1
    assert found.max_abs == 0.5


def test_no_elements_compare_to_nothing():
    found = compare(np.empty((0, 3), "f"), np.empty((0, 3), "f"), zeros((0, 3)))
    assert (found.elements, found.within, found.index) == (0, True, None)


@pytest.mark.parametrize(
    ("got", "expected"), [(np.ones(3, "f"), np.ones(3)), (np.ones((3, 1)), np.ones((1, 3)))]
)
def test_nothing_is_cast_or_broadcast(got, expected):
    with pytest.raises(ParityError, match="one dtype and one shape"):
        compare(got, expected, zeros(got.shape))


def test_integers_have_no_ulp():
    with pytest.raises(ParityError, match="units in the last place"):
        compare(np.array([1]), np.array([2]), zeros(1))
