"""The training loop: one for every task, read from top to bottom.

Repeatable to the bit on a CPU: the first weights and every batch are functions of the seed, and a run that is
resumed from a checkpoint ends with the bits of one that was never interrupted.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from . import checkpoint as checkpoints
from .data import Task
from .errors import CheckpointError, DataError

__all__ = ["TrainingResult", "train"]

OnStep = Callable[[int, int, float], None]

_LARGEST_SEED = 2**64 - 1  # that torch takes


@dataclass(frozen=True)
class TrainingResult:
    """A trained model and how it came about."""

    model: nn.Module  # in eval mode, on ``device``, for raw inputs and outputs
    losses: NDArray[np.float64]  # (steps,), the loss of each step's batch before that step
    metrics: Mapping[str, float]
    lines: tuple[str, ...]  # the metrics for a person to read
    seconds: float  # of this call: what was done before a resume is not in it
    resumed_at: int  # the step that this call began with; 0 for a new run
    device: torch.device


def train(
    task: Task,
    *,
    steps: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    resume: bool | str | Path = False,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train a task's model by SGD, and judge it.

    steps: how many in all, those before a resume included; ``task.steps`` if None. device: CUDA where there
    is one, if None. checkpoint: a file to be written every ``checkpoint_every`` steps and at the end. resume:
    True goes on from ``checkpoint``, a path from that file. on_step(step, steps, loss) is called after each
    step, step counted from 1.

    Raises CheckpointError for a file to resume from that is damaged, of another run, or further on than
    ``steps``; DataError for a step count or seed below 0, a seed of 2^64 or more, a device that isn't there,
    or a loss that is no longer finite.
    """
    began = time.perf_counter()
    steps = task.steps if steps is None else steps
    _check_counts(steps=(steps, 0), seed=(seed, 0), checkpoint_every=(checkpoint_every, 1))
    device = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    model = _seeded_model(task, seed).to(device)
    sgd = task.sgd
    optimizer = torch.optim.SGD(
        model.parameters(), lr=sgd.lr, momentum=sgd.momentum, weight_decay=sgd.weight_decay
    )
    run = checkpoints.Run(task.identity, seed)
    losses = np.empty(steps)
    resumed_at = _resume(_file_to_resume(resume, checkpoint), run, model, optimizer, losses)

    for step in range(resumed_at, steps):
        x, target = (tensor.to(device) for tensor in task.batch(step, seed))
        loss = task.loss(model(x), target)
        losses[step] = _finite(loss.item(), step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if checkpoint is not None and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
            checkpoints.save(checkpoint, run, model, optimizer, losses[: step + 1])
        if on_step is not None:
            on_step(step + 1, steps, float(losses[step]))

    model.eval()
    task.finish(model)
    found = task.evaluate(model)
    seconds = time.perf_counter() - began
    return TrainingResult(model, losses, found.metrics, found.lines, seconds, resumed_at, device)


def _seeded_model(task: Task, seed: int) -> nn.Module:
    """Return the task's model drawn from ``seed``, on the CPU: the same for every device to be trained on.

    torch's global generator is put back as it was; CUDA's is not touched, as torch.manual_seed would.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return task.make_model(device="cpu")


def _file_to_resume(resume: bool | str | Path, checkpoint: str | Path | None) -> Path | None:
    """Return the file to go on from, or None for a new run."""
    if resume is False:
        return None
    if resume is not True:
        return Path(resume)
    if checkpoint is None:
        raise CheckpointError(
            "train: resume=True but no checkpoint; expected the file's path as one of the two"
        )
    return Path(checkpoint)


def _resume(
    path: Path | None,
    run: checkpoints.Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: NDArray[np.float64],
) -> int:
    """Load a checkpoint into model, optimizer and the first losses; return the step to go on with."""
    if path is None:
        return 0
    before = checkpoints.load(path, run, model, optimizer)
    if len(before) > len(losses):
        raise CheckpointError(
            f"{path}: is at step {len(before)} but the run is to end at {len(losses)}; "
            f"expected steps of {len(before)} or more"
        )
    losses[: len(before)] = before
    return len(before)


def _device(device: torch.device | str) -> torch.device:
    """Return a device that tensors can be put on."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        reason = str(error).partition("\n")[0]
        raise DataError(f"train: device is {str(device)!r}: {reason}; expected one that is here") from error
    return torch.device(device)


def _finite(loss: float, step: int) -> float:
    """Return the loss; refuse one from which no step leads back."""
    if not math.isfinite(loss):
        raise DataError(
            f"train: loss is {loss} at step {step}; expected a finite number: look for outliers in x"
        )
    return loss


def _check_counts(**counts: tuple[int, int]) -> None:
    """Refuse a count, given as name=(got, least), that is below the least."""
    for name, (got, least) in counts.items():
        if got < least:
            raise DataError(f"train: {name} is {got}; expected {least} or more")
    if counts["seed"][0] > _LARGEST_SEED:
        raise DataError(f"train: seed is {counts['seed'][0]}; expected {_LARGEST_SEED} or less")
