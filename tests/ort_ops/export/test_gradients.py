"""Gradients inside of what is exported: regions that turn them on, a forward that differentiates."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import Function

from .functions import Calls, Twice, x
from .test_honest import BOTH, custom, exported, run


def returned_from_a_region(model: Any, x: Tensor) -> Tensor:
    with torch.set_grad_enabled(True):
        return Twice.apply(x) * model.weight


def computed_in_a_region(model: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = Twice.apply(x) * model.weight
    return y + 1


def returned_without_gradients(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return Twice.apply(x) * model.weight


@BOTH
@pytest.mark.parametrize(
    "call",
    [returned_from_a_region, computed_in_a_region, returned_without_gradients],
    ids=lambda c: c.__name__,
)
def test_a_region_with_and_without_gradients(call: Any, dynamo: bool) -> None:
    program = exported(call, dynamo=dynamo)
    assert custom(program) == ["my::Twice"]
    assert len(program.calls) == 1
    with torch.no_grad():
        np.testing.assert_array_equal(run(program, x(3, 4)), Calls(call).eval()(x(3, 4)))


class Descends(Function):
    """A step of gradient descent, as layers have it that are solutions of something."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad((y**3).sum(), y)
        return x - 0.25 * gradient

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Descends", x)


@BOTH
def test_a_forward_that_differentiates(dynamo: bool) -> None:
    program = exported(lambda model, x: Descends.apply(x), dynamo=dynamo)
    assert custom(program) == ["my::Descends"]
    np.testing.assert_array_equal(run(program, x(3, 4)), Descends.apply(x(3, 4)))
