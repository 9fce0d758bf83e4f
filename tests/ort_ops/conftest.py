from collections.abc import Iterator

import pytest

from ort_ops import registry


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    """Each test registers what it likes; the next one finds the registry as it was."""
    before = list(registry._ops)
    yield
    registry._ops[:] = before
