"""Requests put together: each gets its own answer, and its own error."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ort_ops.deploy.batchable import check_batchable
from ort_ops.errors import BundleError
from ort_ops.model import Model, Value

batching = pytest.importorskip("ort_ops.deploy.ray.batching", exc_type=ImportError)


class Doubling:
    """A session's stand-in that gives 2·x and x's rows' sums, and refuses NaN."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def __call__(self, feed: Any) -> list[Any]:
        x = feed["x"]
        self.runs.append(len(x))
        if np.isnan(x).any():
            raise ArithmeticError("NaN")
        return [2 * x, x.sum(axis=tuple(range(1, x.ndim)))]


def answers(feeds: Sequence[Any], most: int) -> tuple[list[Any], list[int]]:
    run = Doubling()
    return batching.run_together(feeds, ["y", "sum"], run, most), run.runs


@pytest.mark.parametrize("most", [0, 1, 4, 100])
def test_each_request_gets_its_own_answer(most: int) -> None:
    rng = np.random.default_rng(0)
    shapes = [(1, 3), (2, 3), (0, 3), (4, 3), (9, 3), (1, 5), (3, 3), (2, 5), (1, 3)]
    feeds = [{"x": rng.standard_normal(shape).astype(np.float32)} for shape in shapes]
    feeds.append({"x": feeds[0]["x"].astype(np.float64)})
    found, runs = answers(feeds, most)
    for feed, (y, total) in zip(feeds, found, strict=True):
        assert y.dtype == feed["x"].dtype
        assert np.array_equal(y, 2 * feed["x"])
        assert np.array_equal(total, feed["x"].sum(axis=1))
    assert sum(runs) == sum(shape[0] for shape in shapes) + 1
    if most > 1:
        assert len(runs) < len(feeds)
        assert max(runs) <= max(most, 9)


def test_shapes_and_dtypes_that_differ_run_apart() -> None:
    feeds = [{"x": np.ones((1, n), dtype)} for n in (2, 3) for dtype in (np.float32, np.float64)] * 2
    _, runs = answers(feeds, 100)
    assert runs == [2, 2, 2, 2]


def test_a_request_that_fails_fails_alone() -> None:
    feeds = [{"x": np.full((1, 2), value, np.float32)} for value in (1, np.nan, 3)]
    found, runs = answers(feeds, 100)
    assert runs == [3, 1, 1, 1]
    assert isinstance(found[1], ArithmeticError)
    assert [found[0][1], found[2][1]] == [[2.0], [6.0]]


def test_what_has_no_rows_in_common_runs_alone() -> None:
    seen: list[Any] = []

    def run(feed: Any) -> list[Any]:
        seen.append(feed)
        return [feed["x"]]

    feeds: list[Any] = [
        {"x": np.ones((2, 1)), "z": np.ones(3)},
        {"x": np.ones(()), "z": np.ones(1)},
        {"x": [1.0, 2.0], "z": np.ones(2)},
    ]
    batching.run_together([*feeds, *feeds], ["y"], run, 100)
    assert len(seen) == 6


def test_an_output_without_a_row_for_each_is_refused() -> None:
    def total(feed: Any) -> list[Any]:
        return [feed["x"].sum(keepdims=True)]

    with pytest.raises(BundleError, match=r"'y' is \(1, 1\) for 4 rows; this model can't be batched"):
        batching.run_together([{"x": np.ones((2, 2))}] * 2, ["y"], total, 100)


@pytest.mark.parametrize("value", [Value("x", "tensor", 1, (2, 3)), Value("x", "sequence"), Value("x")])
def test_a_model_without_a_free_first_dimension_is_refused(value: Value) -> None:
    free = Value("y", "tensor", 1, ("n", 3))
    check_batchable(Model({}, (), frozenset(), inputs=(free,), outputs=(free,)))
    with pytest.raises(BundleError, match=r"'x' is .*; expected a first dimension that is free"):
        check_batchable(Model({}, (), frozenset(), inputs=(free,), outputs=(value,)))
