"""A training run in one safetensors file: parameters, momentum, loss history, and whose they are.

Tensors: ``model.NAME``, ``momentum.NAME`` and ``losses`` (step,) float64. Metadata, all strings: format,
step, task, seed, and model, a JSON object {NAME: [dtype, *shape]}. Loading runs no code: a safetensors file
holds none.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from .errors import CheckpointError
from .files import replace_file

__all__ = ["Run", "load", "save"]

_FORMAT = "mylinear-checkpoint-1"


@dataclass(frozen=True)
class Run:
    """What a checkpoint must belong to: the task's identity and the seed."""

    task: str
    seed: int


def save(
    path: str | Path,
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: NDArray[np.float64],
) -> None:
    """Write a checkpoint after ``len(losses)`` steps, all of it or nothing: a failure keeps the old file.

    Raises OSError where the folder can't be written to.
    """
    tensors = {f"model.{name}": value.detach().cpu() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")  # absent before the first step
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum.cpu()
    tensors["losses"] = torch.from_numpy(losses)
    metadata = _metadata(run, model) | {"step": str(len(losses))}
    # clone: safetensors refuses tensors that share memory, as tied weights do.
    owned = {name: value.contiguous().clone() for name, value in tensors.items()}
    replace_file(Path(path), serialise(owned, metadata=metadata))


def load(
    path: str | Path, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer
) -> NDArray[np.float64]:
    """Put a checkpoint's parameters and momentum into model and optimizer; return its losses (step,) float64.

    Raises CheckpointError for a file that is missing, cut short, not a checkpoint, of another task, seed or
    model, or that lacks a tensor; model and optimizer are then as they were.
    """
    metadata, tensors = _read(Path(path))
    _check_metadata(Path(path), metadata, _metadata(run, model))
    parameters = dict(model.named_parameters())
    losses = _check_losses(Path(path), metadata, tensors)
    expected = {f"model.{name}": value for name, value in model.state_dict().items()}
    if len(losses):
        expected |= {f"momentum.{name}": value for name, value in parameters.items()}
    _check_tensors(Path(path), tensors, expected)
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    for name, parameter in parameters.items():
        if len(losses):
            optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"].to(parameter.device)
    return losses


def _metadata(run: Run, model: nn.Module) -> dict[str, str]:
    """Return what must be the same in the file and in the run that loads it."""
    shapes = {name: [_dtype(value), *value.shape] for name, value in model.state_dict().items()}
    return {"format": _FORMAT, "task": run.task, "seed": str(run.seed), "model": json.dumps(shapes)}


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Return a file's metadata and tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: {error}; expected a whole safetensors file that mylinear wrote: "
            "resume from another, or start anew"
        ) from error


def _check_metadata(path: Path, got: dict[str, str], expected: dict[str, str]) -> None:
    """Refuse a file of another format, task, seed or model."""
    for name, value in expected.items():
        if got.get(name) != value:
            raise CheckpointError(
                f"{path}: {name} is {got.get(name, 'missing')}; expected {value}: "
                "resume the run that wrote this file, or start anew with another file"
            )


def _check_losses(
    path: Path, metadata: dict[str, str], tensors: dict[str, torch.Tensor]
) -> NDArray[np.float64]:
    """Return the loss history; refuse one that is missing or not as long as the step says."""
    step, losses = metadata.get("step", "missing"), tensors.get("losses")
    if losses is None or losses.dtype != torch.float64 or [step] != [str(size) for size in losses.shape]:
        got = "missing" if losses is None else f"{_dtype(losses)} {tuple(losses.shape)}"
        raise CheckpointError(f"{path}: losses is {got} at step {step}; expected float64 (step,): start anew")
    array: NDArray[np.float64] = losses.numpy()
    return array


def _check_tensors(path: Path, got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Refuse a file that lacks a tensor, or holds one of another shape or dtype."""
    for name, tensor in expected.items():
        want = f"{_dtype(tensor)} {tuple(tensor.shape)}"
        found = f"{_dtype(got[name])} {tuple(got[name].shape)}" if name in got else "missing"
        if found != want:
            raise CheckpointError(f"{path}: tensor {name} is {found}; expected {want}: start anew")


def _dtype(tensor: torch.Tensor) -> str:
    """Return a dtype's name without ``torch.``."""
    return str(tensor.dtype).removeprefix("torch.")
