"""A body is given to calls only that compute what it computes, however little they differ."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from .functions import Calls, x
from .test_bodies import export_calls, kinds, run_stock

BOTH = pytest.mark.parametrize("dynamo", [True, False])


class Plus(Function):
    """Add a constant, whatever it is given as."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, constant: Any) -> Tensor:
        if isinstance(constant, np.ndarray):
            constant = torch.from_numpy(constant)
        return x + (constant.value if isinstance(constant, Config) else constant)

    @staticmethod
    def symbolic(g: Any, x: Any, constant: Any) -> Any:
        return g.op("my::Plus", x)


class Config:
    def __init__(self, value: float) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Config"


def check_exactly(program: Any, call: Any, *inputs: Tensor) -> None:
    """See stock ONNX Runtime give what the model gives, to the bit: of sums and products of two numbers."""
    for output, tensor in zip(run_stock(program, inputs), Calls(call).eval()(*inputs), strict=True):
        np.testing.assert_array_equal(output, tensor.numpy(), strict=True)


SMALL = np.zeros(2000, np.float32)
OTHER = SMALL.copy()
OTHER[1000] = 99  # in the middle, which NumPy leaves out of an array's text


@BOTH
@pytest.mark.parametrize(
    ("one", "two"),
    [
        (SMALL, OTHER),
        (np.full(2000, 0.5), np.full(2000, 0.5 + 1e-12)),
        (torch.tensor(1.0), torch.tensor(1.0009)),
        (Config(1.0), Config(2.0)),
        (float("nan"), 1.0),
    ],
    ids=["in the middle", "the last digits", "tensors", "objects of one text", "NaN"],
)
def test_calls_with_other_constants_have_other_bodies(dynamo: bool, one: Any, two: Any) -> None:
    def call(model: nn.Module, x: Tensor) -> Any:
        return Plus.apply(x, one), Plus.apply(x, two)

    given = torch.rand(2000, dtype=torch.float64 if getattr(one, "dtype", 0) == np.float64 else torch.float32)
    program = export_calls(call, given, dynamo=dynamo)
    assert kinds(program) == ["function", "inlined"]
    check_exactly(program, call, given)


@BOTH
def test_calls_with_equal_constants_share_one(dynamo: bool) -> None:
    def call(model: nn.Module, x: Tensor) -> Any:
        return Plus.apply(x, SMALL.copy()), Plus.apply(x * 2, SMALL.copy())

    program = export_calls(call, torch.rand(2000), dynamo=dynamo)
    assert kinds(program) == ["function", "function"]
    assert len(program.model.functions) == 1


class Summed(Function):
    """Sum up along the last axis: another axis for each rank. The factor makes the sums small."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        return x.cumsum(x.dim() - 1) * factor

    @staticmethod
    def symbolic(g: Any, x: Any, factor: float) -> Any:
        return g.op("my::Summed", x, factor_f=factor)


@BOTH
@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.int64, 2), (torch.bool, 2), (torch.float32, 1.0), (torch.float32, 1e-5)]
)
def test_a_rank_that_matters_needs_a_body(dynamo: bool, dtype: torch.dtype, factor: float) -> None:
    def call(model: nn.Module, x: Tensor, y: Tensor) -> Any:
        return Summed.apply(x, factor), Summed.apply(y, factor)

    inputs = torch.ones(2, 3).to(dtype), torch.ones(2, 3, 4).to(dtype)
    program = export_calls(call, *inputs, dynamo=dynamo)
    assert kinds(program) == ["function", "inlined"]
    for output, tensor in zip(run_stock(program, inputs), Calls(call).eval()(*inputs), strict=True):
        np.testing.assert_allclose(output, tensor.numpy(), rtol=1e-6, atol=0)


class OddOrEven(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, even: float, odd: float) -> Tensor:
        return x * (even if x.shape[0] % 2 == 0 else odd)

    @staticmethod
    def symbolic(g: Any, x: Any, even: float, odd: float) -> Any:
        return g.op("my::OddOrEven", x)


@pytest.mark.parametrize(
    ("dtype", "odd"),
    [
        (torch.int64, 3),
        (torch.float32, 1.0008),
        (torch.float64, 1 + 1e-9),
        (torch.float16, 1.1),
        (torch.bfloat16, 1.5),
    ],
)
def test_a_size_that_decides_little_is_seen(dtype: torch.dtype, odd: float) -> None:
    def call(model: nn.Module, x: Tensor) -> Any:
        return (OddOrEven.apply(x, 2 if dtype is torch.int64 else 1.0, odd),)

    free = {"dynamic_shapes": ({0: torch.export.Dim("n")},)}
    with pytest.warns(UserWarning, match="depends on the size of dimension 0"):
        program = export_calls(call, torch.ones(4, 3, dtype=dtype), **free)
    assert kinds(program) == [""]


class Pairs(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view(x.shape[0] // 2, 2, -1) * 2  # of an even size only

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Pairs", x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_size_that_leaves_no_other_way_leaves_the_body(dtype: torch.dtype) -> None:
    def call(model: nn.Module, x: Tensor) -> Any:
        return (Pairs.apply(x),)

    free = {"dynamic_shapes": ({0: torch.export.Dim.AUTO},)}
    assert kinds(export_calls(call, torch.ones(4, 3, dtype=dtype), **free)) == ["function"]


@BOTH
def test_a_constant_that_is_no_number_is_not_taken_for_another(dynamo: bool) -> None:
    """A call whose result isn't used leaves the file: it isn't the one that stays."""

    def call(model: nn.Module, x: Tensor) -> Any:
        Plus.apply(x, float("nan"))
        return (Plus.apply(x, 1.0),)

    program = export_calls(call, x(3), dynamo=dynamo)
    check_exactly(program, call, x(3))
