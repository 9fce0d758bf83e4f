"""What does each choice of a tuned session cost? Run: python -m benchmarks.serving."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper

import ort_ops
from benchmarks.report import alternate, environment, ratio, summarise, write
from ort_ops import deploy

QUESTION = "What does each choice of a tuned session cost?"
NOTE = (
    "float32 on the CPU provider: so many layers of MatMul and Relu. Ratios are of medians over 15 "
    "alternating rounds, and in brackets the first and third quartile of the rounds' own ratios. Processor "
    "time is that of the whole process over 2 seconds in which a request comes every millisecond. Memory is "
    "what stays resident above what the session itself takes, after a run of 100,000 rows and one of a "
    "single row, in a process of its own. A bundle's files are hashed when it is opened, once for any "
    "number of sessions. CUDA graphs and buffers on a GPU were not measured: no GPU was at "
    "hand."
)
COLUMNS = ("choice", "model", "against", "time", "what else")
_ROUNDS, _SECONDS = 15, 0.05
_THREADS = {"allowed": None, "one more": 2}

Calls = dict[str, Callable[[], object]]


def model(width: int, layers: int) -> bytes:
    """Return y = relu(... relu(x·W)·W ...) with one weight."""
    weight = (np.random.default_rng(0).standard_normal((width, width)) / width**0.5).astype(np.float32)
    nodes, x = [], "x"
    for layer in range(layers):
        y = f"r{layer}" if layer < layers - 1 else "y"
        nodes.append(helper.make_node("MatMul", [x, "w"], [f"h{layer}"]))
        nodes.append(helper.make_node("Relu", [f"h{layer}"], [y]))
        x = y
    ends = [helper.make_tensor_value_info(name, 1, ["rows", width]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(made.SerializeToString())


def convolutions(layers: int, channels: int) -> bytes:
    """Return so many of Conv, BatchNormalization and Relu, each with weights of its own."""
    rng, nodes, weights, x = np.random.default_rng(0), [], [], "x"
    for layer in range(layers):
        y = f"y{layer}" if layer < layers - 1 else "y"
        names = [f"{each}{layer}" for each in ("w", "scale", "shift", "mean", "variance")]
        shapes = [(channels, channels, 3, 3), *[(channels,)] * 4]
        weights += [
            numpy_helper.from_array(rng.random(shape, np.float32), name)
            for name, shape in zip(names, shapes, strict=True)
        ]
        nodes += [
            helper.make_node("Conv", [x, names[0]], [f"c{layer}"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"c{layer}", *names[1:]], [f"b{layer}"]),
            helper.make_node("Relu", [f"b{layer}"], [y]),
        ]
        x = y
    ends = [helper.make_tensor_value_info(name, 1, ["n", channels, 14, 14]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(made.SerializeToString())


def bundled(content: bytes, folder: Path) -> Path:
    """Return a bundle of a model, with the optimised graph where the folder is of that name."""
    model = folder.with_suffix(".onnx")
    model.write_bytes(content)
    deploy.bundle(model, folder, optimized=folder.name == "optimized")
    return folder


def tuned(width: int, layers: int, **choices: Any) -> onnxruntime.InferenceSession:
    return ort_ops.InferenceSession.tuned(model(width, layers), ["CPUExecutionProvider"], **choices)


def runner(session: onnxruntime.InferenceSession, rows: int, width: int) -> Callable[[], object]:
    x = rows_of(rows, width)
    return lambda: session.run(None, {"x": x})


def rows_of(rows: int, width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)


def by_threads(rows: int) -> dict[str, list[float]]:
    """Time as many threads as cores are allowed, one, and one more."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    calls = {name: runner(tuned(256, 4, threads=count), rows, 256) for name, count in _THREADS.items()}
    return alternate(calls, threads=1, rounds=_ROUNDS, round_seconds=_SECONDS)


def processor_time(call: Callable[[], object]) -> float:
    """Return the processor time of a second in which a request comes every millisecond."""
    start, spent = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < 2:
        call()
        time.sleep(0.001)
    return (time.process_time() - spent) / (time.perf_counter() - start)


def held_memory(arena: str) -> float:
    """Return the MiB that stay resident after a large run."""
    session = tuned(256, 4, threads=1, arena=arena)
    before = resident()
    session.run(None, {"x": rows_of(100_000, 256)})
    session.run(None, {"x": rows_of(1, 256)})
    return resident() - before


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def in_a_process(function: Callable[[Any], Any], argument: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (argument,))


def compare(calls: Calls, threads: int) -> dict[str, list[float]]:
    return alternate(calls, threads=threads, rounds=_ROUNDS, round_seconds=_SECONDS)


def main() -> None:
    rows: list[Sequence[str]] = []
    raw: list[dict[str, Any]] = []
    cores = len(os.sched_getaffinity(0))

    def add(choice: str, what: str, against: str, seconds: dict[str, list[float]], more: str = "") -> None:
        base, other = seconds  # in the order of the calls: what is chosen, then what it is compared with
        text, value = ratio(seconds, base, other)
        other_us = summarise(seconds[other]).text
        rows.append((choice, what, f"{against}: {other_us} µs", text, more))
        raw.append({"choice": choice, "model": what, "against": against, "ratio": value, "more": more})
        print(rows[-1], flush=True)

    for batch in (1, 64):
        seconds = in_a_process(by_threads, batch)
        what = f"4 layers of 256, {batch} rows, one core allowed"
        add("threads: as many as cores are allowed", what, "one more", seconds)
    for batch in (1, 64):
        calls: Calls = {
            "without": runner(tuned(256, 4, threads=cores, spinning=False), batch, 256),
            "with": runner(tuned(256, 4, threads=cores, spinning=True), batch, 256),
        }
        spent = {name: processor_time(call) for name, call in calls.items()}
        more = f"processor time {spent['without']:.2f} s a second, with spinning {spent['with']:.2f}"
        add(
            "spinning=False",
            f"4 layers of 256, {batch} rows, {cores} threads",
            "spinning",
            compare(calls, cores),
            more,
        )
    kept = in_a_process(held_memory, "keep")
    for arena in ("shrink", "none"):
        calls = {name: runner(tuned(256, 4, threads=1, arena=name), 4096, 256) for name in (arena, "keep")}
        more = f"holds {in_a_process(held_memory, arena):.0f} MiB, keep {kept:.0f}"
        add(f'arena="{arena}"', "4 layers of 256, 4,096 rows, 1 thread", "keep", compare(calls, 1), more)
    for width, layers, batch in ((64, 2, 1), (256, 4, 1), (256, 4, 64), (256, 1, 4096)):
        session = tuned(width, layers, threads=1)
        binding = session.bind({"x": rows_of(batch, width)})
        calls = {"bind": binding.run, "run": runner(session, batch, width)}
        what = f"{layers} layer{'s' * (layers > 1)} of {width}, {batch:,} row{'s' * (batch > 1)}, 1 thread"
        add("bind", what, "run", compare(calls, 1))
    with tempfile.TemporaryDirectory() as folder:
        for what, content in (("24 convolutions of 256 channels, 57 MB", convolutions(24, 256)),):
            bundles = {name: bundled(content, Path(folder, name)) for name in ("optimized", "original")}
            opened = {name: deploy.open_bundle(path) for name, path in bundles.items()}
            providers = ["CPUExecutionProvider"]
            makes: Calls = {name: partial(each.session, providers) for name, each in opened.items()}
            add("bundle --optimized: a session", what, "without", compare(makes, 1))
            opens: Calls = {name: partial(deploy.open_bundle, path) for name, path in bundles.items()}
            add("bundle --optimized: opening the bundle", what, "without", compare(opens, 1))
    packages = ("numpy", "onnx", "onnxruntime")
    print(write("serving", QUESTION, NOTE, COLUMNS, rows, raw, environment(packages)))


if __name__ == "__main__":
    main()
