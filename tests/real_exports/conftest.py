import importlib.util
from collections.abc import Iterator

import pytest

from ort_ops import registry

LIBRARIES = ("brevitas", "mct_quantizers", "transformers")
# make test-real-exports has them, each in an environment of its own.
collect_ignore = [f"test_{name}.py" for name in LIBRARIES if importlib.util.find_spec(name) is None]


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    before = list(registry._ops)
    yield
    registry._ops = before
