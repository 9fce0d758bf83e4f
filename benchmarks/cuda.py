"""What does MYLINEAR cost on a GPU? Run: python -m benchmarks.cuda; --smoke tries it on the CPU."""

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnx import helper
from torch import Tensor
from torch.nn.functional import linear

import mylinear
import mylinear.kernels
import ort_ops
from benchmarks.report import environment, write
from mylinear.bodies import NodeKind, function_body
from ort_ops.binding import Binding
from ort_ops.dtypes import find_dtype

QUESTION = "What does MYLINEAR cost on a GPU?"
NOTE = (
    "Microseconds of one call, medians of 50 to 500 in 5 alternating rounds, inputs and outputs in buffers "
    "on the GPU (bind). Weights are (width, width). Ratios are to ONNX Runtime's built-in Gemm of the same "
    "type, those with CUDA graphs to Gemm with CUDA graphs; F.linear is PyTorch's. Beside the Python "
    "kernel's ratio is what it takes more than Gemm. The function body is the one that mylinear.export "
    "writes: bfloat16, of which ONNX Runtime's CPU provider has no product, goes through float32. float32 "
    "is with TF32 off on either side. A node that ran on another provider than CUDA's ends the benchmark."
)
OPS = ("body", "library", "kernel")
COLUMNS = (
    *("dtype", "width", "batch", "F.linear, µs", "built-in Gemm, µs", "function body", "library"),
    *("Python kernel", "Python kernel, µs more", "Gemm, CUDA graph, µs", "body, CUDA graph"),
    *("library, CUDA graph", "Python kernel, CUDA graph"),
)
WIDTHS, BATCHES = (1024, 4096, 8192), (1, 8, 64, 512, 4096, 8192)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
ROUNDS, CALLS, ROUND_SECONDS = 5, (10, 100), 0.01
GOAL = 1.05
"""Times the built-in Gemm: what MYLINEAR may take."""


@dataclass(frozen=True)
class Device:
    """Where it runs: a GPU, or for a try the CPU."""

    name: str

    @property
    def provider(self) -> Any:
        """Return the provider with TF32 off."""
        return ("CUDAExecutionProvider", {"use_tf32": "0"}) if self.name == "cuda" else "CPUExecutionProvider"

    @property
    def graphs(self) -> tuple[bool, ...]:
        """Return without and with CUDA graphs, as far as it has them."""
        return (False, True) if self.name == "cuda" else (False,)

    def wait(self) -> None:
        """Wait for what was asked of it."""
        if self.name == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Row:
    """Microseconds of one case, by who computed it; with a CUDA graph the name ends in ``, graph``."""

    dtype: str
    width: int
    batch: int
    us: dict[str, float]

    def ratio(self, op: str, graph: str = "") -> float:
        """Return how many times as long it takes as the built-in Gemm."""
        return self.us[op + graph] / self.us["Gemm" + graph]

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        us = self.us
        cells = [f"{us['F.linear']:.1f}", f"{us['Gemm']:.1f}", *(f"{self.ratio(op):.2f}" for op in OPS)]
        cells.append(f"{us['kernel'] - us['Gemm']:.1f}")
        if "Gemm, graph" in us:
            cells += [f"{us['Gemm, graph']:.1f}", *(f"{self.ratio(op, ', graph'):.2f}" for op in OPS)]
        return self.dtype, str(self.width), str(self.batch), *cells


def tensors(weight: Tensor, bias: Tensor, folder: Path) -> list[onnx.TensorProto]:
    """Return constants whose data lie in files of the folder, which ONNX Runtime maps."""
    made = []
    for name, tensor in (("weight", weight), ("bias", bias)):
        tensor.view(torch.uint8).cpu().numpy().tofile(folder / name)
        kind = find_dtype(str(tensor.dtype).removeprefix("torch.")).onnx
        each = onnx.TensorProto(name=name, data_type=kind, dims=tensor.shape)
        each.data_location = onnx.TensorProto.EXTERNAL
        each.external_data.add(key="location", value=name)
        made.append(each)
    return made


def model(op: str, constants: Sequence[onnx.TensorProto], folder: Path) -> Path:
    """Write one node with constant weights: Gemm, MYLINEAR, or MYLINEAR with its function body."""
    names, (weight, _) = ["x", "weight", "bias"], constants
    kind, width = weight.data_type, weight.dims[0]
    gemm = helper.make_node("Gemm", names, ["y"], "node", transB=1)
    node = gemm if op == "Gemm" else helper.make_node("MYLINEAR", names, ["y"], "node", domain="mylinear")
    ends = [helper.make_tensor_value_info(end, kind, ["batch", width]) for end in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], constants)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mylinear", 1)]
    body = function_body([NodeKind(2, kind, has_bias=True)], domain="mylinear", opset=18)
    bodies = [body] if op == "body" else []
    made = helper.make_model(graph, opset_imports=imports, ir_version=9, functions=bodies)
    (folder / f"{op}.onnx").write_bytes(made.SerializeToString())
    return folder / f"{op}.onnx"


def session(op: str, file: Path, device: Device, *, graph: bool) -> ort_ops.InferenceSession:
    """Return a session in which the node runs on the device, or end the program."""
    made = ort_ops.InferenceSession.tuned(
        file,
        [device.provider],
        cuda_graph=graph,
        libraries=[mylinear.get_library_path()] if op == "library" else [],
        ops=["mylinear::MYLINEAR"] if op == "kernel" else [],
    )
    wanted = device.provider if isinstance(device.provider, str) else device.provider[0]
    where = {part.ep_name for part in made.get_provider_graph_assignment_info() for _ in part.get_nodes()}
    if where != {wanted}:
        sys.exit(f"{op} ran on {', '.join(sorted(where))}; expected {wanted}")
    return made


def bound(made: ort_ops.InferenceSession, x: Tensor, expected: Tensor) -> Binding:
    """Return a binding that has computed what is expected, once with the graph that it captured."""
    binding = made.bind({"x": x})
    tolerance = TOLERANCES[x.dtype]
    for _ in range(3):
        binding.outputs["y"].zero_()
        binding.run()
        torch.testing.assert_close(binding.outputs["y"], expected, rtol=tolerance, atol=tolerance)
    return binding


def medians(calls: dict[str, Callable[[], object]], device: Device) -> dict[str, float]:
    """Return microseconds of each call, in turn; of one that is through quickly more calls."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS):
        for name in list(calls) if turn % 2 == 0 else reversed(calls):  # so that none always comes first
            first = timed(calls[name], device)
            count = min(max(round(ROUND_SECONDS / first), CALLS[0]), CALLS[1])
            seconds[name] += [timed(calls[name], device) for _ in range(count)]
    return {name: statistics.median(values) * 1e6 for name, values in seconds.items()}


def timed(call: Callable[[], object], device: Device) -> float:
    """Return the seconds of a call and of what it asked of the device."""
    device.wait()
    start = time.perf_counter()
    call()
    device.wait()
    return time.perf_counter() - start


def sessions(weight: Tensor, bias: Tensor, device: Device) -> dict[str, ort_ops.InferenceSession]:
    """Return a session for each of Gemm and MYLINEAR's three, without and with CUDA graphs."""
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        constants = tensors(weight, bias, Path(folder))
        for op in ("Gemm", *OPS):
            file = model(op, constants, Path(folder))
            for graph in device.graphs:
                made[f"{op}, graph" if graph else op] = session(op, file, device, graph=graph)
    return made


def measure(dtype: torch.dtype, width: int, batches: Sequence[int], device: Device) -> Iterator[Row]:
    """Give a row for each batch, by the same sessions."""
    torch.manual_seed(0)
    weight = (torch.randn((width, width), device=device.name) / width**0.5).to(dtype)
    bias = torch.randn(width, device=device.name).to(dtype)
    made = sessions(weight, bias, device)
    for batch in batches:
        x = torch.randn((batch, width), device=device.name).to(dtype)
        calls: dict[str, Callable[[], object]] = {"F.linear": lambda x=x: linear(x, weight, bias)}
        calls |= {name: bound(each, x, linear(x, weight, bias)).run for name, each in made.items()}
        yield Row(str(dtype).removeprefix("torch."), width, batch, medians(calls, device))


def summary(rows: Sequence[Row], cases: int) -> str:
    """Say where MYLINEAR takes longer than it may, and what the Python kernel costs on little."""
    said = [f"{len(rows)} of {cases} cases."]
    for op, graph in itertools.product(OPS, ("", ", graph")):
        worst = max(rows, key=lambda row: row.ratio(op, graph))
        slower = sum(row.ratio(op, graph) > GOAL for row in rows)
        said.append(
            f"{op}{graph}: above {GOAL} in {slower}, at most {worst.ratio(op, graph):.2f} "
            f"({worst.dtype}, width {worst.width}, batch {worst.batch})."
        )
    least = [row.us["kernel"] - row.us["Gemm"] for row in rows if (row.width, row.batch) == (1024, 1)]
    said.append(f"The Python kernel's fixed cost (width 1024, batch 1): {statistics.median(least):.0f} µs.")
    return " ".join(said)


def machine() -> dict[str, str]:
    """Return versions, the GPU and its driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    runtime = {"onnxruntime-gpu": onnxruntime.__version__, "cuda": str(torch.version.cuda)}
    return environment(["torch"]) | runtime | {"gpu": torch.cuda.get_device_name(), "driver": driver}


def main(*, smoke: bool) -> None:
    if smoke:
        print(*(row.cells for row in measure(torch.float32, 64, (2, 3), Device("cpu"))), sep="\n")
        return
    onnxruntime.preload_dlls()  # CUDA's libraries, which torch brought
    torch.set_float32_matmul_precision("highest")
    measured_with, rows = machine(), list[Row]()
    for width, dtype in itertools.product(WIDTHS, DTYPES):
        for row in measure(dtype, width, BATCHES, Device("cuda")):
            rows.append(row)
            print(row.cells, flush=True)
            note = f"{NOTE}\n\n{summary(rows, len(WIDTHS) * len(DTYPES) * len(BATCHES))}"
            # Once a row: a run that is cut off leaves what it has.
            table = write(
                "cuda",
                QUESTION,
                note,
                COLUMNS,
                [r.cells for r in rows],
                [vars(r) for r in rows],
                measured_with,
            )
    print(table)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv[1:])
