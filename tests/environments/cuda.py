"""Everything that needs a GPU: python -m tests.environments.cuda, by an interpreter that has what it needs.

That is an NVIDIA GPU, torch with CUDA, onnxruntime-gpu and this project with its extras torch and test. Where
the provider isn't there, or a test is skipped, this fails: nothing passes because nothing ran.
"""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import onnxruntime
import torch

from tests.environments.environment import BUILD, ROOT

REPORT = BUILD / "cuda" / "report.xml"


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
    command = ["-m", "pytest", "-m", "cuda", "--parity-require", "cuda", f"--junit-xml={REPORT}"]
    tests = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    problems = not_passed(REPORT) if REPORT.exists() else ["pytest wrote no report"]
    print(*problems, sep="\n")
    if tests or problems:
        return 1
    return subprocess.run([sys.executable, "-m", "benchmarks.cuda"], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
