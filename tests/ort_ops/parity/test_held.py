"""Models that hold a state between calls: judged by what the call computes, and left as they were."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ort_ops.parity import Verdict, check, locate

from .models import uniform
from .test_hard import exported


class Neuron(nn.Module):
    """A leaky neuron as spiking networks have them, whose call leaves its state in a buffer. x: (n, 8)."""

    def __init__(self, keep: Callable[[Any, Tensor], Any], size: tuple[int, ...] = (4, 8)) -> None:
        super().__init__()
        self.keep = keep
        self.linear = nn.Linear(8, 8)
        self.register_buffer("state", torch.zeros(size))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = 0.9 * state + self.linear(x)
        self.keep(self, state)
        return (self.state > 0.5).to(x.dtype), self.state


def bind(neuron: Any, state: Tensor) -> None:
    neuron.state = state


def write(neuron: Any, state: Tensor) -> None:
    neuron.state.zero_().add_(state)


KEEPS = {"bound": bind, "written into": write}
GIVEN = (uniform(4, 8), uniform(4, 8))


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_a_state_that_is_returned_is_what_the_call_computed(
    keep: Callable[..., None], tmp_path: Path
) -> None:
    model = Neuron(keep).eval()
    path = exported(model, GIVEN, tmp_path / "model.onnx")
    before = model.state, model.state.clone()
    assert check(model, path, GIVEN).verdict is Verdict.EQUAL
    assert locate(model, path, GIVEN).node is None
    assert model.state is before[0]
    assert torch.equal(*before)
    with torch.no_grad():
        model.linear.bias[3] += 1e-6
    assert check(model, path, GIVEN).verdict is Verdict.EXPORT_WRONG


@pytest.mark.parametrize("size", [(0, 8), (3, 8)], ids=["no rows before", "three rows before"])
def test_a_state_may_be_of_another_size_at_each_call(size: tuple[int, ...], tmp_path: Path) -> None:
    model = Neuron(bind, size).eval()
    axes = {name: {0: "n"} for name in ("x", "state")}
    path = exported(
        model, GIVEN, tmp_path / "model.onnx", dynamo=False, input_names=["x", "state"], dynamic_axes=axes
    )
    sizes = [(uniform(n, 8), uniform(n, 8)) for n in (4, 1, 7)]
    assert check(model, path, sizes).verdict is Verdict.EQUAL


class Summing(nn.Module):
    """A module that remembers by itself, in no buffer, and starts from a number. x: (n, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.sum: Any = 0.0
        self.memory: dict[str, Any] = {"last": None}
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sum = self.sum + x
        self.memory["last"] = x if self.memory["last"] is None else self.memory["last"] * x
        self.seen.append(x)
        result: Tensor = self.sum * 0.3 + self.memory["last"] + len(self.seen)
        return result


def test_what_a_module_remembers_by_itself_is_put_back(tmp_path: Path) -> None:
    path = exported(Summing().eval(), (uniform(5, 8),), tmp_path / "model.onnx", dynamo=False)
    model = Summing().eval()
    assert check(model, path, [(uniform(5, 8),), (uniform(5, 8) - 0.5,)]).verdict is Verdict.EQUAL
    assert (model.sum, model.memory, model.seen) == (0.0, {"last": None}, [])


def test_a_state_that_was_computed_from_parameters_is_copied(tmp_path: Path) -> None:
    model = Neuron(bind).eval()
    path = exported(model, GIVEN, tmp_path / "model.onnx")
    model(*GIVEN)  # with gradients, as while training: torch refuses to copy such a tensor
    assert model.state.grad_fn is not None
    assert check(model, path, GIVEN).verdict is Verdict.EQUAL
