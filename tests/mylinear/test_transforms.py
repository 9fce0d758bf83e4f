"""LinearF under torch.func's transforms and in forward mode."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd import forward_ad

from mylinear import LinearF
from mylinear.errors import OperandError
from tests.cases import LINEAR_CASES

by_case = pytest.mark.parametrize("case", LINEAR_CASES, ids=lambda case: case.id)
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
# torch warns about itself: functorch's decompositions use torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.* is deprecated")

ORDINARY = LINEAR_CASES[0]


@with_and_without_bias
@pytest.mark.parametrize("batched", [(0, 0, 0), (0, None, None), (None, 0, None)], ids=str)
def test_vmap(bias, batched):
    batched = batched[: 2 + bias]
    operands = [
        tensor if dim is None else torch.stack([tensor, -tensor, 2 * tensor])
        for tensor, dim in zip(ORDINARY.operands(bias=bias), batched, strict=True)
    ]
    got, expected = (torch.vmap(function, batched)(*operands) for function in (LinearF.apply, F.linear))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "hessian"])
@pytest.mark.parametrize(
    "case", [c for c in LINEAR_CASES if c.id in ("ordinary", "rank_1", "rank_3", "empty_batch")], ids=str
)
def test_func_transforms(transform, case):
    def derivative(function):
        over = getattr(torch.func, transform)
        return over(lambda *operands: function(*operands).sin().sum(), argnums=(0, 1, 2))(*case.operands())

    torch.testing.assert_close(derivative(LinearF.apply), derivative(F.linear))


def test_gradients_for_each_example():
    x, weight, bias = ORDINARY.operands()

    def each(function):
        loss = torch.func.grad(lambda weight, bias, x: function(x, weight, bias).square().sum(), (0, 1))
        return torch.vmap(loss, (None, None, 0))(weight, bias, x)

    torch.testing.assert_close(each(LinearF.apply), each(F.linear))


@by_case
@with_and_without_bias
def test_jvp(case, bias):
    operands, tangents = (tuple(case.operands(bias=bias, seed=seed)) for seed in (0, 1))
    got, expected = (torch.func.jvp(function, operands, tangents) for function in (LinearF.apply, F.linear))
    torch.testing.assert_close(got, expected)


@by_case
@with_and_without_bias
def test_forward_mode_gives_the_tangents_of_finite_differences(case, bias):
    operands = case.operands(bias=bias, grad=True)
    assert torch.autograd.gradcheck(LinearF.apply, operands, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(LinearF.apply, operands, check_fwd_over_rev=True)


@pytest.mark.parametrize("dual", range(3), ids=["x", "weight", "bias"])
def test_forward_mode_of_one_operand(dual):
    def tangent(function):
        operands = list(ORDINARY.operands())
        with forward_ad.dual_level():
            operands[dual] = forward_ad.make_dual(operands[dual], operands[dual].sin())
            return forward_ad.unpack_dual(function(*operands)).tangent

    torch.testing.assert_close(tangent(LinearF.apply), tangent(F.linear))


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")  # torch's own graph
def test_linearize():
    operands, tangents = (tuple(ORDINARY.operands(seed=seed)) for seed in (0, 1))
    got, expected = (torch.func.linearize(f, *operands)[1](*tangents) for f in (LinearF.apply, F.linear))
    torch.testing.assert_close(got, expected)


def test_misfits_are_refused_under_vmap():
    with pytest.raises(OperandError, match="input has 6 features"):
        torch.vmap(LinearF.apply, (0, None))(torch.zeros(3, 2, 6), torch.zeros(4, 8))
