"""Run the tests of ort_ops on other releases of Python, each with a wheel of its own.

Run: python -m tests.environments.pythons [INTERPRETER ...]; without any, those of NAMES that are on the PATH.
"""

import shutil
import subprocess
import sys

from tests.environments.environment import build_wheel, make, run_tests, tell

NAMES = ("python3.12", "python3.13", "python3.14")
VERSION = "import platform; print(platform.python_version())"


def main(interpreters: list[str]) -> int:
    found = interpreters or [path for path in map(shutil.which, NAMES) if path]
    if not found:
        print(f"none of {', '.join(NAMES)} is on the PATH; name interpreters: make test-pythons PYTHONS=...")
        return 1
    outcomes = []
    for interpreter in found:
        done = subprocess.run([interpreter, "-c", VERSION], check=True, capture_output=True, text=True)
        name = f"python-{done.stdout.strip()}"
        python = make(name, interpreter, ["onnxruntime"])
        outcomes.append(run_tests(name, python, build_wheel(python, name)))
    return tell(outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
