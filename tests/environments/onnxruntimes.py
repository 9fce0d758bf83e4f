"""Run the tests of ort_ops on several releases of ONNX Runtime: python -m tests.environments.onnxruntimes.

Names of releases (1.22.1, newest, oldest) limit it to these.
"""

import sys
from pathlib import Path

from tests.environments.environment import build_wheel, make, run_tests, tell

# The releases that changed something for us, and what is installed with them.
RELEASES = {
    # What pyproject.toml admits at the least.
    "oldest": ("onnxruntime==1.20.0", "numpy==1.26.0", "ml_dtypes==0.5.0", "onnx==1.17.0"),
    "1.20.1": ("onnxruntime==1.20.1",),
    "1.22.1": ("onnxruntime==1.22.1",),  # computed output types
    "1.23.2": ("onnxruntime==1.23.2",),  # the last that fails over an input left out
    "1.24.4": ("onnxruntime==1.24.4",),
    "1.25.1": ("onnxruntime==1.25.1",),  # attributes that are lists of strings
    "1.27.0": ("onnxruntime==1.27.0",),  # overloads of function bodies
    "1.30.0": ("onnxruntime==1.30.0",),
    "newest": ("onnxruntime",),
}


def main(names: list[str]) -> int:
    wheel = build_wheel(Path(sys.executable), "onnxruntimes")
    outcomes = []
    for name in names or RELEASES:
        python = make(f"onnxruntime-{name}", requirements=RELEASES[name])
        outcomes.append(run_tests(f"onnxruntime-{name}", python, wheel))
        print(outcomes[-1].name, "done", file=sys.stderr, flush=True)
    return tell(outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
