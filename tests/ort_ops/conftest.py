from collections.abc import Iterator

import pytest

from ort_ops import registry


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a package that isn't there, which a mark or an array="torch" among its cases says."""
    needed = {mark.args[0] for mark in item.iter_markers("needs")}
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        needed |= {"torch"} if item.callspec.params.get("array") == "torch" else set()
    for package in needed:
        pytest.importorskip(package)


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    """Each test registers what it likes; the next one finds the registry as it was."""
    before = list(registry._ops)
    yield
    registry._ops = before
