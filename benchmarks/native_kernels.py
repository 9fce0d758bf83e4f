"""What does MYLINEAR cost from C++, and from its function body? Run: python -m benchmarks.native_kernels."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import mylinear
import ort_ops
from benchmarks.report import SPREAD, Seconds, alternate, environment, in_processes, ratio, summarise, write

QUESTION = "What does MYLINEAR cost from the C++ library, and from its function body?"
NOTE = (
    "Sessions on the CPU provider with 1 or 2 intra-op threads, of which none spins; weights (width, width) "
    "and bias are constants. The ratios are to a session with the built-in Gemm, which has "
    "float32 weights packed; for 16-bit types, of which ONNX Runtime's CPU provider has no such Gemm, to one "
    "with a Python kernel in which NumPy converts x to float32, multiplies by a weight that was converted "
    "before, and converts back (two threads, as its BLAS has; these spin for 0.12 s after a product, and "
    "what comes next begins 0.15 s after it). "
    f"{SPREAD}"
)
COLUMNS = ("type", "width", "threads", "batch", "Gemm or NumPy, µs", "function body", "library")
CASES = (
    *itertools.product((np.float32, np.float64), (1, 2)),
    *itertools.product((np.float16, ml_dtypes.bfloat16), (2,)),
)
WIDTHS = (64, 256, 1024, 4096)
BATCHES = (1, 2, 8, 32, 128, 512)
NUMPY = "NumPy"
_ROUNDS, _SECONDS = 3, 0.02
_REST = 0.15  # 2^28 cycles, by default, and some more


@functools.lru_cache(maxsize=1)
def weights(dtype: Any, width: int) -> list[onnx.TensorProto]:
    """Return weight and bias, which take longer to make than to be timed with."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((width, width)) / width**0.5).astype(dtype)
    bias = rng.standard_normal(width).astype(dtype)
    return [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]


def model(op: str, dtype: Any, width: int) -> bytes:
    """Return one node with constant weights: Gemm, MYLINEAR, or MYLINEAR with its function body."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    names = ["x", "weight", "bias"]
    if op == "Gemm":
        node = helper.make_node("Gemm", names, ["y"], transB=1)
    else:
        node = helper.make_node("MYLINEAR", names, ["y"], domain="mylinear")
    x = helper.make_tensor_value_info("x", kind, ["batch", width])
    y = helper.make_tensor_value_info("y", kind, ["batch", width])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mylinear", 1)]
    body = helper.make_node("Gemm", names, ["y"], transB=1)
    functions = [helper.make_function("mylinear", "MYLINEAR", names, ["y"], [body], imports[:1])]
    graph = helper.make_graph([node], "g", [x], [y], weights(dtype, width))
    made = helper.make_model(
        graph, opset_imports=imports, ir_version=8, functions=functions if op == "body" else []
    )
    return bytes(made.SerializeToString())


def session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def session(op: str, dtype: Any, width: int, threads: int) -> onnxruntime.InferenceSession:
    options = session_options(threads)
    if op == "library":
        options.register_custom_ops_library(mylinear.get_library_path())
    return ort_ops.InferenceSession(model(op, dtype, width), options, ops=[])


def by_numpy(dtype: Any, width: int, threads: int) -> onnxruntime.InferenceSession:
    """Return a session of a Python kernel that converts x, multiplies, and converts back.

    Its weight was converted before.
    """
    proto = onnx.load_from_string(model("library", dtype, width))
    weight, bias = (numpy_helper.to_array(each).astype(np.float32) for each in proto.graph.initializer)
    name = f"LINEAR_{np.dtype(dtype).name}_{width}_{threads}"

    @ort_ops.onnx_op(f"bench::{name}")
    def linear(x):  # type: ignore[no-untyped-def] # of any type
        y = x.astype(np.float32) @ weight.T
        y += bias
        return y.astype(x.dtype)

    del proto.graph.initializer[:]
    proto.graph.node[0].CopyFrom(helper.make_node(name, ["x"], ["y"], domain="bench"))
    proto.opset_import.append(helper.make_opsetid("bench", 1))
    return ort_ops.InferenceSession(proto.SerializeToString(), session_options(threads))


def calls_for(dtype: Any, width: int, threads: int) -> dict[str, Callable[[np.ndarray[Any, Any]], Any]]:
    """Return what is timed by name, first what it is compared with."""
    half = np.dtype(dtype).itemsize == 2
    ops = ["library"] if half else ["Gemm", "body", "library"]
    sessions = {NUMPY: by_numpy(dtype, width, threads)} if half else {}
    sessions |= {op: session(op, dtype, width, threads) for op in ops}

    def runner(made: onnxruntime.InferenceSession) -> Callable[[np.ndarray[Any, Any]], Any]:
        return lambda x: made.run(None, {"x": x})

    return {op: runner(made) for op, made in sessions.items()}


def cases() -> list[tuple[str, int, int, int]]:
    """Return type, width, threads, batch."""
    every = ((np.dtype(t).name, w, n, b) for (t, n), w, b in itertools.product(CASES, WIDTHS, BATCHES))
    return [case for case in every if case[1] ** 2 * case[3] <= 1 << 31]  # seconds each, and no other result


def measure() -> dict[str, Seconds]:
    """Time every case."""
    found = {}
    for (name, width, threads), some in itertools.groupby(cases(), lambda case: case[:3]):
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        calls = calls_for(dtype, width, threads)
        for case in some:
            x = np.random.default_rng(1).standard_normal((case[3], width)).astype(dtype)
            found[" ".join(map(str, case))] = alternate(
                {name: functools.partial(call, x) for name, call in calls.items()},
                threads=threads,
                rounds=_ROUNDS,
                round_seconds=_SECONDS,
                rest_after={NUMPY: _REST},
            )
    return found


def main() -> None:
    rows, raw = [], []
    found = in_processes(measure)
    for case in cases():
        seconds = found[" ".join(map(str, case))]
        base = next(iter(seconds))
        timing = summarise(seconds[base])
        ratios = {name: ratio(seconds[name], seconds[base]) for name in seconds if name != base}
        body = ratios["body"].text if "body" in ratios else "no such Gemm"
        rows.append((*map(str, case), f"{base} {timing.text}", body, ratios["library"].text))
        raw.append(
            {
                **dict(zip(("type", "width", "threads", "batch"), case, strict=True)),
                "base": base,
                "base_us": timing.median_us,
                **{name: dataclasses.asdict(each) for name, each in ratios.items()},
            }
        )
    packages = ("numpy", "ml_dtypes", "onnx", "onnxruntime")
    print(write("native_kernels", QUESTION, NOTE, COLUMNS, rows, raw, environment(packages)))


if __name__ == "__main__":
    main()
