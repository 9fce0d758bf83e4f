"""What can be trained on: a line, real handwritten digits, a user's own table.

A batch is a pure function of (step, seed), so that a run that is resumed at any step sees what it would have
seen, without any generator state in its checkpoint.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from numpy.typing import NDArray
from torch import nn

from .errors import DataError
from .module import MyLinear
from .sampling import fresh, minibatch, split
from .table import Table, read_table

__all__ = ["Digits", "Evaluation", "Line", "Sgd", "TableTask", "Task"]


@dataclass(frozen=True)
class Sgd:
    """The settings of torch.optim.SGD."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """How good a trained model is: numbers by name, and the same for a person to read."""

    metrics: Mapping[str, float]
    lines: tuple[str, ...]


class Task(Protocol):
    """What training needs to know of a task; tensors are on the CPU, in ``dtype``."""

    @property
    def name(self) -> str:
        """Return the word for it on the command line."""

    @property
    def identity(self) -> str:
        """Return what tells this task, and its data, from any other: a checkpoint belongs to one identity."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of parameters and inputs."""

    @property
    def steps(self) -> int:
        """Return how many steps are enough."""

    @property
    def sgd(self) -> Sgd:
        """Return the optimizer's settings."""

    def make_model(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> nn.Module:
        """Return an untrained model, drawn from torch's global generator; dtype None means ``self.dtype``."""

    def batch(self, step: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (x, target) of one step, counted from 0: always the same for the same (step, seed)."""

    def loss(self, y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar to be minimised."""

    def finish(self, model: nn.Module) -> None:
        """Change a trained model, in place, into one for raw inputs and outputs."""

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Judge a finished model, on data that it was not trained on where there is data."""


@dataclass(frozen=True)
class Line:
    """y = 2·x₁ + 3·x₂ + 4 from one fresh x in [0, 1)² a step: x (1, 2), target (1, 1).

    A target (1,) would broadcast to the same, and hide a y of another shape.
    """

    name: str = "line"
    identity: str = "line"
    dtype: torch.dtype = torch.float64
    steps: int = 300
    sgd: Sgd = Sgd(lr=0.01, weight_decay=5e-4)

    WEIGHT = (2.0, 3.0)
    BIAS = 4.0

    def make_model(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> nn.Module:
        """Return MyLinear(2, 1) with parameters from U(0, 1)."""
        return MyLinear(2, 1, dtype=dtype or self.dtype, device=device)

    def batch(self, step: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x (1, 2) and target (1, 1)."""
        x = torch.from_numpy(fresh(seed, step).random((1, 2)))
        target = F.linear(x, torch.tensor([self.WEIGHT], dtype=x.dtype)) + self.BIAS
        return x.to(self.dtype), target.to(self.dtype)

    def loss(self, y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error."""
        return F.mse_loss(y, target)

    def finish(self, model: nn.Module) -> None:
        """Change nothing: the model was trained on raw values."""

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Say how near W and B came: metrics weight_error and bias_error, largest absolute differences."""
        weight, bias = (parameter.detach().cpu().double() for parameter in model.parameters())
        weight_error = float((weight - torch.tensor([self.WEIGHT], dtype=torch.float64)).abs().max())
        bias_error = abs(float(bias) - self.BIAS)
        got = ", ".join(f"{value:.3f}" for value in weight[0].tolist())
        lines = (
            f"W = ({got}), wanted ({self.WEIGHT[0]:g}, {self.WEIGHT[1]:g}): {weight_error:.3f} off at most",
            f"B = {float(bias):.3f}, wanted {self.BIAS:g}: {bias_error:.3f} off",
        )
        return Evaluation(_frozen(weight_error=weight_error, bias_error=bias_error), lines)


@dataclass(frozen=True)
class Digits:
    """Scikit-learn's 1,797 handwritten digits, 8 by 8 pixels, and a network of three MyLinear for them.

    x is (n, 64) float32 in [0, 1], target (n,) int64. A fifth is held out, the same for every seed.
    """

    name: str = "digits"
    identity: str = "digits"
    dtype: torch.dtype = torch.float32
    steps: int = 1350  # 30 epochs of 45 batches
    sgd: Sgd = Sgd(lr=0.1, weight_decay=5e-4)
    batch_size: int = 32

    @cached_property
    def _parts(self) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Return ((x, target) to train on, (x, target) held out); raise DataError without scikit-learn."""
        try:
            datasets: Any = importlib.import_module("sklearn.datasets")
        except ImportError as error:
            raise DataError(
                "digits: scikit-learn is not installed; expected scikit-learn, which holds the images: "
                "pip install 'ort-ops[report]'"
            ) from error
        pixels, labels = datasets.load_digits(return_X_y=True)  # pixels are 0 to 16
        x = torch.from_numpy(pixels / 16).to(self.dtype)
        target = torch.from_numpy(labels.astype(np.int64))
        train, held_out = split(len(x))
        return (x[train], target[train]), (x[held_out], target[held_out])

    @property
    def held_out(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images that are not trained on, x (359, 64), and what they show, target (359,)."""
        return self._parts[1]

    def make_model(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> nn.Module:
        """Return 64 -> 128 -> 64 -> 10 with ReLU between."""
        dtype = dtype or self.dtype
        layers: list[nn.Module] = []
        for sizes in ((64, 128), (128, 64), (64, 10)):
            layers += [MyLinear(*sizes, dtype=dtype, device=device, init="kaiming"), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def batch(self, step: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x (32, 64) and target (32,), fewer in an epoch's last batch."""
        x, target = self._parts[0]
        rows = minibatch(len(x), self.batch_size, seed, step)
        return x[rows], target[rows]

    def loss(self, y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the cross entropy of logits y (n, 10)."""
        return F.cross_entropy(y, target)

    def finish(self, model: nn.Module) -> None:
        """Change nothing: the model takes pixels as they are here."""

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Say how many held-out images are read right: metric accuracy, from 0 to 1."""
        x, target = self.held_out
        right = int((_predict(model, x).argmax(1) == target).sum())
        accuracy = right / len(target)
        line = f"{right} of {len(target)} held-out digits read right: {accuracy:.1%}"
        return Evaluation(_frozen(accuracy=accuracy), (line,))


@dataclass(frozen=True)
class TableTask:
    """Linear regression on a user's table: target = weight · features + bias, in the table's own units.

    Trained on standardised columns (mean 0, deviation 1, measured on the rows trained on); ``finish`` folds
    that into weight and bias. A fifth of the rows is held out, the same for every seed.
    """

    table: Table
    name: str = "csv"
    dtype: torch.dtype = torch.float64
    steps: int = 2000
    batch_size: int = 64

    @classmethod
    def from_csv(cls, path: str | Path, target: str) -> "TableTask":
        """Read a CSV file with a header row; raise DataError as ``read_table`` does."""
        return cls(read_table(path, target))

    @property
    def identity(self) -> str:
        """Return the target's name and a digest of the table."""
        return f"csv:{self.table.target}:{self.table.digest()}"

    @property
    def sgd(self) -> Sgd:
        """Return settings that are stable for any number of features.

        The largest eigenvalue of the loss's Hessian is at most twice the sum of the columns' mean squares,
        2·(features + 1): a step of 1 / (2·(features + 1)) cannot diverge, correlated columns or not.
        """
        return Sgd(lr=min(0.05, 0.5 / (len(self.table.features) + 1)))

    @cached_property
    def _rows(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the rows to train on and the rows held out."""
        return split(len(self.table.x))

    @cached_property
    def _scales(self) -> tuple[NDArray[np.float64], ...]:
        """Return mean and deviation of x, each (features,), and of y, each (1,), on the rows trained on."""
        train = self._rows[0]
        return (*_scale(self.table.x[train]), *_scale(self.table.y[train]))

    @cached_property
    def _train(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return standardised x (rows, features) and y (rows, 1)."""
        x_mean, x_deviation, y_mean, y_deviation = self._scales
        train = self._rows[0]
        x = (self.table.x[train] - x_mean) / x_deviation
        y = (self.table.y[train] - y_mean) / y_deviation
        return torch.from_numpy(x).to(self.dtype), torch.from_numpy(y).to(self.dtype)

    def make_model(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> nn.Module:
        """Return MyLinear(features, 1)."""
        features = len(self.table.features)
        return MyLinear(features, 1, dtype=dtype or self.dtype, device=device, init="kaiming")

    def batch(self, step: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return standardised x (64, features) and target (64, 1), fewer in an epoch's last batch."""
        x, y = self._train
        rows = minibatch(len(x), self.batch_size, seed, step)
        return x[rows], y[rows]

    def loss(self, y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error, in squared deviations of the target."""
        return F.mse_loss(y, target)

    def finish(self, model: nn.Module) -> None:
        """Fold the standardisation into weight and bias.

        (y - ȳ) / s = w·((x - x̄) / r) + b is y = (s·w / r)·x + (s·b + ȳ - (s·w / r)·x̄).
        """
        weight, bias = model.parameters()
        x_mean, x_deviation, y_mean, y_deviation = (
            torch.from_numpy(scale).to(weight) for scale in self._scales
        )
        with torch.no_grad():
            weight.mul_(y_deviation / x_deviation)
            bias.copy_(y_deviation * bias + y_mean - weight @ x_mean)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Judge on the held-out rows: metrics rmse, in the target's units, and r2 where the target varies."""
        held_out = self._rows[1]
        x, y = torch.from_numpy(self.table.x[held_out]).to(self.dtype), self.table.y[held_out]
        squared_error = float(((_predict(model, x).numpy() - y) ** 2).sum())
        variation = float(((y - y.mean()) ** 2).sum())
        rmse = (squared_error / len(y)) ** 0.5
        line = f"{len(y)} held-out rows: RMSE {rmse:.4g} in units of {self.table.target!r}"
        if variation == 0:
            return Evaluation(_frozen(rmse=rmse), (f"{line}; R² is undefined, for they all have one target",))
        r2 = 1 - squared_error / variation
        return Evaluation(_frozen(rmse=rmse, r2=r2), (f"{line}, R² {r2:.4f}",))


def _scale(columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and deviation of columns (rows, n), each (n,); a constant column's deviation is 1."""
    mean, deviation = columns.mean(0), columns.std(0)
    # Rounding gives a constant column a deviation of about 1e-16 of its value: that is constant too.
    return mean, np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)


def _predict(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the model's answer on the CPU, computed where the model is."""
    with torch.no_grad():
        y: torch.Tensor = model(x.to(next(model.parameters()).device))
    return y.cpu()


def _frozen(**metrics: float) -> Mapping[str, float]:
    """Return metrics that can't be changed."""
    return MappingProxyType(metrics)
