"""Run two trained models in ONNX Runtime's JavaScript builds and compare with PyTorch: python -m tests.js.

The files carry a function body for MYLINEAR, so that no build needs a library of ours. Exits with 0 where
every answer is right, 1 where one is wrong, 3 where a part could not run; none is left out for being missing.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mylinear import MyLinear
from mylinear.export import export
from tests.js.browser import answer_in_browser, find_chromium
from tests.js.cases import Case, answer_in_python, make_cases
from tests.js.judge import Judgement, judge

SOURCE = Path(__file__).parent
EXAMPLE = SOURCE.parents[1] / "examples" / "node" / "run_linear.mjs"
HOME = SOURCE.parents[1] / "build" / "js"  # where make test-js has installed the packages
PACKAGES = ("onnxruntime-node", "onnxruntime-web")


def main() -> int:
    chromium = find_chromium()
    missing = list(find_missing(chromium))
    if missing or chromium is None:
        print("\n".join(f"error: {what}" for what in missing), file=sys.stderr)
        return 3
    for path in (SOURCE / "answer.js", SOURCE / "node.js", SOURCE / "page.html", EXAMPLE):
        shutil.copy(path, HOME)  # Node looks for packages beside a file and above it
    with tempfile.TemporaryDirectory() as folder:
        cases = make_cases(Path(folder))
        try:
            found = answer(cases, Path(folder), chromium)
            run_example(Path(folder))
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 3
    return tell(cases, found)


def find_missing(chromium: str | None) -> Iterator[str]:
    """Give a line for each thing that has to be installed."""
    if shutil.which("node") is None:
        yield "Node.js is missing; expected 20 or newer: apt-get install nodejs npm"
    for package in PACKAGES:
        if not (HOME / "node_modules" / package).is_dir():
            yield f"{package} is missing; make test-js installs it"
    if chromium is None:
        yield "Chromium is missing: apt-get install chromium, or name one in the variable CHROMIUM"


def answer(cases: Sequence[Case], folder: Path, chromium: str) -> dict[str, Any]:
    """Return what each build answers, Python's among them; raises RuntimeError where one doesn't run."""
    return {
        "onnxruntime in Python": answer_in_python(cases, folder),
        **{f"{package} in Node": _answer_in_node(package, folder) for package in PACKAGES},
        "onnxruntime-web in a page": answer_in_browser(chromium, HOME, folder),
    }


def _answer_in_node(package: str, folder: Path) -> dict[str, Any]:
    out = folder / f"{package}.json"
    command = ["node", "node.js", package, str(folder), str(out)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode != 0 or not out.exists():
        raise RuntimeError(f"node with {package} exited with {done.returncode}:\n{done.stderr[-2000:]}")
    return dict(json.loads(out.read_text()))


def run_example(folder: Path) -> None:
    """Run the program that newcomers copy; raises RuntimeError where it answers otherwise than PyTorch."""
    torch.manual_seed(0)
    model = MyLinear(2, 1, dtype=torch.float64).eval()
    x = torch.tensor([[1.5, -2.0], [0.25, 4.0], [1e300, 1.0]], dtype=torch.float64)
    export(model, folder / "line.onnx", example=x)
    command = ["node", EXAMPLE.name, folder / "line.onnx", *(repr(each) for each in x.flatten().tolist())]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=180, check=False)
    with torch.no_grad():
        expected = model(x).flatten().tolist()
        sizes = (x.abs() @ model.weight.abs().T + model.bias.abs()).flatten().tolist()
    answers = [float(line) for line in done.stdout.split()]
    # Each of them rounds two products and two sums.
    near = (abs(a - b) <= 4 * 2**-53 * s for a, b, s in zip(answers, expected, sizes, strict=False))
    if done.returncode != 0 or len(answers) != len(expected) or not all(near):
        raise RuntimeError(f"{EXAMPLE.name} answers {answers}, PyTorch {expected}; {done.stderr[-2000:]}")
    print(f"{EXAMPLE.name} answers as PyTorch")


def tell(cases: Sequence[Case], found: dict[str, Any]) -> int:
    """Print what became of each build; return the exit code."""
    judgements = {name: judge(cases, run["answers"]) for name, run in found.items()}
    for name, judgement in judgements.items():
        versions = ", ".join(f"{part} {version}" for part, version in found[name]["versions"].items())
        print(f"{name} ({versions}; {found[name]['host']})")
        _tell(judgement)
    failed = any(judgement.failures for judgement in judgements.values())
    print(f"{len(found)} builds, {len(cases)} cases each: {'FAILED' if failed else 'all as in PyTorch'}")
    return 1 if failed else 0


def _tell(judgement: Judgement) -> None:
    for dtype in sorted({dtype for dtype, _ in judgement.differences}):
        found = [each for kind, each in judgement.differences if kind == dtype and each.elements]
        share = max((abs(d.got - d.expected) / d.allowed for d in found if d.allowed), default=0.0)  # type: ignore[operator]
        print(
            f"  {dtype}: {sum(d.elements for d in found)} elements, {max(d.max_abs for d in found):.1e} from "
            f"PyTorch at most, {max(d.max_ulp for d in found)} ULP, {share:.2g} of what is allowed"
        )
    print(f"  {judgement.right} of {judgement.labels} held-out digits read right")
    for failure in judgement.failures:
        print(f"  FAILED {failure}")


if __name__ == "__main__":
    sys.exit(main())
