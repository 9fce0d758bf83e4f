"""Run tests/real_exports, and the example with entmax, each library in an environment of its own.

Run: python -m tests.environments.real_exports. Names of libraries limit it to these.
"""

import sys
from pathlib import Path

from tests.environments.environment import PACKAGES, build_wheel, make, run_tests, tell

# What is installed for each library. torch is the release of constraints.txt.
LIBRARIES = {
    "brevitas": ("brevitas==0.13.4", "onnxoptimizer==0.4.2", "setuptools<81"),
    "mct_quantizers": ("mct-quantizers==1.7.0",),
    "entmax": ("entmax==1.3",),
    "transformers": ("transformers==5.24.0",),
}
OTHERS = ("onnxscript", "rich", "torch", "typer")
TESTS = {"entmax": "tests/examples/test_third_party.py"}


def main(names: list[str]) -> int:
    wheel = build_wheel(Path(sys.executable), "real_exports")
    outcomes = []
    for name in names or LIBRARIES:
        python = make(f"real_exports-{name}", requirements=LIBRARIES[name], packages=(*PACKAGES, *OTHERS))
        test = TESTS.get(name, f"tests/real_exports/test_{name}.py")
        outcomes.append(run_tests(f"real_exports-{name}", python, wheel, tests=[test]))
        print(outcomes[-1].name, "done", file=sys.stderr, flush=True)
    return tell(outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
