"""Operators on <ort_ops/op.hpp> whose authors err: each is told, and no process ends."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from .conftest import Session, session_with


@pytest.fixture
def session(mistakes: Path) -> Session:
    return partial(session_with, mistakes)


def test_messages_have_numbers_of_8_bits_and_dimensions(session: Session) -> None:
    graph = "g (uint8[n, 3] x) => (float[m] y) { y = n.Say <early = 0> (x) }"
    with pytest.raises(Exception, match=r"Say: x is 0 and -5; expected none"):
        session(graph).run(None, {"x": np.zeros((1, 3), np.uint8)})
    with pytest.raises(Exception, match=r"Say: x is \(n, 3\); expected none"):
        session(graph.replace("= 0", "= 1"))
