"""Law: no kernel, however wrong, ends the process. Each behaviour has a process of its own."""

import subprocess
import sys

import pytest

from .__main__ import MODULES
from .base import BEHAVIOURS


def run(name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.ort_ops.behaviours", name]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviour(name: str) -> None:
    expected = BEHAVIOURS[name]
    if expected.needs:
        pytest.importorskip(expected.needs)
    done = run(name)
    assert tuple(done.stdout.splitlines()) == expected.says, done.stderr
    assert done.returncode == expected.code, done.stderr


def test_a_process_that_aborts_is_seen() -> None:
    done = run("no_such_behaviour")
    assert done.returncode == 1
    crash = [sys.executable, "-c", "import os; os.abort()"]
    assert subprocess.run(crash, check=False, capture_output=True).returncode == -6


def test_there_are_at_least_a_hundred() -> None:
    assert len(BEHAVIOURS) >= 100
    assert len(MODULES) == 8
