import copy
import warnings

import pytest
import torch
from torch import nn

from mylinear import MyLinear, replace_linear
from mylinear.errors import MyLinearError, OperandError
from tests.cases import FLOAT_DTYPES, LINEAR_CASES

by_case = pytest.mark.parametrize("case", LINEAR_CASES, ids=lambda case: case.id)
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
# nn.Linear warns so too: a matrix without elements has nothing to be drawn.
empty_init = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op:UserWarning")


@by_case
@with_and_without_bias
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_uniform_init_draws_from_0_to_1(case, bias, dtype):
    layer = MyLinear(case.in_features, case.out_features, dtype, bias=bias)
    assert len(list(layer.parameters())) == 1 + bias
    for parameter in layer.parameters():
        assert parameter.dtype == dtype
        assert ((parameter >= 0) & (parameter <= 1)).all()


def test_uniform_init_fills_the_interval():
    values = MyLinear(100, 100).weight
    assert abs(values.mean() - 0.5) < 0.02  # the mean of 10,000 draws has a deviation of 0.003
    assert values.min() < 0.01
    assert values.max() > 0.99


@empty_init
@by_case
@with_and_without_bias
def test_kaiming_init_draws_the_numbers_of_nn_linear(case, bias):
    layers = []
    for make in (lambda *args, **kw: MyLinear(*args, **kw, init="kaiming"), nn.Linear):
        torch.manual_seed(5)
        layers.append(make(case.in_features, case.out_features, bias=bias))
    got, expected = (layer.state_dict() for layer in layers)
    assert list(got) == list(expected)
    for name in got:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=0)


def test_unknown_init_is_refused():
    with pytest.raises(MyLinearError, match="init is 'xavier'; expected one of 'uniform', 'kaiming'"):
        MyLinear(2, 1, init="xavier")


@empty_init
@by_case
@with_and_without_bias
def test_state_dict_goes_into_nn_linear_and_back(case, bias):
    linear = nn.Linear(case.in_features, case.out_features, bias=bias, dtype=torch.float64)
    layer = MyLinear(case.in_features, case.out_features, torch.float64, bias=bias)
    linear.load_state_dict(layer.state_dict())
    x = case.operands()[0]
    torch.testing.assert_close(layer(x), linear(x), rtol=0, atol=0)
    layer.load_state_dict(linear.state_dict())


def test_repr_is_that_of_nn_linear():
    assert repr(MyLinear(3, 2, bias=False)) == "My" + repr(nn.Linear(3, 2, bias=False))


def test_x_that_does_not_fit_is_refused():
    with pytest.raises(OperandError, match=r"weight is \(1, 2\) but input has 3 features"):
        MyLinear(2, 1)(torch.zeros(4, 3))


@by_case
@with_and_without_bias
def test_from_linear_shares_parameters_and_draws_nothing(case, bias):
    with warnings.catch_warnings(
        action="ignore"
    ):  # nn.Linear's, of an empty matrix: MyLinear must not add one
        linear = nn.Linear(case.in_features, case.out_features, bias=bias, dtype=torch.float64).eval()
    linear.weight.requires_grad_(False)
    state = torch.get_rng_state()
    layer = MyLinear.from_linear(linear)
    assert torch.equal(torch.get_rng_state(), state)
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias
    assert not layer.training
    x = case.operands()[0]
    torch.testing.assert_close(layer(x), linear(x), rtol=0, atol=0)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), self.shared, self.shared)
        self.by_name = nn.ModuleDict({"last": nn.Linear(4, 2, bias=False)})

    def forward(self, x):
        return self.by_name["last"](self.inner(self.shared(x)))


def test_replace_linear_swaps_nested_and_shared_layers_in_place():
    model = Branches()
    x = torch.randn(3, 4)
    expected, parameters = model(x), list(model.parameters())
    assert replace_linear(model) is model
    assert not [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len([module for module in model.modules() if isinstance(module, MyLinear)]) == 3
    assert model.shared is model.inner[2] is model.inner[3]
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)


def test_replace_linear_of_an_nn_linear_returns_a_my_linear():
    linear = nn.Linear(3, 2)
    layer = replace_linear(linear)
    assert type(layer) is MyLinear
    assert layer.weight is linear.weight


def test_replace_linear_leaves_a_model_without_linear_alone():
    model = nn.Sequential(nn.ReLU(), nn.Sequential())
    before = copy.deepcopy(model)
    assert repr(replace_linear(model)) == repr(before)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def with_hook():
    linear = nn.Linear(4, 4)
    linear.register_forward_hook(lambda module, args, y: 2 * y)
    return linear


def with_its_own_forward():
    linear = nn.Linear(4, 4)
    linear.forward = lambda x: 2 * nn.Linear.forward(linear, x)  # as libraries do that move weights about
    return linear


def with_more_in_it():
    linear = nn.Linear(4, 4)
    linear.adapter = nn.Linear(4, 4)
    linear.scale = nn.Parameter(torch.ones(1))
    linear.register_buffer("steps", torch.zeros(1))
    return linear


def with_a_hook_of_the_state_dict():
    linear = nn.Linear(4, 4)
    linear.register_state_dict_post_hook(
        lambda _, state, prefix, __: state.update({f"{prefix}version": torch.zeros(1)})
    )
    return linear


@pytest.mark.parametrize(
    "make",
    [
        lambda: Doubled(4, 4),
        with_hook,
        with_its_own_forward,
        with_more_in_it,
        with_a_hook_of_the_state_dict,
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
    ],
    ids=["subclass", "hook", "forward", "more", "state_dict", "weight_norm", "spectral_norm"],
)
def test_replace_linear_leaves_what_does_more_than_linear_alone(make):
    model = nn.Sequential(make(), nn.Linear(4, 4)).eval()
    kept, x = model[0], torch.randn(3, 4)
    expected, state = model(x), list(model.state_dict())
    replace_linear(model)
    assert model[0] is kept
    assert list(model.state_dict()) == state
    assert type(model[1]) is MyLinear
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)


def test_replace_linear_leaves_a_dtype_alone_that_linear_f_has_not():
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64))
    x = torch.ones(2, 4, dtype=torch.complex64)
    expected = model(x)
    torch.testing.assert_close(replace_linear(model)(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("train", [True, False])
def test_replace_linear_in_a_transformer_keeps_its_attention(train):
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(train)
    x = torch.randn(2, 5, 8)
    expected = model(x)
    replace_linear(model)
    assert type(model.linear1) is type(model.linear2) is MyLinear
    assert type(model.self_attn.out_proj) is not MyLinear
    torch.testing.assert_close(model(x), expected)
    with torch.no_grad():  # torch's fused path, which reads linear1.weight by name
        torch.testing.assert_close(model(x), expected)
