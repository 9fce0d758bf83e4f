"""Virtual environments below build/, in which the tests of ort_ops run against a wheel of this project.

The tests run from a copy of theirs, so that what is imported is the wheel and not the source beside it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "environments"
PACKAGES = (
    "cmake",
    "hypothesis",
    "ml_dtypes",
    "ninja",
    "numpy",
    "onnx",
    "onnxruntime",
    "pytest",
    "pytest-xdist",
    "safetensors",
)
DECLARED = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Outcome:
    """What became of the tests in one environment."""

    name: str
    passed: int
    skipped: int
    failed: tuple[str, ...]  # names, with the first line of what went wrong

    @property
    def good(self) -> bool:
        return self.passed > 0 and not self.failed


def build_wheel(python: Path, name: str, *settings: str) -> Path:
    """Return a wheel of the project for an interpreter; ``settings`` are those of scikit-build-core."""
    folder = BUILD / name / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    options = [f"-C{setting}" for setting in (f"build-dir={BUILD / name / 'cmake'}", *settings)]
    constraint = ["--build-constraint", ROOT / "constraints.txt"]
    pip(python, "wheel", "--no-deps", "--wheel-dir", folder, *constraint, *options, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def make(
    name: str,
    interpreter: str = sys.executable,
    requirements: Sequence[str] = (),
    packages: Sequence[str] = PACKAGES,
) -> Path:
    """Return the interpreter of an environment: packages of constraints.txt, but for ``requirements``."""
    folder = BUILD / name
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", folder / "venv"], check=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(_constraints(requirements)) + "\n", encoding="utf-8")
    pip(python, "install", "--upgrade", "--constraint", constraints, "pip")
    # An older wheel before a newer source, which may take longer to build than the tests to run.
    pip(python, "install", "--prefer-binary", "--constraint", constraints, *packages, *requirements)
    return python


def _constraints(requirements: Iterable[str]) -> list[str]:
    """Return the lines of constraints.txt, without those on packages that are asked for otherwise."""
    others = {_name(requirement) for requirement in requirements}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#") and _name(line) not in others]


def _name(requirement: str) -> str:
    found = DECLARED.match(requirement)
    return found[0].lower().replace("_", "-") if found else ""


def pip(python: Path, command: str, *arguments: str | Path) -> None:
    options = ("--disable-pip-version-check", "--quiet")
    subprocess.run([python, "-m", "pip", command, *options, *arguments], check=True)


def run_tests(
    name: str,
    python: Path,
    wheel: Path,
    environ: Mapping[str, str] | None = None,
    tests: Sequence[str] = ("tests/ort_ops", "tests/mylinear/test_library.py"),
) -> Outcome:
    """Install a wheel and run tests against it: those of ort_ops and of the library, which need no torch."""
    pip(python, "install", "--no-deps", "--force-reinstall", wheel)
    folder = BUILD / name / "tests"
    shutil.rmtree(folder, ignore_errors=True)
    for each in ("tests", "examples"):
        shutil.copytree(ROOT / each, folder / each, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    report = folder / "report.xml"
    command = [
        python,
        "-m",
        "pytest",
        "--quiet",
        "--numprocesses",
        "2",
        f"--junit-xml={report}",
        *tests,
    ]
    log = folder / "log.txt"
    with log.open("wb") as file:
        subprocess.run(
            command, cwd=folder, env=os.environ | (environ or {}), stdout=file, stderr=file, check=False
        )
    if not report.exists():
        return Outcome(name, 0, 0, (f"pytest ended early: see {log.relative_to(ROOT)}",))
    return _read(name, report)


def _read(name: str, report: Path) -> Outcome:
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = []
    for case in cases:
        for problem in (*case.findall("failure"), *case.findall("error")):
            text = (problem.get("message") or "").strip()
            said = text.partition("\n")[0] or (problem.text or "").strip().rpartition("\n")[2]
            failed.append(f"{case.get('classname')}::{case.get('name')}: {said[:200]}")
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Outcome(name, len(cases) - skipped - len(failed), skipped, tuple(failed))


def tell(outcomes: Sequence[Outcome]) -> int:
    """Print a table and every failure; return the exit code."""
    print("| environment | passed | failed | skipped |\n| --- | --- | --- | --- |")
    for outcome in outcomes:
        print(f"| {outcome.name} | {outcome.passed} | {len(outcome.failed)} | {outcome.skipped} |")
    for outcome in outcomes:
        for failure in outcome.failed:
            print(f"{outcome.name}: {failure}")
    return 0 if outcomes and all(outcome.good for outcome in outcomes) else 1
