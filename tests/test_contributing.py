"""CONTRIBUTING.md names every make target, and no file that isn't there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATHS = re.findall(
    r"(?<!<)(?:benchmarks|examples|mylinear|ort_ops|tests|\.ci|\.github)/[\w./]*", CONTRIBUTING
)


def targets(makefile: str) -> set[str]:
    """What is declared as phony."""
    return {name for line in re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE) for name in line.split()}


def test_the_table_has_every_target() -> None:
    table = re.findall(r"^\| `([\w-]+)` \|", CONTRIBUTING, re.MULTILINE)
    assert sorted(table) == sorted(targets((ROOT / "Makefile").read_text(encoding="utf-8")))


def test_a_target_is_found() -> None:
    assert targets("PIP := pip\n.PHONY: setup test\n.PHONY: wheel\nsetup:\n") == {"setup", "test", "wheel"}


@pytest.mark.parametrize("path", sorted(set(PATHS)))
def test_a_file_that_is_named_is_there(path: str) -> None:
    assert (ROOT / path.rstrip(".")).exists()


MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("ort_ops", "mylinear")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)


def test_the_map_has_every_module() -> None:
    assert len(MODULES) > 100
    named = set(re.findall(r"\w+\.py", CONTRIBUTING))
    assert [path for path in MODULES if path.rpartition("/")[2] not in named] == []
