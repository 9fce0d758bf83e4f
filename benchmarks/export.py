"""What does keeping the nodes cost beside torch.onnx.export? Run: python -m benchmarks.export."""

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import environment, ratio, write

QUESTION = "What does keeping a model's Functions as nodes cost beside torch.onnx.export?"
LAYERS, WIDTH, ROUNDS = 200, 256, 3
NOTE = (
    f"{LAYERS} layers of MyLinear({WIDTH}, {WIDTH}) and ReLU, float32, the file written, one thread; each "
    "export in a process of its own, in turn; a first export of two layers warms torch up and isn't counted. "
    f"Medians of {ROUNDS} rounds, and in brackets the fastest and the slowest. Memory is what the process's "
    "peak grew by. torch.onnx.export(dynamo=True) loses the nodes: it writes Gemm instead."
)
COLUMNS = ("exporter", "by", "seconds", "ratio", "peak memory, MiB", "ratio")
WAYS = ("torch", "keep", "attach")

# Run in a process of its own: the memory that one export took can't hide what the next one takes.
PROGRAM = """
import json, resource, sys, tempfile, time, warnings
from pathlib import Path
import torch
from torch import nn
from mylinear import MyLinear
from ort_ops.export import export
from ort_ops.export.quiet import quiet

way, dynamo, layers, width = sys.argv[1], sys.argv[2] == "dynamo", int(sys.argv[3]), int(sys.argv[4])
warnings.simplefilter("ignore")
torch.set_num_threads(1)


def make(count):
    torch.manual_seed(0)
    return nn.Sequential(*(m for _ in range(count) for m in (MyLinear(width, width), nn.ReLU()))).eval()


def run(model, path):
    options = {"input_names": ["x"], "opset_version": 18, "verbose": False}
    options |= {"dynamic_shapes": ({0: "b"},)} if dynamo else {"dynamic_axes": {"x": {0: "b"}}}
    x = torch.rand(2, width)
    with quiet():
        if way == "torch":
            torch.onnx.export(model, (x,), path, dynamo=dynamo, **options)
        else:
            export(model, (x,), path, dynamo=dynamo, functions=way, **options)


with tempfile.TemporaryDirectory() as folder:
    run(make(2), Path(folder, "warm.onnx"))
    model = make(layers)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    run(model, Path(folder, "model.onnx"))
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Seconds and MiB of the rounds."""

    seconds: list[float]
    memory: list[float]


def measure(exporter: str) -> dict[str, Measured]:
    """Export in each way in turn."""
    found = {way: Measured([], []) for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program.py")
        program.write_text(PROGRAM, encoding="utf-8")
        for _ in range(ROUNDS):
            for way in WAYS:
                command = [sys.executable, program, way, exporter, str(LAYERS), str(WIDTH)]
                done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=".")
                seconds, memory = json.loads(done.stdout.splitlines()[-1])
                found[way].seconds.append(seconds)
                found[way].memory.append(memory)
    return found


def main() -> None:
    rows, raw = [], []
    for exporter in ("dynamo", "torchscript"):
        found = measure(exporter)
        base = found["torch"]
        for way, measured in found.items():
            seconds = statistics.median(measured.seconds)
            memory = statistics.median(measured.memory)
            beside = ratio(measured.seconds, base.seconds, in_turn=False)
            memory_ratio = memory / statistics.median(base.memory)
            name = "torch.onnx.export" if way == "torch" else f'ort_ops.export, functions="{way}"'
            spread = f"{seconds:.2f} ({min(measured.seconds):.2f} to {max(measured.seconds):.2f})"
            rows.append((exporter, name, spread, beside.text, f"{memory:.0f}", f"{memory_ratio:.2f}"))
            raw.append(
                {
                    "exporter": exporter,
                    "way": way,
                    **dataclasses.asdict(measured),
                    **dataclasses.asdict(beside),
                }
            )
    packages = ["torch", "onnx", "onnxscript", "onnxruntime"]
    write("export", QUESTION, NOTE, COLUMNS, rows, raw, environment(packages))


if __name__ == "__main__":
    main()
