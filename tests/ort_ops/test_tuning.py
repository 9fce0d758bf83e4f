"""Tuned sessions: threads, memory and providers are what was asked for."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import ort_ops
from ort_ops import tuning
from ort_ops.errors import ProviderError
from ort_ops.tuning import Arena, Tuning, with_entries


def chain(width: int = 8, layers: int = 2) -> bytes:
    """Return y = relu(relu(x·W)·W)."""
    weight = np.eye(width, dtype=np.float32)
    nodes, x = [], "x"
    for layer in range(layers):
        nodes += [
            helper.make_node("MatMul", [x, "w"], [f"h{layer}"]),
            helper.make_node("Relu", [f"h{layer}"], [x := f"r{layer}" if layer < layers - 1 else "y"]),
        ]
    ends = [helper.make_tensor_value_info(name, 1, ["n", width]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def affine(width: int = 8) -> bytes:
    """Return y = x + b, by a product with one."""
    held = {"w": np.eye(width, dtype=np.float32), "b": np.arange(width, dtype=np.float32)}
    ends = [helper.make_tensor_value_info(name, 1, ["n", width]) for name in "xy"]
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def in_a_process(program: str, *arguments: str) -> str:
    """Run a program in a process of its own, with this module at hand."""
    command = [sys.executable, "-c", f"from {__name__} import *\n{program}", *arguments]
    root = Path(__file__).parent.parent.parent
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("arena", ["keep", "shrink", "none"])
@pytest.mark.parametrize("spinning", [None, True, False])
def test_a_tuned_session_computes_the_same(arena: Arena, spinning: bool | None) -> None:
    session = ort_ops.InferenceSession.tuned(chain(), threads=2, spinning=spinning, arena=arena)
    assert isinstance(session, ort_ops.InferenceSession)
    x = np.arange(-8, 8, dtype=np.float32).reshape(2, 8)
    for _ in range(3):
        assert np.array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))


def test_options_say_what_was_chosen() -> None:
    options = Tuning(3, spinning=False, arena="none").options()
    assert options.intra_op_num_threads == 3
    assert not options.enable_cpu_mem_arena
    entry = "session.intra_op.allow_spinning"
    assert options.get_session_config_entry(entry) == "0"
    assert Tuning().options().get_session_config_entry(entry) == "1"
    assert Tuning().options(may_spin=False).get_session_config_entry(entry) == "0"
    assert Tuning(spinning=True).options(may_spin=False).get_session_config_entry(entry) == "1"
    assert Tuning().options().intra_op_num_threads == tuning.available_cores()
    assert Tuning().run_entries({"CPUExecutionProvider": {}}) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
def test_a_session_has_as_many_threads_as_it_is_told() -> None:
    program = """
before = len(os.listdir("/proc/self/task"))
session = ort_ops.InferenceSession.tuned(chain(), threads=int(sys.argv[1]))
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert [in_a_process(program, threads) for threads in "145"] == ["0", "3", "4"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sets an affinity")
def test_without_a_number_it_has_the_cores_that_the_process_may_use() -> None:
    program = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
before = len(os.listdir("/proc/self/task"))
session = ort_ops.InferenceSession.tuned(chain())
print(len(os.listdir("/proc/self/task")) - before, tuning.available_cores())
"""
    assert in_a_process(program) == "0 1"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "250000 100000"}, 3),
        # The limit of a group is that of those in it, too.
        ({"/proc/self/cgroup": "0::/a/b", "/sys/fs/cgroup/a/cpu.max": "50000 100000"}, 1),
        (
            {
                "/proc/self/cgroup": "3:cpuset:/x\n2:cpu,cpuacct:/a",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "400000",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        # Two threads a core.
        (
            {
                f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu % 4},{cpu % 4 + 4}"
                for cpu in range(8)
            },
            4,
        ),
    ],
)
def test_cores_are_counted_by_affinity_and_quota(
    files: dict[str, str], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(tuning, "_read", lambda path: files.get(str(path), ""))
    assert tuning.available_cores() == cores


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer keeps what is freed")
def test_an_arena_that_shrinks_gives_memory_back() -> None:
    program = """
session = ort_ops.InferenceSession.tuned(chain(256, 4), threads=1, arena=sys.argv[1])
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
before = resident()
session.run(None, {"x": np.ones((100_000, 256), np.float32)})
session.run(None, {"x": np.ones((1, 256), np.float32)})
print(resident() - before)
"""
    keep, shrink, none = (int(in_a_process(program, arena)) for arena in ("keep", "shrink", "none"))
    assert keep > 190  # two of its intermediate results are 195 MiB
    assert shrink < keep - 90  # ONNX Runtime before 1.23 gives all back, later ones half
    assert none < keep - 180


def test_what_cant_be_had_is_refused() -> None:
    with pytest.raises(ValueError, match="arena='full'; expected one of keep, shrink, none"):
        ort_ops.InferenceSession.tuned(chain(), arena="full")  # type: ignore[arg-type]
    with pytest.raises(ProviderError, match="CUDA graphs need the CUDAExecutionProvider"):
        ort_ops.InferenceSession.tuned(chain(), ["CPUExecutionProvider"], cuda_graph=True)
    with pytest.raises(
        ValueError, match='arena="shrink" gives back memory that captured CUDA graphs write into'
    ):
        ort_ops.InferenceSession.tuned(chain(), arena="shrink", cuda_graph=True)
    with pytest.raises(TypeError, match=r"expected a list of names: \['CPUExecutionProvider'\]"):
        ort_ops.InferenceSession.tuned(chain(), "CPUExecutionProvider")


def test_cuda_is_given_its_options_beside_the_callers() -> None:
    cuda: Any = ("CUDAExecutionProvider", {"device_id": 1})
    given = Tuning(arena="none", cuda_graph=True).providers([cuda, "CPUExecutionProvider"])
    assert given == [
        (
            "CUDAExecutionProvider",
            {"enable_cuda_graph": "1", "arena_extend_strategy": "kSameAsRequested", "device_id": 1},
        ),
        "CPUExecutionProvider",
    ]
    assert Tuning().providers(None) is None


def test_what_is_not_asked_for_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # What onnxruntime-gpu says that it has, TensorRT's libraries or not.
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    assert Tuning(arena="none").providers(None) == [
        ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"}),
        "CPUExecutionProvider",
    ]


def test_the_arena_that_shrinks_is_that_of_the_sessions_gpu() -> None:
    there = {"CUDAExecutionProvider": {"device_id": "1"}, "CPUExecutionProvider": {}}
    key = "memory.enable_memory_arena_shrinkage"
    assert Tuning(arena="shrink").run_entries(there) == {key: "cpu:0;gpu:1"}
    assert Tuning(arena="shrink").run_entries({"CPUExecutionProvider": {}}) == {key: "cpu:0"}
    assert Tuning(cuda_graph=True).run_entries(there) == {"gpu_graph_id": "-1"}


def test_python_kernels_run_and_a_fallback_is_tuned_too() -> None:
    @ort_ops.onnx_op("tests.tuning::Twice")
    def twice(x: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return 2 * x

    ends = [helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy"]
    node = helper.make_node("Twice", ["x"], ["y"], domain="tests.tuning", name="node")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("tests.tuning", 1)]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    session = ort_ops.InferenceSession.tuned(model, ["CPUExecutionProvider"], ops=["tests.tuning::Twice"])
    assert session.run(None, {"x": np.ones(2, np.float32)})[0].tolist() == [2, 2]
    assert [run.runner for run in session.explain()] == ["kernel"]
    options = session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == tuning.available_cores()


@pytest.mark.cuda
def test_cuda_graphs_replay_what_was_captured() -> None:
    import torch

    cuda: Any = ("CUDAExecutionProvider", {"use_tf32": "0"})  # with it x·1 is x rounded
    session = ort_ops.InferenceSession.tuned(chain(), [cuda], cuda_graph=True)
    bindings = [session.bind({"x": torch.zeros(rows, 8, device="cuda")}) for rows in (2, 5)]
    for _ in range(4):
        for binding in bindings:
            x = binding.inputs["x"].normal_()
            assert torch.equal(binding.run()["y"], x.relu())
    x = np.ones((3, 8), np.float32)  # and one that isn't bound
    assert np.array_equal(session.run(None, {"x": x})[0], x)


@pytest.mark.cuda
def test_cuda_graphs_of_growing_batches_are_replayed_in_turn() -> None:
    program = """
import torch
onnxruntime.preload_dlls()
cuda = ("CUDAExecutionProvider", {"use_tf32": "0"})
session = ort_ops.InferenceSession.tuned(affine(), [cuda], cuda_graph=True)
bindings = [session.bind({"x": torch.zeros(rows, 8, device="cuda")}) for rows in (1, 64, 100_000)]
for _ in range(3):
    for binding in bindings:
        x = binding.inputs["x"].normal_()
        torch.testing.assert_close(binding.run()["y"], x + torch.arange(8.0, device="cuda"))
print("equal")
"""
    # What a provider keeps for all batches grows with them, and may have been captured where it was.
    assert in_a_process(program) == "equal"


@pytest.mark.cuda
@pytest.mark.parametrize("arena", ["keep", "shrink", "none"])
def test_on_cuda_each_arena_computes_the_same(arena: Arena) -> None:
    session = ort_ops.InferenceSession.tuned(chain(), ["CUDAExecutionProvider"], arena=arena)
    x = np.arange(-8, 8, dtype=np.float32).reshape(2, 8)
    for _ in range(3):
        assert np.array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))


def test_options_of_a_run_get_the_sessions_entries_and_lose_anothers() -> None:
    options, key = onnxruntime.RunOptions(), "memory.enable_memory_arena_shrinkage"
    feed = {"x": np.ones((1, 8), np.float32)}
    ort_ops.InferenceSession.tuned(chain(), threads=1, arena="shrink").run(None, feed, options)
    assert options.get_run_config_entry(key) == "cpu:0"
    # Where there is no arena, ONNX Runtime refuses the entry.
    ort_ops.InferenceSession.tuned(chain(), threads=1, arena="none").run(None, feed, options)
    assert options.get_run_config_entry(key) == ""
    ort_ops.InferenceSession.tuned(chain(), threads=1, arena="shrink").run(None, feed, options)
    assert options.get_run_config_entry(key) == "cpu:0"
    for own in ("", "cpu:1"):
        mine = onnxruntime.RunOptions()
        mine.add_run_config_entry(key, own)
        assert with_entries(mine, {key: "cpu:0"}) is mine
        assert with_entries(mine, {}).get_run_config_entry(key) == own
    options.add_run_config_entry(key, "cpu:2")  # since
    assert with_entries(options, {}).get_run_config_entry(key) == "cpu:2"
