"""Check what ``make wheel`` has put into dist/: python -m tests.environments.wheels [INTERPRETER ...].

What the wheels and the sdist hold; their metadata; that each wheel runs in a new environment with what its
extra ``cpu`` asks for and nothing else; that the sdist is built and installed without an index. Besides the
Python that runs this, interpreters are tried that are named, with the newest that the extra admits; a
wheel that none of them takes is a failure.
"""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.environments.contents import sdist_problems, sdist_sources, wheel_problems, wheel_sources
from tests.environments.environment import BUILD, ROOT, make, pip
from tests.environments.pythons import VERSION

DIST = ROOT / "dist"
RUNTIME = ("ml_dtypes", "numpy", "onnxruntime")  # what the extra `cpu` asks for
TOOLS = ("cmake", "ninja")  # what scikit-build-core asks for where the system has none
DOES_IT_RUN = ROOT / "tests" / "environments" / "installed.py"


def main(interpreters: Sequence[str]) -> int:
    wheels, sdists = sorted(DIST.glob("*.whl")), sorted(DIST.glob("*.tar.gz"))
    if not wheels or len(sdists) != 1:
        print(f"{len(wheels)} wheels and {len(sdists)} sdists are in dist/; make wheel puts them there")
        return 1
    problems = [problem for wheel in wheels for problem in wheel_problems(wheel, wheel_sources())]
    problems += sdist_problems(sdists[0], sdist_sources())
    for path in (*wheels, *sdists):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)
    check_metadata([*wheels, *sdists])
    tried = {run_wheel(sys.executable, ())}
    tried |= {run_wheel(interpreter, RUNTIME) for interpreter in interpreters}
    problems += [
        f"{wheel.name}: no interpreter takes it; name one: make test-wheel PYTHONS=..."
        for wheel in wheels
        if wheel.name not in tried
    ]
    run_sdist(sdists[0])
    print(*problems, f"{len(problems)} problems", sep="\n")
    return 1 if problems else 0


def check_metadata(paths: Sequence[Path]) -> None:
    """Raise CalledProcessError where an index would refuse the metadata, or couldn't show the README."""
    python = make("wheels-metadata", packages=("twine",))
    subprocess.run([python, "-m", "twine", "check", "--strict", *paths], check=True)


def run_wheel(interpreter: str, requirements: Sequence[str]) -> str:
    """Install the wheel that an interpreter takes, and its extra, into a new environment; return its name.

    Without an index: an extra that asked for more than RUNTIME would fail here.
    """
    version = subprocess.run([interpreter, "-c", VERSION], check=True, capture_output=True, text=True)
    name = f"wheels-{version.stdout.strip()}"
    python = new(name, interpreter, requirements, RUNTIME)
    folder = BUILD / name / "wheel"
    only = ("--no-index", "--only-binary", ":all:")
    pip(python, "download", *only, "--no-deps", "--find-links", DIST, "--dest", folder, "ort-ops")
    (wheel,) = folder.glob("*.whl")
    pip(python, "install", *only, f"{wheel}[cpu]")
    print(f"{wheel.name}: ", end="", flush=True)
    subprocess.run([python, "-I", DOES_IT_RUN], check=True, cwd=folder)
    return wheel.name


def run_sdist(sdist: Path) -> None:
    """Install the sdist without an index where only its build requirements are, then run it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    python = new("wheels-sdist", packages=(*project["build-system"]["requires"], *TOOLS))
    pip(python, "install", "--no-index", "--no-build-isolation", "--no-deps", "--no-cache-dir", sdist)
    constraint = ("--constraint", BUILD / "wheels-sdist" / "constraints.txt")
    pip(python, "install", *constraint, *RUNTIME)
    print(f"{sdist.name}: ", end="", flush=True)
    subprocess.run([python, "-I", DOES_IT_RUN], check=True, cwd=BUILD)


def new(
    name: str,
    interpreter: str = sys.executable,
    requirements: Sequence[str] = (),
    packages: Sequence[str] = RUNTIME,
) -> Path:
    """Return the interpreter of an environment that has nothing left in it from before."""
    shutil.rmtree(BUILD / name, ignore_errors=True)
    return make(name, interpreter, requirements, packages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
