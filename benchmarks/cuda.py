"""What does MYLINEAR cost on a GPU? Run: python -m benchmarks.cuda; --smoke tries it on the CPU."""

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn.functional import linear

import mylinear
import mylinear.kernels
import ort_ops
from benchmarks.report import environment, write
from ort_ops.binding import Binding

QUESTION = "What does MYLINEAR cost on a GPU?"
NOTE = (
    "Microseconds of one call, medians of 50 in 5 alternating rounds, inputs and outputs in buffers on the "
    "GPU (bind). Weights are (width, width). Ratios are to the built-in Gemm in ONNX Runtime on the same "
    "provider without CUDA graphs; F.linear is PyTorch's. Beside the Python kernel's ratio is what it takes "
    "more than Gemm. float32 is with TF32 off on either side. A node that ran on another provider than "
    "CUDA's ends the benchmark."
)
OPS = ("body", "library", "kernel")
COLUMNS = (
    *("dtype", "width", "batch", "F.linear, µs", "built-in Gemm, µs", "function body", "library"),
    *("Python kernel", "Python kernel, µs more", "Gemm, CUDA graph", "body, CUDA graph"),
    *("library, CUDA graph", "Python kernel, CUDA graph"),
)
WIDTHS, BATCHES = (1024, 4096, 8192), (1, 8, 64, 512, 4096, 8192)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ROUNDS, CALLS = 5, 10


@dataclass(frozen=True)
class Device:
    """Where it runs: a GPU, or for a try the CPU."""

    name: str

    @property
    def provider(self) -> Any:
        """Return the provider with TF32 off."""
        return ("CUDAExecutionProvider", {"use_tf32": "0"}) if self.name == "cuda" else "CPUExecutionProvider"

    def wait(self) -> None:
        """Wait for what was asked of it."""
        if self.name == "cuda":
            torch.cuda.synchronize()


def model(op: str, weight: Tensor, bias: Tensor) -> bytes:
    """Return one node with constant weights: Gemm, MYLINEAR, or MYLINEAR with its function body."""
    name = str(weight.dtype).removeprefix("torch.")
    kind = ort_ops.dtypes.find_dtype(name)
    tensors = []
    for each, tensor in (("weight", weight), ("bias", bias)):
        wide = tensor.float().cpu().numpy()
        tensors.append(numpy_helper.from_array(wide.astype(kind.numpy), each))
    names, width = ["x", "weight", "bias"], weight.shape[0]
    gemm = helper.make_node("Gemm", names, ["y"], transB=1, name="node")
    node = gemm if op == "Gemm" else helper.make_node("MYLINEAR", names, ["y"], "node", domain="mylinear")
    ends = [helper.make_tensor_value_info(end, kind.onnx, ["batch", width]) for end in "xy"]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mylinear", 1)]
    body = helper.make_function("mylinear", "MYLINEAR", names, ["y"], [gemm], imports[:1])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], tensors)
    functions = [body] if op == "body" else []
    made = helper.make_model(graph, opset_imports=imports, ir_version=9, functions=functions)
    return bytes(made.SerializeToString())


def session(op: str, content: bytes, device: Device, *, graph: bool) -> ort_ops.InferenceSession:
    """Return a session in which the node runs on the device, or end the program."""
    made = ort_ops.InferenceSession.tuned(
        content,
        [device.provider],
        cuda_graph=graph,
        libraries=[mylinear.get_library_path()] if op == "library" else [],
        ops=["mylinear::MYLINEAR"] if op == "kernel" else [],
    )
    wanted = device.provider if isinstance(device.provider, str) else device.provider[0]
    where = {part.ep_name for part in made.get_provider_graph_assignment_info() for _ in part.get_nodes()}
    if where - {wanted}:
        sys.exit(f"{op} ran on {', '.join(sorted(where))}; expected {wanted}")
    return made


def bound(op: str, x: Tensor, weight: Tensor, bias: Tensor, device: Device, *, graph: bool) -> Binding:
    """Return a binding whose answer is F.linear's."""
    binding = session(op, model(op, weight, bias), device, graph=graph).bind({"x": x})
    for _ in range(3):  # a graph is captured within the first runs
        binding.run()
    torch.testing.assert_close(binding.outputs["y"], linear(x, weight, bias), rtol=2e-2, atol=2e-2)
    return binding


def medians(calls: dict[str, Callable[[], object]], device: Device) -> dict[str, float]:
    """Return microseconds of each call, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            device.wait()
            for _ in range(CALLS):
                start = time.perf_counter()
                call()
                device.wait()
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) * 1e6 for name, values in seconds.items()}


def measure(
    dtype: torch.dtype, width: int, batch: int, device: Device
) -> tuple[Sequence[str], dict[str, Any]]:
    """Return a row of the table."""
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, device=device.name, dtype=torch.float32).to(dtype)
        for shape in ((batch, width), (width, width), (width,))
    )
    weight = weight / width**0.5
    calls: dict[str, Callable[[], object]] = {"F.linear": lambda: linear(x, weight, bias)}
    graphs = (False, True) if device.name == "cuda" else (False,)
    for graph, op in itertools.product(graphs, ("Gemm", *OPS)):
        calls[f"{op}, graph" if graph else op] = bound(op, x, weight, bias, device, graph=graph).run
    us = medians(calls, device)
    ratios = {name: f"{us[name] / us['Gemm']:.2f}" for name in us}
    cells = [*(ratios[op] for op in OPS), f"{us['kernel'] - us['Gemm']:.1f}"]
    cells += [ratios.get(f"{op}, graph", "") for op in ("Gemm", *OPS)]
    name = str(dtype).removeprefix("torch.")
    row = (name, str(width), str(batch), f"{us['F.linear']:.1f}", f"{us['Gemm']:.1f}", *cells)
    return row, {"dtype": name, "width": width, "batch": batch, "us": us}


def main(*, smoke: bool) -> None:
    device = Device("cpu" if smoke else "cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    cases = [(torch.float32, 64, 2)] if smoke else list(itertools.product(DTYPES, WIDTHS, BATCHES))
    rows, raw = [], []
    for case in cases:
        row, numbers = measure(*case, device)
        rows.append(row)
        raw.append(numbers)
        print(row, flush=True)
    if smoke:
        return
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    runtime = {"onnxruntime-gpu": onnxruntime.__version__, "cuda": str(torch.version.cuda)}
    gpu = {"gpu": torch.cuda.get_device_name(), "driver": driver}
    measured = environment(["torch", "numpy"]) | runtime | gpu
    print(write("cuda", QUESTION, NOTE, COLUMNS, rows, raw, measured))


if __name__ == "__main__":
    np.seterr(all="raise")
    main(smoke="--smoke" in sys.argv[1:])
