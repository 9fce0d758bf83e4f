"""The releases that a test runs on, and what is expected below the one that brought a feature."""

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import onnxruntime
import pytest

__all__ = ["NUMPY", "ONNX", "ORT", "from_ort", "from_torch", "needs_onnx"]

Release = tuple[int, int]


def _release(version: str) -> Release:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


ORT = _release(onnxruntime.__version__)  # its distribution has several names
ONNX = _release(importlib.metadata.version("onnx"))
NUMPY = _release(importlib.metadata.version("numpy"))


def from_ort(release: Release, error: type[Exception], match: str) -> AbstractContextManager[Any]:
    """Expect nothing from this release of ONNX Runtime on, and below it an error that says what is missing.

    What follows in the block isn't run below it.
    """
    return contextlib.nullcontext() if release <= ORT else pytest.raises(error, match=match)


TORCH = _release(importlib.metadata.version("torch")) if importlib.util.find_spec("torch") else (0, 0)


def from_torch(release: Release, missing: str, run: Callable[[], Any]) -> Any:
    """Return what ``run`` gives; below a release of torch see that it fails as ``missing`` says, and skip."""
    installed = _release(importlib.metadata.version("torch"))
    if release <= installed:
        return run()
    with pytest.raises(Exception, match=missing):
        run()
    pytest.skip(f"torch {'.'.join(map(str, installed))}: {missing}")


def needs_onnx(release: Release, what: str) -> None:
    """Skip below a release of the onnx package, by which a test makes its models or its expectation."""
    if release > ONNX:
        pytest.skip(f"onnx {'.'.join(map(str, release))} brought {what}; this is {'.'.join(map(str, ONNX))}")
