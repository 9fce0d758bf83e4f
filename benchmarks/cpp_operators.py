"""What does an operator in C++ cost? Run: python -m benchmarks.cpp_operators.

ONNX Runtime's own C++ headers are in no package: ONNXRUNTIME_INCLUDE names the include folder of one of its
releases' archives. Without it that column says so.
"""

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
from benchmarks.report import alternate, environment, ratio, summarise, write

QUESTION = "What does an operator in C++ cost, by ort_ops/op.hpp and by ONNX Runtime's own headers?"
NOTE = (
    "Softshrink in float32, 64 nodes one after the other, whose shapes the file gives; CPU provider, one "
    "thread. By examples/cpp_operator/softshrink.cpp, by benchmarks/operators/softshrink_ort.cpp, and the "
    "built-in Shrink, which works in place. Both libraries are compiled with -O2 by one compiler. "
    "Microseconds of a run of all 64 nodes, and their ratio: medians over 25 alternating rounds, and in "
    "brackets the first and third quartile."
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


def main() -> None:
    given = os.environ.get("ONNXRUNTIME_INCLUDE", "")
    includes = ({HEADERS: given} if given else {}) | {OURS: ort_ops.get_include()}
    with tempfile.TemporaryDirectory() as folder:
        libraries = {
            name: compile_library(SOURCES[name], include, Path(folder)) for name, include in includes.items()
        }
        sessions = {BUILT_IN: session(None)}
        sessions |= {name: session(library) for name, library in libraries.items()}
        rows, raw = [], []
        for count in COUNTS:
            x = np.linspace(-1, 1, count, dtype=np.float32)
            calls = {name: functools.partial(made.run, None, {"x": x}) for name, made in sessions.items()}
            expected = next(iter(calls.values()))()[0]
            assert all(np.array_equal(call()[0], expected) for call in calls.values())
            seconds = alternate(calls, threads=1)
            base = HEADERS if given else BUILT_IN
            timings = {name: summarise(values) for name, values in seconds.items()}
            ratios = {name: ratio(seconds, name, base) for name in seconds if name != base}
            rows.append(
                (
                    f"{count:,}",
                    *(
                        timings[name].text if name in timings else "not given"
                        for name in (BUILT_IN, *SOURCES)
                    ),
                    ratios[OURS][0],
                )
            )
            raw.append(
                {
                    "elements": count,
                    "us": {name: timing.median_us for name, timing in timings.items()},
                    "ratio": ratios[OURS][1],
                }
            )
    columns = ("elements", *(f"{name}, µs" for name in (BUILT_IN, *SOURCES)), f"ratio to {base}")
    measured = environment(["numpy", "onnx", "onnxruntime"])
    measured["headers of onnxruntime"] = api_version(given) if given else "not given"
    print(write("cpp_operators", QUESTION, NOTE, columns, rows, raw, measured))


if __name__ == "__main__":
    main()
