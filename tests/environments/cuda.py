"""Everything that needs a GPU: python -m tests.environments.cuda, by an interpreter that has what it needs.

That is an NVIDIA GPU, torch with CUDA, onnxruntime-gpu and this project with its extras torch and test. Where
the provider isn't there, or a test is skipped, this fails: nothing passes because nothing ran. Each step is
done though one before it failed, and what failed is said at the end, and in build/environments/cuda.
"""

import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import onnxruntime
import torch

from tests.environments.environment import BUILD, ROOT

REPORT = BUILD / "cuda" / "report.xml"
FAILED = BUILD / "cuda" / "failed.txt"
# Worker processes: one that CUDA takes down fails its test and no other.
TESTS = (
    *("-m", "pytest", "-m", "cuda", "--numprocesses", "4", "--durations", "10", f"--junit-xml={REPORT}"),
    *("-o", "faulthandler_timeout=120"),  # says where a test hangs
)
TESTING, MEASURING = 300, 1800
"""Seconds in which each has to end: a kernel that hangs would hang for ever."""


def missing() -> str:
    """Say what is missing; "" where nothing is."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    there = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in there:
        return f"onnxruntime {onnxruntime.__version__} has {', '.join(there)}: install onnxruntime-gpu alone"
    return ""


def files() -> list[str]:
    """Return the files with tests that need a GPU; what others import needn't be installed."""
    marked = re.compile(r"\bmark\.cuda\b")
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in found if marked.search(path.read_text(encoding="utf-8"))]


def run(command: list[str], seconds: float) -> int:
    """Run Python; returns its exit code. After so many seconds it is interrupted, and reports what it has."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, preexec_fn=_heed_interrupts)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(20) or 1
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _heed_interrupts() -> None:
    """Undo what a shell does for commands in the background, which ignore interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def not_passed(report: Path) -> list[str]:
    """Return the tests that failed or were skipped, with what they said."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        for kind in ("failure", "error", "skipped"):
            for problem in case.findall(kind):
                said = (problem.get("message") or "").partition("\n")[0]
                found.append(f"{kind} {case.get('classname')}::{case.get('name')}: {said}")
    return found


def main() -> int:
    if lacking := missing():
        print(lacking, file=sys.stderr)
        return 3
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.unlink(missing_ok=True)
    tests = run([*TESTS, *files()], TESTING)
    problems = not_passed(REPORT) if REPORT.exists() else ["pytest wrote no report"]
    FAILED.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
    measured = run(["-m", "benchmarks.cuda"], MEASURING)
    print(*problems, f"tests: exit code {tests}; benchmark: exit code {measured}", sep="\n")
    return 1 if problems else tests or measured


if __name__ == "__main__":
    sys.exit(main())
