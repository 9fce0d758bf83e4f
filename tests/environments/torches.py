"""Run the tests that need torch on other releases of it: python -m tests.environments.torches.

Names of releases (2.9.1, newest) limit it to these. What ``make test`` runs on is in constraints.txt.
"""

import sys
from pathlib import Path

from tests.environments.environment import PACKAGES, build_wheel, make, run_tests, tell

RELEASES = {
    "2.9.1": "torch==2.9.1",  # what pyproject.toml admits at the least, with its last mends
    "newest": "torch",
}
# What the extras torch, cli and report name besides.
OTHERS = ("matplotlib", "onnxscript", "rich", "safetensors", "scikit-learn", "typer")
TESTS = ("tests/ort_ops", "tests/mylinear")


def main(names: list[str]) -> int:
    wheel = build_wheel(Path(sys.executable), "torches")
    outcomes = []
    for name in names or RELEASES:
        python = make(f"torch-{name}", requirements=[RELEASES[name]], packages=(*PACKAGES, *OTHERS))
        outcomes.append(run_tests(f"torch-{name}", python, wheel, tests=TESTS))
        print(outcomes[-1].name, "done", file=sys.stderr, flush=True)
    return tell(outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
