"""Which constants of a file are weights of the model, and which are but for some elements."""

from typing import Any

import numpy as np
import pytest

from ort_ops.parity import weights
from ort_ops.parity.weights import match_weights

RANDOM = np.random.default_rng(0)


def array(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_weights_are_found_put_together_and_but_for_one_element() -> None:
    state = {"a": array(30, 40), "b": array(50, 40)}
    joined = np.concatenate([state["b"], state["a"][::-1]])
    off = joined.copy()
    off[3, 5] += 1
    exact, changed = match_weights([("joined", joined), ("off", off), ("other", array(80, 40))], state)
    assert exact == {"joined", "off"}
    assert [str(each) for each in changed] == [
        "off differs from the model's weights put together in 1 of 3200 elements"
    ]


def test_numbers_that_are_most_of_a_pools_by_chance_are_no_weights() -> None:
    dense = np.arange(2**20, dtype=np.uint32).view(np.float32)  # each number there is, of one size
    others = RANDOM.integers(2**20, size=4000).astype(np.uint32).view(np.float32)
    assert match_weights([("others", others)], {"dense": dense}) == (set(), [])


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (1, 9), (33, 17)])
def test_what_is_a_weight_times_factors_is_not_looked_for_among_all(shape: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(weights, "_Pool", lambda state: None)
    state = {"weight": array(*shape), "other": array(*shape)}
    factors = RANDOM.uniform(0.5, 2, (shape[0], *(1 for _ in shape[1:]))).astype(np.float32)
    folded = state["weight"] * factors
    off = folded.copy()
    off[0, 3] *= np.float32(1 + 1e-4)
    exact, changed = match_weights([("folded", folded), ("off", off)], state)
    assert exact == set()
    assert [(each.initializer, each.parameter) for each in changed] == [
        ("off", "weight times a factor a channel")
    ]
