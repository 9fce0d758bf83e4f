"""Run the tests of ort_ops on other releases of Python.

Run: python -m tests.environments.pythons [INTERPRETER ...]; without any, those of NAMES that are on the PATH.
The first interpreter from 3.12 on builds the wheel of the stable ABI, which all the later ones are given. A
free-threaded one (3.13t) has a wheel of its own, and its lock on, as the bridge would turn it on.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.environments.environment import Outcome, build_wheel, make, run_tests, tell

NAMES = ("python3.12", "python3.13", "python3.14")
VERSION = "import platform, sys; print(platform.python_version() + sys.abiflags)"
# What is not taken from constraints.txt: free-threaded Python has no wheels of those releases.
NEWEST = ("onnxruntime",)
NEWEST_FREE_THREADED = (*NEWEST, "hypothesis", "ml_dtypes", "onnx")


def main(interpreters: list[str]) -> int:
    found = interpreters or [path for path in map(shutil.which, NAMES) if path]
    if not found:
        print(f"none of {', '.join(NAMES)} is on the PATH; name interpreters: make test-pythons PYTHONS=...")
        return 1
    outcomes = []
    stable: Path | None = None
    for interpreter in found:
        done = subprocess.run([interpreter, "-c", VERSION], check=True, capture_output=True, text=True)
        version = done.stdout.strip()
        name, free_threaded = f"python-{version}", version.endswith("t")
        python = make(name, interpreter, NEWEST_FREE_THREADED if free_threaded else NEWEST)
        if free_threaded or version.startswith("3.11."):
            wheel = build_wheel(python, name)
        else:
            wheel = stable = stable or build_wheel(python, name)
            if "-cp312-abi3-" not in wheel.name:
                outcomes.append(Outcome(name, 0, 0, (f"{wheel.name} is not of the stable ABI",)))
                continue
        outcomes.append(run_tests(name, python, wheel, {"PYTHON_GIL": "1"} if free_threaded else None))
        print(name, "done with", wheel.name, file=sys.stderr, flush=True)
    return tell(outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
