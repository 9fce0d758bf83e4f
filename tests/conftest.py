import functools
import importlib
import importlib.util

import onnxruntime
import pytest


@functools.cache
def _lacking() -> str:
    """Say what is missing for tests on a GPU; "" where nothing is."""
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    if torch is None or not torch.cuda.is_available():
        return "needs an NVIDIA GPU and torch for CUDA"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "needs onnxruntime-gpu: this onnxruntime has no CUDAExecutionProvider"
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries, which torch brought
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked ``cuda`` where it can't be had."""
    if item.get_closest_marker("cuda") and (lacking := _lacking()):
        pytest.skip(lacking)
