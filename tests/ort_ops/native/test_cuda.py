"""An operator with kernels in CUDA C++ on <ort_ops/op.hpp>: on ONNX Runtime's stream, and captured there."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx.parser import parse_model

import ort_ops
from ort_ops.providers import CUDA

from .build import build, shared_folder

HERE = Path(__file__).parent
MODEL = """<ir_version: 8, opset_import: ["": 17, "test.cuda": 1]>
           g (float[n] x) => (float[n] y)
           { v = Neg (x) w = test.cuda.AddTimes <factor = 2.0> (v) y = Neg (w) }"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nvcc = shutil.which("nvcc", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("nvcc is missing: CUDA's toolkit has it")
    with shared_folder(tmp_path_factory, "cuda_operators") as folder:
        made = folder / "libcuda_operators.so"
        return (
            made
            if made.exists()
            else build(HERE / "cuda", folder, f"-DCMAKE_CUDA_COMPILER={nvcc}") / made.name
        )


def session(library: Path, *, cuda_graph: bool = False) -> ort_ops.InferenceSession:
    data = parse_model(MODEL).SerializeToString()
    made = ort_ops.InferenceSession.tuned(data, [CUDA], libraries=[library], cuda_graph=cuda_graph)
    assert [(run.runner, run.provider) for run in made.explain()] == [("library", CUDA)]
    return made


def test_it_is_built_and_taken_where_there_is_no_gpu(library: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    assert options.get_session_config_entry("ort_ops.operators.test.cuda") == "AddTimes"


@pytest.mark.cuda
@pytest.mark.parametrize("size", [0, 1, 257, 1 << 20])
def test_it_computes_between_built_in_nodes(library: Path, size: int) -> None:
    x = np.arange(size, dtype=np.float32) % 1000
    np.testing.assert_array_equal(session(library).run(None, {"x": x})[0], 3 * x)


@pytest.mark.cuda
def test_runs_at_once_have_memory_of_their_own(library: Path) -> None:
    made = session(library)

    def run(thread: int) -> None:
        for turn in range(50):
            x = np.full(1 << 20, 50 * thread + turn, np.float32)
            np.testing.assert_array_equal(made.run(None, {"x": x})[0], 3 * x)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))


@pytest.mark.cuda
@pytest.mark.needs("torch")
def test_it_is_captured_and_replayed(library: Path) -> None:
    import torch

    made = session(library, cuda_graph=True)
    bindings = [made.bind({"x": torch.zeros(size, device="cuda")}) for size in (1000, 1 << 20)]
    for _ in range(4):
        for binding in bindings:
            x: Any = binding.inputs["x"].normal_()
            assert torch.equal(binding.run()["y"], x + 2 * x)
