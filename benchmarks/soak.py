"""Does memory stay flat over a million runs, ten thousand sessions and as many failures? It has to.

Run: python -m benchmarks.soak [PART ...]. Exits with 1 where resident memory grew by more than is allowed.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

import ort_ops

DOMAIN = "soak"
CPU = ["CPUExecutionProvider"]
FEED = {"x": np.ones(4, np.float32)}
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True)
class Part:
    """What is done how often, after a warm-up; ``allowed_kib`` is the growth that counts as flat."""

    prepare: Callable[[], Callable[[], None]]
    times: int
    warm_up: int
    allowed_kib: int


@ort_ops.onnx_op(f"{DOMAIN}::Double")
def double(x, *, scale=2.0):  # type: ignore[no-untyped-def] # of any type
    return x * np.float32(scale)


@ort_ops.onnx_op(f"{DOMAIN}::Fail")
def fail(x):  # type: ignore[no-untyped-def] # of any type
    raise ValueError(f"no {x.shape}")


def model(op: str) -> bytes:
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])] for name in "xy"]
    node = helper.make_node(op, ["x"], ["y"], name=op, domain=DOMAIN)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    graph = helper.make_graph([node], "graph", *ends)
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


def quiet() -> onnxruntime.SessionOptions:
    """Return options with which ten thousand failures are not ten thousand lines."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def runs() -> Callable[[], None]:
    made = ort_ops.InferenceSession(model("Double"), providers=CPU)

    def run() -> None:
        made.run(None, FEED)

    return run


def sessions() -> Callable[[], None]:
    data = model("Double")

    def make_and_drop() -> None:
        ort_ops.InferenceSession(data, providers=CPU).run(None, FEED)

    return make_and_drop


def fails(made: onnxruntime.InferenceSession, error: type[Exception]) -> None:
    try:
        made.run(None, FEED)
    except error:
        return
    raise AssertionError("a kernel that fails was run without an error")


def failures() -> Callable[[], None]:
    made = ort_ops.InferenceSession(model("Fail"), quiet(), providers=CPU)
    return lambda: fails(made, ort_ops.errors.KernelError)


def failures_in_plain_onnxruntime() -> Callable[[], None]:
    options = quiet()
    ort_ops.register(options, [f"{DOMAIN}::Fail"])
    made = onnxruntime.InferenceSession(model("Fail"), options, providers=CPU)
    return lambda: fails(made, Exception)


PARTS = {
    # Once, at about the millionth run, the process takes 0.7 MiB, and then nothing more in six million.
    "runs": Part(runs, 1_000_000, warm_up=1_500_000, allowed_kib=512),
    # The allocator takes 2 MiB over the first 12,000 sessions, plain onnxruntime's own among them, and then
    # stays; what leaks goes on.
    "sessions": Part(sessions, 10_000, warm_up=10_000, allowed_kib=1024),
    # Over the first 40,000 failures it takes 1 or 2 MiB, as where an operator of ONNX Runtime's own fails;
    # then nothing over a hundred thousand.
    "failures": Part(failures, 10_000, warm_up=40_000, allowed_kib=512),
    "failures_in_plain_onnxruntime": Part(
        failures_in_plain_onnxruntime, 10_000, warm_up=40_000, allowed_kib=512
    ),
}


def resident_kib() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_KIB


def soak(name: str) -> bool:
    """Do one part; print what it held after the warm-up and at the end, and tell whether that is flat."""
    part = PARTS[name]
    call = part.prepare()
    for _ in range(part.warm_up):
        call()
    first = resident_kib()
    for _ in range(part.times):
        call()
    last = resident_kib()
    flat = last - first <= part.allowed_kib
    print(
        f"{name}: {part.times:,} times, {first:,} KiB after a warm-up of {part.warm_up:,}, "
        f"{last:,} KiB at the end, {last - first:+,} KiB; at most +{part.allowed_kib:,}: "
        f"{'flat' if flat else 'GREW'}",
        flush=True,
    )
    return flat


def main(names: list[str]) -> int:
    if len(names) == 1:
        return 0 if soak(names[0]) else 1
    # Each in a process of its own, so that what one leaves free doesn't hide what another takes.
    command = [sys.executable, "-m", "benchmarks.soak"]
    codes = [subprocess.run([*command, name], check=False).returncode for name in names or PARTS]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
