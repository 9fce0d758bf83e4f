"""What PyTorch's exporters say about themselves, silenced; what they say about the model still comes out."""

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["graphs_unsaid", "programs_unsaid", "quiet", "registration_quiet"]


@contextlib.contextmanager
def registration_quiet() -> Iterator[None]:
    """Silence notes on functions that write operators: that ours takes whatever it is given is meant."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it reports that torchvision, which nobody asked for, is missing, too
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' notes on their own state."""
    with warnings.catch_warnings(), registration_quiet():
        ignore = warnings.filterwarnings
        # The TorchScript exporter is deprecated as a whole; it is asked for by name.
        ignore("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
        ignore("ignore", "The feature will be removed", DeprecationWarning, r"torch\.onnx\.")
        # Above opset 20 it writes what it writes at 20.
        ignore("ignore", "Exporting to ONNX opset version", UserWarning, r"torch\.onnx\.")
        # torch copies its own deprecated class while it exports.
        ignore("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        # Its second way of tracing makes an instance of autograd.Function.
        ignore("ignore", r"<class 'torch\.autograd\.function\.Function'> should not be", DeprecationWarning)
        yield


@contextlib.contextmanager
def programs_unsaid() -> Iterator[None]:
    """Have torch.export not print the part of a program that it captured before it failed."""
    tracing: Any = importlib.import_module("torch.export._trace")
    tracing.print = lambda *said, **how: None
    try:
        yield
    finally:
        del tracing.print


@contextlib.contextmanager
def graphs_unsaid() -> Iterator[None]:
    """Have the TorchScript exporter not print its graphs where it fails: it asks for them unasked."""
    bindings: Any = torch._C  # not all of it is declared
    own = bindings._jit_onnx_log
    bindings._jit_onnx_log = lambda *said: None
    try:
        yield
    finally:
        bindings._jit_onnx_log = own
