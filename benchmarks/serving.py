"""What does each choice of a tuned session cost? Run: python -m benchmarks.serving."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper

import ort_ops
from benchmarks.report import SPREAD, Seconds, alternate, environment, in_processes, ratio, summarise, write
from ort_ops import deploy

QUESTION = "What does each choice of a tuned session cost?"
NOTE = (
    "float32 on the CPU provider: so many layers of MatMul and Relu. Processor "
    "time is that of the whole process over 2 seconds in which a request comes every millisecond. Memory is "
    "what stays resident above what the session itself takes, after a run of 100,000 rows and one of a "
    "single row, in a process of its own. A bundle's files are hashed when it is opened, once for any "
    "number of sessions. CUDA graphs and buffers on a GPU were not measured: no GPU was at "
    f"hand. {SPREAD}"
)
COLUMNS = ("choice", "model", "against", "time", "what else")
_CPU, _CORES = "CPUExecutionProvider", len(os.sched_getaffinity(0))
_ROUNDS, _SECONDS = 5, 0.05
_THREADS = {"allowed": None, "one more": 2}

Calls = dict[str, Callable[[], object]]
Cases = dict[str, Seconds]


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
    return ort_ops.InferenceSession.tuned(model(width, layers), [_CPU], **choices)


def runner(session: onnxruntime.InferenceSession, rows: int, width: int) -> Callable[[], object]:
    x = rows_of(rows, width)
    return lambda: session.run(None, {"x": x})


def rows_of(rows: int, width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)


def by_threads(rows: int) -> Cases:
    """Time as many threads as cores are allowed, one, and one more."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    calls = {name: runner(tuned(256, 4, threads=count), rows, 256) for name, count in _THREADS.items()}
    return {_name(4, 256, rows, "one core allowed"): compare(calls)}


def by_spinning(rows: int) -> Cases:
    """Time sessions whose waiting threads sleep, and spin."""
    return {_name(4, 256, rows, f"{_CORES} threads"): compare(spinning(rows), _CORES)}


def spinning(rows: int) -> Calls:
    sessions = {each: tuned(256, 4, threads=_CORES, spinning=each == "with") for each in ("without", "with")}
    return {name: runner(session, rows, 256) for name, session in sessions.items()}


def by_arena(arena: str) -> Cases:
    """Time a session that gives memory back, and one that keeps it."""
    calls = {name: runner(tuned(256, 4, threads=1, arena=name), 4096, 256) for name in (arena, "keep")}
    return {_name(4, 256, 4096, "1 thread"): compare(calls)}


def by_binding() -> Cases:
    """Time bound arrays beside session.run."""
    found = {}
    for width, layers, rows in ((64, 2, 1), (256, 4, 1), (256, 4, 64), (256, 1, 4096)):
        session = tuned(width, layers, threads=1)
        binding = session.bind({"x": rows_of(rows, width)})
        calls: Calls = {"bind": binding.run, "run": runner(session, rows, width)}
        found[_name(layers, width, rows, "1 thread")] = compare(calls)
    return found


def by_bundle() -> Cases:
    """Time a bundle with the optimised graph beside one without: making a session, and opening the bundle."""
    with tempfile.TemporaryDirectory() as folder:
        content = convolutions(24, 256)
        bundles = {name: bundled(content, Path(folder, name)) for name in ("optimized", "original")}
        opens: Calls = {name: partial(deploy.open_bundle, path) for name, path in bundles.items()}
        opened = {name: deploy.open_bundle(path) for name, path in bundles.items()}
        makes: Calls = {name: partial(each.session, [_CPU]) for name, each in opened.items()}
        return {"session": compare(makes), "opening": compare(opens)}


def _name(layers: int, width: int, rows: int, more: str) -> str:
    s = "" if layers == 1 else "s"
    return f"{layers} layer{s} of {width}, {rows:,} row{'' if rows == 1 else 's'}, {more}"


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


def compare(calls: Calls, threads: int = 1) -> Seconds:
    return alternate(calls, threads=threads, rounds=_ROUNDS, round_seconds=_SECONDS)


def main() -> None:
    rows: list[Sequence[str]] = []
    raw: list[dict[str, Any]] = []

    def add(choice: str, against: str, cases: Cases, more: str = "") -> None:
        for what, seconds in cases.items():
            base, other = seconds  # in the order of the calls: what is chosen, then what it is compared with
            time = ratio(seconds[base], seconds[other])
            other_us = summarise(seconds[other]).text
            rows.append((choice, what, f"{against}: {other_us} µs", time.text, more))
            raw.append({"choice": choice, "model": what, "against": against, "more": [more], **asdict(time)})
            print(rows[-1], flush=True)

    for batch in (1, 64):
        add("threads: as many as cores are allowed", "one more", in_processes(by_threads, batch))
    for batch in (1, 64):
        spent = {name: processor_time(call) for name, call in spinning(batch).items()}
        more = f"processor time {spent['without']:.2f} s a second, with spinning {spent['with']:.2f}"
        add("spinning=False", "spinning", in_processes(by_spinning, batch), more)
    kept = in_a_process(held_memory, "keep")
    for arena in ("shrink", "none"):
        more = f"holds {in_a_process(held_memory, arena):.0f} MiB, keep {kept:.0f}"
        add(f'arena="{arena}"', "keep", in_processes(by_arena, arena), more)
    add("bind", "run", in_processes(by_binding))
    bundles, what = in_processes(by_bundle), "24 convolutions of 256 channels, 57 MB"
    add("bundle --optimized: a session", "without", {what: bundles["session"]})
    add("bundle --optimized: opening the bundle", "without", {what: bundles["opening"]})
    packages = ("numpy", "onnx", "onnxruntime")
    print(write("serving", QUESTION, NOTE, COLUMNS, rows, raw, environment(packages)))


if __name__ == "__main__":
    main()
