"""Inputs of a model for which the same tensor is given stay inputs of their own."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from ort_ops.errors import ExportError
from ort_ops.export import export, keep_functions

from .functions import x
from .test_honest import BOTH, CPU


class Minus(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return x - y

    @staticmethod
    def symbolic(g: Any, x: Any, y: Any) -> Any:
        return g.op("my::Minus", x, y)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(x(3, 4))

    def forward(self, x: Tensor, more: list[Tensor]) -> Any:
        return Minus.apply(x, more[0]) * self.weight


X = x(3, 4) + 5


@BOTH
@pytest.mark.parametrize("which", ["the same tensor", "a weight", "a view", "an empty one"])
def test_each_input_is_read(which: str, dynamo: bool) -> None:
    model = Two().eval()
    given = {"a weight": model.weight, "an empty one": x(0, 4)}.get(which, X)
    inputs = (given, [given.view(given.shape) if which == "a view" else given])
    if which == "an empty one":
        model.weight = nn.Parameter(x(4))
    program = export(model, inputs, dynamo=dynamo, verbose=False)
    session = program.session(CPU)
    first, second = (argument.name for argument in session.get_inputs())
    a, b = torch.rand(given.shape), torch.rand(given.shape)
    (y,) = session.run(None, {first: a.numpy(), second: b.numpy()})
    with torch.no_grad():
        np.testing.assert_array_equal(y, model(a, [b]).numpy())


def test_keywords_and_dynamic_sizes() -> None:
    free = {0: torch.export.Dim.DYNAMIC}
    shapes = {"x": free, "more": [free]}
    model = Two().eval()
    model.weight = nn.Parameter(x(4))
    program = export(model, (), kwargs={"x": X, "more": [X]}, dynamic_shapes=shapes, verbose=False)
    session = program.session(CPU)
    first, second = (argument.name for argument in session.get_inputs())
    (y,) = session.run(None, {first: x(5, 4).numpy(), second: x(5, 4).numpy() * 3})
    np.testing.assert_array_equal(y, ((x(5, 4) - x(5, 4) * 3) * x(4)).numpy())


def test_shapes_that_are_known_by_their_tensors_are_refused() -> None:
    shapes = torch.export.ShapesCollection()
    shapes[X] = {0: torch.export.Dim.DYNAMIC}
    with keep_functions(), pytest.raises(ExportError, match="a tensor of its own for each input"):
        torch.export.export(Two().eval(), (X, [X]), dynamic_shapes=shapes)


def test_the_model_keeps_the_tensors_that_it_has() -> None:
    model = Two().eval()
    weight = model.weight
    export(model, (weight, [weight]), verbose=False)
    assert model.weight is weight
    assert weight.requires_grad
