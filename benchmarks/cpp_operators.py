"""What does an operator in C++ cost? Run: python -m benchmarks.cpp_operators.

ONNX Runtime's own C++ headers are in no package: ONNXRUNTIME_INCLUDE names the include folder of one of its
releases' archives. Without it that column says so.
"""

import dataclasses
import functools
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import helper

import ort_ops
from benchmarks.report import SPREAD, Seconds, alternate, environment, in_processes, ratio, summarise, write

QUESTION = "What does an operator in C++ cost, by ort_ops/op.hpp and by ONNX Runtime's own headers?"
NOTE = (
    "Softshrink in float32, 64 nodes one after the other, whose shapes the file gives; CPU provider, one "
    "thread; microseconds of a run of all 64. By examples/cpp_operator/softshrink.cpp, by "
    "benchmarks/operators/softshrink_ort.cpp, both compiled with -O2 by one compiler, and the built-in "
    f"Shrink, which works in place. {SPREAD}"
)
BUILT_IN, HEADERS, OURS = "built-in Shrink", "ONNX Runtime's headers", "ort_ops/op.hpp"
SOURCES = {
    HEADERS: Path("benchmarks/operators/softshrink_ort.cpp"),
    OURS: Path("examples/cpp_operator/softshrink.cpp"),
}
COUNTS = (1, 64, 4096, 262144)
_NODES = 64


def compile_library(source: Path, include: str, to: Path) -> Path:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise SystemExit("a C++ compiler is missing")
    library = to / f"{source.stem}.so"
    command = [compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-I", include, source, "-o", library]
    subprocess.run(command, check=True)
    return library


def model(built_in: bool) -> bytes:
    """Return _NODES nodes one after the other."""
    names = ["x", *(f"h{i}" for i in range(_NODES - 1)), "y"]
    shrink = functools.partial(helper.make_node, "Shrink", lambd=0.5, bias=0.5)
    softshrink = functools.partial(helper.make_node, "Softshrink", lambd=0.5, domain="example")
    make = shrink if built_in else softshrink
    nodes = [make([a], [b]) for a, b in itertools.pairwise(names)]
    values = [helper.make_tensor_value_info(name, 1, ["n"]) for name in names]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("example", 1)]
    graph = helper.make_graph(nodes, "g", values[:1], values[-1:], value_info=values[1:-1])
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


def session(library: Path | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if library is not None:
        options.register_custom_ops_library(str(library))
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model(library is None), options, providers=providers)


def api_version(include: str) -> str:
    """Return the version of the API that ONNX Runtime's headers are of, which is its minor release."""
    text = Path(include, "onnxruntime_c_api.h").read_text(encoding="utf-8")
    (found,) = re.findall(r"#define ORT_API_VERSION (\d+)", text)
    return f"of its API {found}"


def measure(given: str) -> dict[str, Seconds]:
    """Time all by the number of elements; ``given``: where ONNX Runtime's headers are, or nothing."""
    includes = ({HEADERS: given} if given else {}) | {OURS: ort_ops.get_include()}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {BUILT_IN: session(None)}
        for name, include in includes.items():
            sessions[name] = session(compile_library(SOURCES[name], include, Path(folder)))
        for count in COUNTS:
            x = np.linspace(-1, 1, count, dtype=np.float32)
            calls = {name: functools.partial(made.run, None, {"x": x}) for name, made in sessions.items()}
            expected = calls[BUILT_IN]()[0]
            assert all(np.array_equal(call()[0], expected) for call in calls.values())
            found[f"{count:,}"] = alternate(calls, threads=1, rounds=9)
    return found


def main() -> None:
    given = os.environ.get("ONNXRUNTIME_INCLUDE", "")
    base = HEADERS if given else BUILT_IN
    names = (BUILT_IN, *SOURCES)
    rows, raw = [], []
    for count, seconds in in_processes(measure, given).items():
        timings = {name: summarise(values) for name, values in seconds.items()}
        beside = ratio(seconds[OURS], seconds[base])
        texts = (timings[name].text if name in timings else "headers not given" for name in names)
        rows.append((count, *texts, beside.text))
        us = {name: timing.median_us for name, timing in timings.items()}
        raw.append({"elements": count, "us": us, "beside": base, **dataclasses.asdict(beside)})
    columns = ("elements", *(f"{name}, µs" for name in names), f"op.hpp / {base}")
    measured = environment(["numpy", "onnx", "onnxruntime"])
    measured["headers of onnxruntime"] = api_version(given) if given else "not given"
    print(write("cpp_operators", QUESTION, NOTE, columns, rows, raw, measured))


if __name__ == "__main__":
    main()
