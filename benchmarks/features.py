"""What can ort_ops do that others can't? Each cell was tried. Run: python -m benchmarks.features.

Every trial runs in a process of its own, since some of them end it, and prints what became of it.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn
from torch.onnx.verification import verify_onnx_program

import mylinear
import ort_ops
from benchmarks.report import environment, write
from ort_ops import parity
from ort_ops.dtypes import from_onnx

QUESTION = "What became of it, tried here with each?"
NOTE = (
    "Every cell was tried, each in a process of its own; the versions are below. The comparisons are of "
    "a model and its file in ONNX Runtime on the CPU: polygraphy at its own tolerance of 1e-5; "
    "torch.onnx.verification and onnx-diagnostic give numbers and leave the verdict to whoever reads them."
)
COLUMNS = ("what", "with", "what became of it")
MODEL = Path("model.onnx")

Trial = Callable[[], str]
TRIALS: dict[tuple[str, str], Trial] = {}

KEPT = "A Function with a symbolic, exported by PyTorch's newer exporter"
BODY = "That file in stock ONNX Runtime"
RAISES = "A Python kernel raises"
BFLOAT16 = "A Python kernel on bfloat16"
HEADERS = "An operator in C++: what it is compiled against"
WEIGHT = "One weight of the file a ten-thousandth too large"
INTEGER = "The file gives 100,001 for the model's 100,000"
RIGHT = "A right file, a sum of a million numbers"
NODE = "Which node is wrong, GELU written by its tanh"
LIBRARY = "A file with a custom node, by a library in C++"


def trial(what: str, by: str) -> Callable[[Trial], Trial]:
    """Enter a trial."""

    def enter(function: Trial) -> Trial:
        TRIALS[what, by] = function
        return function

    return enter


def ops_of(model: onnx.ModelProto) -> str:
    return ", ".join(f"{node.domain or 'ai.onnx'}::{node.op_type}" for node in model.graph.node)


def linear() -> tuple[nn.Module, tuple[torch.Tensor]]:
    torch.manual_seed(0)
    return mylinear.MyLinear(3, 2).eval(), (torch.ones(1, 3),)


@trial(KEPT, "torch.onnx.export")
def _() -> str:
    model, args = linear()
    return f"the file has {ops_of(torch.onnx.export(model, args, dynamo=True, verbose=False).model_proto)}"


@trial(KEPT, "ort_ops.export")
def _() -> str:
    model, args = linear()
    return f"the file has {ops_of(ort_ops.export.export(model, args, verbose=False).model_proto)}"


@trial(BODY, "torch.onnx.export, TorchScript")
def _() -> str:
    model, args = linear()
    torch.onnx.export(model, args, MODEL, dynamo=False, custom_opsets={"mylinear": 1})
    return f"runs: {onnxruntime.InferenceSession(MODEL).run(None, feed(args))[0].shape}"


@trial(BODY, "ort_ops.export")
def _() -> str:
    model, args = linear()
    ort_ops.export.export(model, args, MODEL, functions="attach", verbose=False)
    return f"runs: {onnxruntime.InferenceSession(MODEL).run(None, feed(args))[0].shape}"


def feed(args: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    names = [value.name for value in onnx.load(MODEL, load_external_data=False).graph.input]
    return dict(zip(names, (arg.numpy() for arg in args), strict=True))


def one_node(domain: str, kind: int = 1) -> bytes:
    ends = [helper.make_tensor_value_info(name, kind, ["n"]) for name in "xy"]
    node = helper.make_node("Op", ["x"], ["y"], domain=domain, name="node")
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


def by_extensions(compute: Callable[[Any], Any], kind: int = 1) -> Any:
    """Return a session of onnxruntime-extensions with a kernel."""
    from onnxruntime_extensions import PyOp, get_library_path, onnx_op

    onnx_op(op_type="Op", inputs=[getattr(PyOp, _PYOP[kind])], outputs=[getattr(PyOp, _PYOP[kind])])(compute)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(get_library_path())
    return onnxruntime.InferenceSession(one_node("ai.onnx.contrib", kind), options)


_PYOP = {1: "dt_float", 16: "dt_bfloat16"}


def by_ort_ops(compute: Callable[[Any], Any], kind: int = 1) -> Any:
    """Return a session of ort_ops with a kernel."""
    tensor = NDArray[from_onnx(kind).numpy.type]  # type: ignore[misc]
    compute.__annotations__ = {"x": tensor, "return": tensor}
    ort_ops.onnx_op("features::Op")(compute)
    return ort_ops.InferenceSession(one_node("features", kind), providers=["CPUExecutionProvider"])


def raising(x: Any) -> Any:
    raise ValueError("a message")


def doubling(x: Any) -> Any:
    return x + x


def said(session: Any, x: Any) -> str:
    """Return what a run gives or raises."""
    try:
        return f"returns {session.run(None, {'x': x})[0].tolist()}"
    except Exception as error:
        return f"raises {type(error).__name__}: {first_line(error)}"


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160]


ONES = np.ones(2, np.float32)

for _name, _session in (("onnxruntime-extensions", by_extensions), ("ort_ops", by_ort_ops)):
    trial(RAISES, _name)(lambda make=_session: said(make(raising), ONES))


@trial(BFLOAT16, "onnxruntime-extensions")
def _() -> str:
    return said(by_extensions(doubling, 16), ONES.astype(ml_dtypes.bfloat16))


@trial(BFLOAT16, "ort_ops")
def _() -> str:
    return said(by_ort_ops(doubling, 16), ONES.astype(ml_dtypes.bfloat16))


@trial(HEADERS, "onnxruntime")
def _() -> str:
    found = list(Path(onnxruntime.__file__).parent.rglob("onnxruntime_c*_api.h"))
    return f"the wheel has {len(found)} of the headers that its guide includes"


@trial(HEADERS, "ort_ops")
def _() -> str:
    found = list(Path(ort_ops.get_include()).rglob("*.hpp"))
    return f"the wheel has {len(found)} headers, and nothing to link"


def mlp(gelu: str = "none") -> tuple[nn.Module, tuple[torch.Tensor]]:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(32, 64), nn.GELU(approximate=gelu), nn.Linear(64, 8))
    return layers.eval(), (torch.randn(4, 32),)


class Count(nn.Module):
    """x and 100,000, in integers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n,) int64."""
        return x + 100_000


class Sum(nn.Module):
    """The running sum of a million numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (1000000,)."""
        return x.cumsum(0)


def export(model: nn.Module, args: tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    proto: onnx.ModelProto = torch.onnx.export(model, args, dynamo=True, verbose=False).model_proto
    onnx.save(proto, MODEL)
    return proto


def make_weight() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model, args = mlp()
    proto = export(model, args)
    tensor = next(each for each in proto.graph.initializer if list(each.dims) == [64, 32])
    array = numpy_helper.to_array(tensor).copy()
    array[3, 5] *= 1.0001
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, MODEL)
    return model, args


def make_integer() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model, args = Count().eval(), (torch.zeros(2, dtype=torch.int64),)
    proto = export(model, args)
    (tensor,) = proto.graph.initializer
    tensor.CopyFrom(numpy_helper.from_array(np.array(100_001), tensor.name))
    onnx.save(proto, MODEL)
    return model, args


def make_right() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    model, args = Sum().eval(), (torch.rand(1_000_000),)
    export(model, args)
    return model, args


def make_gelu() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    export(*mlp("tanh"))
    return mlp()


def outputs(model: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[Any, Any]:
    with torch.no_grad():
        return model(*args).numpy(), onnxruntime.InferenceSession(MODEL).run(None, feed(args))[0]


def by_check(make: Callable[[], Any]) -> str:
    model, args = make()
    report = parity.check(model, MODEL, args)
    return f"{report.verdict}"


def by_polygraphy(make: Callable[[], Any]) -> str:
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator, CompareFunc
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    model, args = make()
    results = Comparator.run([OnnxrtRunner(SessionFromOnnx(str(MODEL)))], data_loader=[feed(args)])
    output = next(iter(results[0][1][0]))
    results.add([{output: outputs(model, args)[0]}], runner_name="torch")
    equal = bool(Comparator.compare_accuracy(results, compare_func=CompareFunc.simple()))
    return "equal" if equal else "different"


def by_verification(make: Callable[[], Any]) -> str:
    model, args = make()
    program = torch.onnx.export(model, args, dynamo=True, verbose=False)
    program.model = ir.load(MODEL)
    (found,) = verify_onnx_program(program, args)
    return f"the largest difference is {found.max_abs_diff:.2g}; no verdict"


def by_diagnostic(make: Callable[[], Any]) -> str:
    from onnx_diagnostic.helpers import max_diff

    expected, got = outputs(*make())
    return f"the largest difference is {max_diff(expected, got)['abs']:.2g}; no verdict"


for _what, _make in ((WEIGHT, make_weight), (INTEGER, make_integer), (RIGHT, make_right)):
    for _name, _compare in (
        ("torch.onnx.verification", by_verification),
        ("polygraphy", by_polygraphy),
        ("onnx-diagnostic", by_diagnostic),
        ("ort_ops.parity.check", by_check),
    ):
        trial(_what, _name)(lambda make=_make, compare=_compare: compare(make))


@trial(NODE, "torch.onnx.verification")
def _() -> str:
    model, args = make_gelu()
    program = torch.onnx.export(model, args, dynamo=True, verbose=False)
    program.model = ir.load(MODEL)
    rows = verify_onnx_program(program, args, compare_intermediates=True)
    return "; ".join(f"{row.name}: {row.max_abs_diff:.2g}" for row in rows)


@trial(NODE, "ort_ops.parity.locate")
def _() -> str:
    model, args = make_gelu()
    return f"{parity.locate(model, MODEL, args).node}"


def library_file() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model, args = linear()
    ort_ops.export.export(model, args, MODEL, verbose=False)
    return model, args


@trial(LIBRARY, "polygraphy")
def _() -> str:
    return by_polygraphy(library_file)


@trial(LIBRARY, "ort_ops.parity.check")
def _() -> str:
    model, args = library_file()
    libraries = [mylinear.get_library_path()]
    report = parity.check(model, MODEL, args, functions=[mylinear.LinearF], libraries=libraries)
    return f"{report.verdict}; {report.rows[-1].ran}"


def run_one(number: int) -> None:
    """Run a trial in this process, and print what became of it."""
    warnings.simplefilter("ignore")
    try:
        print(f"\n{list(TRIALS.values())[number]()}")
    except Exception as error:
        print(f"\nraises {type(error).__name__}: {first_line(error)}")


def in_a_process(number: int) -> str:
    """Return what became of a trial in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.features", str(number)]
        environ = {"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin", "HOME": folder}
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines and done.returncode == 0 else f"the process ends, status {done.returncode}"


def main() -> None:
    rows, raw = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(in_a_process, range(len(TRIALS)))
    for (what, by), became in zip(TRIALS, outcomes, strict=True):
        rows.append((what if what not in [row[0] for row in rows] else "", by, became.replace("|", "\\|")))
        raw.append({"what": what, "with": by, "became": became})
        print(rows[-1], flush=True)
    packages = ["torch", "onnx", "onnxruntime"]
    for package in ("onnxruntime-extensions", "polygraphy", "onnx-diagnostic"):
        try:
            version(package)
        except PackageNotFoundError:
            continue
        packages.append(package)
    print(write("features", QUESTION, NOTE, COLUMNS, rows, raw, environment(packages)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_one(int(sys.argv[1]))
    else:
        main()
