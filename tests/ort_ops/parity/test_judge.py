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

    def bound(self, name: str, kind: str = "") -> Any:
        return np.full(EXACT.shape, self.size)

    def undecided(self, name: str) -> Any:
        return np.zeros(EXACT.shape, bool)


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
