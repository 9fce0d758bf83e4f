"""A trained model beside the file that was exported from it, and ONNX Runtime beside the file."""

import os
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ort_ops import parity
from ort_ops.errors import ParityError
from ort_ops.model import read_model
from ort_ops.parity import Report
from ort_ops.selection import Prefer

from . import kernels as kernels  # for what it registers
from .function import LinearF

__all__ = ["BATCHES", "verify"]

BATCHES = (0, 1, 2, 7, 64)


def verify(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    providers: Sequence[str] = ("cpu",),
    batches: Iterable[int] = BATCHES,
    seed: int = 0,
    prefer: Prefer = "kernel",
) -> Report:
    """Compare a model of one input with its file, by ``ort_ops.parity.check``, for each batch size.

    The inputs are from N(0, 1), in the dtype of the model. Raises ProviderError where a provider isn't there,
    ParityError where nothing can be compared.
    """
    inputs = [(_make_input(model, path, batch, seed),) for batch in batches]
    if not inputs:
        raise ParityError("no batch size was given; expected one at least")
    return parity.check(model, path, inputs, providers, functions=[LinearF], prefer=prefer)


def _make_input(model: nn.Module, path: str | os.PathLike[str], batch: int, seed: int) -> torch.Tensor:
    """Return x: the file's input shape with ``batch`` for its symbolic dimensions, in the model's dtype."""
    shape = [dim if isinstance(dim, int) else batch for dim in read_model(path).inputs[0].shape or ()]
    weight = next(model.parameters())
    features = weight.shape[-1]
    if not shape or shape[-1] != features:
        raise ParityError(f"the file takes {shape} but the model (..., {features}); they belong to others")
    generator = torch.Generator().manual_seed(seed * 1_000_003 + batch)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(weight.dtype)
