"""What does it cost to check, to locate and to replay? Run: python -m benchmarks.parity.

The model is made below build/; it takes 1.07 GB there, and as much again while nodes are looked at.
"""

import hashlib
import json
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.report import environment, write

QUESTION = "What does it cost to check a model of 64 linear layers and 1.07 GB, to locate, to replay?"
ROUNDS = 3
ONCE = (
    "record",
    "locate, the runtime's side",
    "locate, both sides",
    "torch.onnx.verification, outputs",
)  # long
FOLDER = Path("build/benchmarks/parity")
NOTE = (
    "64 layers of Linear(2048, 2048), float32, batch 2, two threads. Each in a process of its own, in turn; "
    f"medians of {ROUNDS} rounds, of one for {'; '.join(ONCE)}. Memory is the process's peak, its "
    "libraries included, as a multiple of the weights; the model in PyTorch is a part of it but for replay "
    "and for a session. replay's time is after hashing, which is stated apart. polygraphy keeps to one rule "
    "for all outputs and compares runs only; torch.onnx.verification compares runs only."
)
COLUMNS = ("what", "seconds", "peak memory, GiB", "x the weights")

# Run in a process of its own; prints seconds and bytes.
PROGRAM = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
what, folder, layers, width = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
path, golden = folder + "/model.onnx", folder + "/golden.safetensors"


def model():
    import torch
    from torch import nn
    torch.manual_seed(0)
    torch.set_num_threads(2)
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers))).eval(), torch.rand(2, width)


if what == "session and run":
    import numpy, onnxruntime
    x = numpy.random.default_rng(0).random((2, width), numpy.float32)
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: x})
elif what == "replay":
    from ort_ops import parity
    import ort_ops.parity.replaying as replaying
    digests = json.load(open(folder + "/digests.json"))
    replaying.digest = lambda path: digests[path.name]
    start = time.perf_counter()
    assert parity.replay(golden, path).exit_code == 0
elif what == "hashing":
    import hashlib
    start = time.perf_counter()
    for name in (path, path + ".data"):
        hashlib.file_digest(open(name, "rb"), "sha256")
else:
    net, x = model()
    from ort_ops import parity
    import ort_ops.parity.checking, ort_ops.parity.locating, ort_ops.parity.recording, onnxruntime
    start = time.perf_counter()
    if what == "check, one provider":
        assert parity.check(net, path, (x,)).exit_code == 0
    elif what == "locate, the runtime's side":
        assert parity.locate(net, path, (x,), questions=["runtime"]).node is None
    elif what == "locate, both sides":
        assert parity.locate(net, path, (x,)).node is None
    elif what == "record":
        parity.record(net, path, golden, (x,))
    elif what == "torch.onnx.verification, outputs":
        from torch.onnx.verification import verify_onnx_program
        import torch
        program = torch.onnx.export(net, (x,), dynamo=True, verbose=False)
        start = time.perf_counter()
        verify_onnx_program(program, (x,))
    elif what == "polygraphy run, ONNX Runtime against PyTorch":
        import torch
        from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
        from polygraphy.comparator import Comparator, CompareFunc, RunResults
        name = onnxruntime.InferenceSession(path).get_inputs()[0].name
        start = time.perf_counter()
        results = Comparator.run([OnnxrtRunner(SessionFromOnnx(path))], data_loader=[{name: x.numpy()}])
        with torch.no_grad():
            answer = net(x).numpy()
        output = next(iter(results[0][1][0]))
        results.add([{output: answer}], runner_name="torch")
        rule = CompareFunc.simple(atol=1e-5, rtol=1e-5)
        assert bool(Comparator.compare_accuracy(results, compare_func=rule))
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""

EXPORT = """
import sys, torch
from torch import nn
folder, layers, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
net = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers))).eval()
torch.onnx.export(net, (torch.rand(2, width),), folder + "/model.onnx", dynamo=True, verbose=False)
"""

WHAT = (
    "session and run",
    "hashing",
    "record",
    "replay",
    "check, one provider",
    "locate, the runtime's side",
    "locate, both sides",
    "torch.onnx.verification, outputs",
    "polygraphy run, ONNX Runtime against PyTorch",
)
LAYERS, WIDTH = 64, 2048


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout.splitlines()[-1] if done.stdout else ""


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "model.onnx.data").exists():
        run(EXPORT, FOLDER, LAYERS, WIDTH)
    files = [FOLDER / "model.onnx", FOLDER / "model.onnx.data"]
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (FOLDER / "digests.json").write_text(json.dumps(digests))
    weights = LAYERS * (WIDTH * WIDTH + WIDTH) * 4
    rows, raw = [], []
    for what in WHAT:
        if "polygraphy" in what and find_spec("polygraphy") is None:
            rows.append((what, "not installed", "", ""))
            continue
        try:
            rounds = range(1 if what in ONCE else ROUNDS)
            found = [json.loads(run(PROGRAM, what, FOLDER, LAYERS, WIDTH)) for _ in rounds]
        except RuntimeError as error:
            rows.append((what, f"fails: {error}"[:90], "", ""))
            continue
        seconds, memory = (statistics.median(column) for column in zip(*found, strict=True))
        spread = f"{seconds:.2f} ({min(s for s, _ in found):.2f} to {max(s for s, _ in found):.2f})"
        rows.append((what, spread, f"{memory / 2**30:.2f}", f"{memory / weights:.2f}"))
        raw.append({"what": what, "rounds": found})
        print(rows[-1], file=sys.stderr, flush=True)
        time.sleep(1)
    packages = ["torch", "onnx", "onnxruntime", *(["polygraphy"] if find_spec("polygraphy") else [])]
    write("parity", QUESTION, NOTE, COLUMNS, rows, raw, environment(packages))


if __name__ == "__main__":
    main()
