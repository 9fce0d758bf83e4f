"""make test-cuda fails where there is no GPU, or where a test was skipped."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.environments import cuda


@pytest.mark.skipif(cuda.missing() == "", reason="there is a GPU")
def test_without_a_gpu_it_fails_and_says_why() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.environments.cuda"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "CUDA" in done.stderr


def test_the_files_that_are_run_have_all_tests_for_a_gpu() -> None:
    files = cuda.files()
    assert "tests/ort_ops/test_cuda.py" in files
    root = Path(__file__).parents[2]
    others = [path for path in (root / "tests").rglob("*.py") if str(path.relative_to(root)) not in files]
    marked = re.compile(r"mark\.cuda\b")
    assert [path for path in others if marked.search(path.read_text(encoding="utf-8"))] == []


def test_what_hangs_is_interrupted() -> None:
    assert cuda.run(["-c", "pass"], 60) == 0
    assert cuda.run(["-c", "import time; time.sleep(600)"], 0.5) != 0


def test_a_skip_is_no_pass(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite><testcase classname='a' name='passes'/>"
        "<testcase classname='a' name='skips'><skipped message='no GPU'/></testcase>"
        "<testcase classname='a' name='fails'><failure message='1 != 2&#10;more'/></testcase>"
        "</testsuite></testsuites>"
    )
    assert cuda.not_passed(report) == ["skipped a::skips: no GPU", "failure a::fails: 1 != 2"]


def test_the_benchmark_runs_as_far_as_a_cpu_can() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks.cuda", "--smoke"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "('float32', '64', '2'" in done.stdout
