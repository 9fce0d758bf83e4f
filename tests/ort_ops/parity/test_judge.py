"""One output of a run, judged by PyTorch's own error and by the bound of the arithmetic."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ort_ops.parity.judge import Golden, judge_output
from ort_ops.parity.verdict import Verdict

EXACT = np.array([1.0, 0.5, 0.25])
LAST_PLACE = 2.0**-23  # of numbers from 1 to 2 in float32


@dataclass(frozen=True)
class Within:
    """Bounds that are the same for every element."""

    size: float

    shape: tuple[int, ...] = EXACT.shape
    turning: int = 0

    def bound(self, name: str, kind: str = "", *, opposite: bool = False) -> Any:
        return np.full(self.shape, self.size)

    def undecided(self, name: str) -> Any:
        return np.arange(np.prod(self.shape)) < self.turning


@pytest.mark.parametrize(
    ("off", "bound", "verdict"),
    [
        (2 * LAST_PLACE, 1e-5, Verdict.EQUAL),
        (3 * LAST_PLACE, 1e-5, Verdict.LESS_PRECISE),
        (100 * LAST_PLACE, 1e-5, Verdict.RUNTIME_WRONG),
        (LAST_PLACE, 0.0, Verdict.RUNTIME_WRONG),  # a copy, say, which rounds nothing
    ],
)
def test_pytorch_is_exact_by_chance(off: float, bound: float, verdict: Verdict) -> None:
    own = EXACT.astype(np.float32)
    got = own + np.array([off, 0.0, 0.0], np.float32)
    golden = Golden("y", EXACT, own, own.dtype)
    row = judge_output(got, golden, Within(bound), rule=None, on_cpu=True)
    assert (row.torch_error, row.error) == (0.0, off)
    assert row.verdict is verdict, row.reason


def test_numbers_of_the_largest_size_have_a_rounding_too() -> None:
    exact = np.full(3, 65504.0)  # the largest float16: one unit in the last place further is infinite
    own = exact.astype(np.float16)
    golden = Golden("y", exact, own, own.dtype)
    row = judge_output(own - np.float16(32), golden, Within(1e3), rule=None, on_cpu=True)
    assert row.verdict is Verdict.EQUAL, row.reason


def judged(exact: Any, own: Any, got: Any) -> Verdict:
    golden = Golden("y", exact, own, own.dtype)
    return judge_output(got, golden, Within(0.0, exact.shape), rule=None, on_cpu=True).verdict


def test_the_error_of_large_elements_excuses_no_small_ones() -> None:
    exact = np.exp(np.linspace(-14, 21, 200))
    own = np.nextafter(exact.astype(np.float32), np.float32(0))
    assert judged(exact, own, np.nextafter(own, np.float32(np.inf))) is Verdict.EQUAL
    assert judged(exact, own, np.where(own < 200, 0, own)) is Verdict.RUNTIME_WRONG


def test_a_step_that_pytorch_turned_at_excuses_its_own_element_alone() -> None:
    exact = np.arange(10.0, 90.0)
    own = exact.astype(np.float32)
    own[7] -= 10
    assert judged(exact, own, own) is Verdict.EQUAL
    assert judged(exact, own, exact.astype(np.float32)) is Verdict.EQUAL
    for place, verdict in ((7, Verdict.EQUAL), (8, Verdict.RUNTIME_WRONG)):
        got = own.copy()
        got[place] += 1
        assert judged(exact, own, got) is verdict


def test_what_cancels_to_nothing_has_an_error_too() -> None:
    exact = np.array([0.0, 0.0, 1.0, 0.5])
    own = np.array([1e-8, -1e-8, 1 + LAST_PLACE, 0.5], np.float32)
    assert judged(exact, own, -own * np.array([1, 1, -1, -1], np.float32)) is Verdict.EQUAL
    assert judged(exact, own, own + np.array([1e-6, 0, 0, 0], np.float32)) is Verdict.RUNTIME_WRONG


def test_what_is_pytorchs_own_is_never_wrong() -> None:
    exact = np.array([1.0, np.nan, 3.0])
    own = np.array([1.0, 2.0, np.nan], np.float32)
    assert judged(exact, own, own) is Verdict.EQUAL
    assert judged(exact, own, own + np.array([1.0, 0, 0], np.float32)) is Verdict.RUNTIME_WRONG


@pytest.mark.parametrize("last", [np.inf, 70000.0 / 2])
def test_what_overflows_in_pytorch_may_do_so_in_a_run_or_not(last: float) -> None:
    exact = np.array([1.0, 2.0, 35000.0])  # half of what is beyond float16
    own = np.array([1.0, 2.0, np.inf], np.float16)
    assert judged(exact, own, np.array([1.0, 2.0, last], np.float16)) is Verdict.EQUAL
    assert judged(exact, own, np.array([1.0, 2.0, np.nan], np.float16)) is Verdict.RUNTIME_WRONG


@pytest.mark.parametrize(("turning", "verdict"), [(1, Verdict.CANNOT_SAY), (0, Verdict.RUNTIME_WRONG)])
def test_of_what_is_a_number_by_rounding_nothing_is_said(turning: int, verdict: Verdict) -> None:
    own = EXACT.astype(np.float32)
    golden = Golden("y", EXACT, own, own.dtype)
    got = np.array([np.nan, 0.5, 0.25], np.float32)
    bounds = Within(0.0, turning=turning)
    assert judge_output(got, golden, bounds, rule=None, on_cpu=True).verdict is verdict
    got[2] = 1
    assert judge_output(got, golden, bounds, rule=None, on_cpu=True).verdict is Verdict.RUNTIME_WRONG
