import io
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd.gradcheck import GradcheckError
from torch.utils._python_dispatch import TorchDispatchMode

from mylinear import LinearF
from mylinear.errors import OperandError
from tests.cases import BAD_LINEAR_CASES, FLOAT_DTYPES, LINEAR_CASES, LinearCase

onnx = pytest.importorskip("onnx")

by_case = pytest.mark.parametrize("case", LINEAR_CASES, ids=lambda case: case.id)
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
# torch warns about itself: Dynamo instantiates Function.
compiled = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

ORDINARY = LINEAR_CASES[0]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def run(function, operands):
    """y and the gradients of all operands for a loss that weighs every element of y differently."""
    operands = [tensor.detach().clone().requires_grad_() for tensor in operands]
    y = function(*operands)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).reshape(y.shape)
    (y * weights).sum().backward()
    return y, *(tensor.grad for tensor in operands)


@by_case
@with_and_without_bias
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_result_and_gradients_are_those_of_f_linear(case, bias, dtype, device):
    operands = [tensor.to(device) for tensor in case.operands(dtype, bias=bias)]
    for got, expected in zip(run(LinearF.apply, operands), run(F.linear, operands), strict=True):
        # assert_close compares dtype, device and shape too; its tolerances are those of one rounding or two.
        torch.testing.assert_close(got, expected)


@by_case
@with_and_without_bias
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_are_those_of_finite_differences(case, bias, device):
    operands = [tensor.to(device).requires_grad_() for tensor in case.operands(bias=bias)]
    assert torch.autograd.gradcheck(LinearF.apply, operands)
    assert torch.autograd.gradgradcheck(LinearF.apply, operands)


def test_gradcheck_finds_a_planted_wrong_gradient(monkeypatch):
    true = LinearF.backward
    monkeypatch.setattr(LinearF, "backward", staticmethod(lambda ctx, g: (*true(ctx, g)[:2], g.sum(0) * 2)))
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(LinearF.apply, ORDINARY.operands(grad=True))


@by_case
def test_operands_in_any_memory_layout(case):
    x, weight, bias = case.operands()
    scattered = [torch.stack([tensor, tensor], -1)[..., 0] for tensor in (x, weight, bias)]
    for got, expected in zip(run(LinearF.apply, scattered), run(F.linear, [x, weight, bias]), strict=True):
        torch.testing.assert_close(got, expected)


@with_and_without_bias
@pytest.mark.parametrize("inner", [(), (2,)], ids=["rank_3", "rank_4"])
@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype:UserWarning")
def test_rows_of_several_lengths_in_one_nested_tensor(bias, inner):
    def results(function):
        _, weight, bias_ = [*LinearCase("", (1,), 3, 2).operands(bias=bias, grad=True), None][:3]
        parts = [torch.linspace(-1, 1, n * 6).reshape(n, 2, 3).to(weight.dtype) for n in (4, 1)]
        parts = parts if inner else [part.flatten(0, 1) for part in parts]
        x = torch.nested.nested_tensor(parts, layout=torch.jagged, requires_grad=True)
        y = function(x, weight, bias_)
        y.values().square().sum().backward()
        return y.values(), x.grad.values(), weight.grad, *([bias_.grad] if bias else [])

    torch.testing.assert_close(results(LinearF.apply), results(F.linear))


class CountMatmuls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.mm = self.sum = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.mm += func is torch.ops.aten.mm.default
        self.sum += func is torch.ops.aten.sum.dim_IntList
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("asked", "mm", "sums"),
    [((1, 1, 1), 2, 1), ((1, 0, 0), 1, 0), ((0, 1, 0), 1, 0), ((0, 0, 1), 0, 1)],
    ids=["all", "x", "weight", "bias"],
)
def test_only_gradients_asked_for_are_computed(asked, mm, sums):
    operands = [
        tensor.requires_grad_(bool(needed)) for tensor, needed in zip(ORDINARY.operands(), asked, strict=True)
    ]
    y = LinearF.apply(*operands)
    with CountMatmuls() as count:
        y.backward(torch.ones_like(y))
    assert (count.mm, count.sum) == (mm, sums)


def test_a_frozen_weight_keeps_no_input_alive():
    x, weight, _ = ORDINARY.operands()
    y = LinearF.apply(x.requires_grad_(), weight)
    saved_x, saved_weight = y.grad_fn.saved_tensors
    assert saved_x is None
    assert saved_weight.data_ptr() == weight.data_ptr()


def call(*operands):
    return LinearF.apply(*operands).relu()


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


@compiled
@with_and_without_bias
@pytest.mark.parametrize("function", [call, LinearF.apply], ids=["inside", "itself"])
def test_full_graph_compile_with_dynamic_batch(dynamo, function, bias):
    fast = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (5, 7, 9):
        operands = LinearCase("", (rows,), 3, 2).operands(torch.float32, bias=bias)
        for got, expected in zip(run(fast, operands), run(function, operands), strict=True):
            torch.testing.assert_close(got, expected)
    # One graph for the first size and none for the others: the checks put no guard on the batch.
    assert dynamo["stats"]["unique_graphs"] == 1


@compiled
@pytest.mark.parametrize("fullgraph", [False, True])
def test_compiled_code_refuses_misfits_too(dynamo, fullgraph):
    fast = torch.compile(call, backend="aot_eager", fullgraph=fullgraph)
    # With fullgraph=True Dynamo raises an error of its own, which quotes ours.
    expected = torch._dynamo.exc.Unsupported if fullgraph else OperandError
    with pytest.raises(expected, match=r"bias is \(1,\) but weight is \(4, 6\)"):
        fast(torch.zeros(2, 6), torch.zeros(4, 6), torch.zeros(1))


def two_layers(function):
    """The second layer is given a bfloat16 x, and a weight that is not."""
    return lambda x, weight, bias, last: function(function(x, weight, bias), last, None)


def autocast_run(layers, dtype, device="cpu"):
    operands = [*ORDINARY.operands(dtype), torch.ones(3, 4, dtype=dtype)]
    operands = [tensor.to(device).requires_grad_() for tensor in operands]
    with torch.autocast(device, torch.bfloat16):
        y = layers(*operands)
    y.sum().backward()
    return y, *(tensor.grad for tensor in operands)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_autocast_gives_the_bits_and_dtypes_of_f_linear(dtype):
    got, expected = (autocast_run(two_layers(f), dtype) for f in (LinearF.apply, F.linear))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert got[0].dtype == (torch.float64 if dtype == torch.float64 else torch.bfloat16)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_autocast_on_cuda_is_that_of_f_linear(dtype):
    got, expected = (autocast_run(two_layers(f), dtype, "cuda") for f in (LinearF.apply, F.linear))
    eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.bfloat16).eps
    torch.testing.assert_close(got, expected, rtol=2 * eps, atol=2 * eps)  # products may be summed otherwise
    assert [tensor.dtype for tensor in got] == [tensor.dtype for tensor in expected]


@compiled
def test_autocast_in_compiled_code(dynamo):
    fast = torch.compile(two_layers(LinearF.apply), fullgraph=True, backend="aot_eager")
    got, expected = (autocast_run(layers, torch.float32) for layers in (fast, two_layers(F.linear)))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_autocast_of_one_device_leaves_another_alone():
    operands = [tensor.to("meta") for tensor in ORDINARY.operands(torch.float32)]
    with torch.autocast("cpu", torch.bfloat16):
        assert LinearF.apply(*operands).dtype == F.linear(*operands).dtype == torch.float32


def test_double_backward_through_autocast():
    def penalty(function):
        x, weight, bias = ORDINARY.operands(torch.float32, grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            y = function(x, weight, bias)
        (grad_x,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        return torch.autograd.grad(grad_x.square().sum(), (x, weight, bias))

    torch.testing.assert_close(penalty(LinearF.apply), penalty(F.linear))


@pytest.mark.parametrize("bad", BAD_LINEAR_CASES, ids=lambda bad: bad.id)
def test_operands_that_do_not_fit_are_refused_before_any_arithmetic(bad):
    class Refuse(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            raise AssertionError(f"{func} ran")

    with Refuse(), pytest.raises(OperandError) as caught:
        LinearF.apply(bad.x, bad.weight, bad.bias)
    assert str(caught.value) == f"MYLINEAR: {bad.message}"


def test_an_array_of_numpy_is_named_as_what_it_is():
    with pytest.raises(OperandError, match=r"input is a ndarray; expected a torch\.Tensor"):
        LinearF.apply(np.zeros((2, 6), np.float32), torch.zeros(4, 6))


class Net(torch.nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 3))
        self.bias = torch.nn.Parameter(torch.ones(2)) if bias else None

    def forward(self, x):
        return LinearF.apply(x, self.weight, self.bias).relu()


@with_and_without_bias
def test_torchscript_exporter_writes_one_node_and_keeps_shapes(bias):
    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch's own: this exporter, and the torch.jit that it stands on, are deprecated.
        warnings.filterwarnings("ignore", message=".*legacy TorchScript-based ONNX export")
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*deprecated", category=FutureWarning)
        torch.onnx.export(
            Net(bias),
            (torch.ones(4, 3),),
            file,
            dynamo=False,
            custom_opsets={"mylinear": 1},
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}},
        )
    graph = onnx.load_from_string(file.getvalue()).graph
    assert [(node.domain, node.op_type) for node in graph.node] == [("mylinear", "MYLINEAR"), ("", "Relu")]
    x, *parameters = graph.node[0].input
    assert x == "x"
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    assert [shapes[name] for name in parameters] == [[2, 3], [2]][: 1 + bias]
    batch, features = graph.output[0].type.tensor_type.shape.dim
    assert batch.dim_param
    assert features.dim_value == 2


@pytest.mark.parametrize("gradients", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_apply_reaches_a_forward_that_replaces_its_own(monkeypatch, gradients):
    seen = []
    true = LinearF.forward
    monkeypatch.setattr(
        LinearF, "forward", staticmethod(lambda ctx, *args: seen.append(args) or true(ctx, *args))
    )
    operands = ORDINARY.operands()
    with gradients():
        torch.testing.assert_close(LinearF.apply(*operands), F.linear(*operands))
    assert len(seen) == 1


@by_case
@with_and_without_bias
@pytest.mark.parametrize("gradients", [torch.no_grad, torch.inference_mode])
def test_without_gradients_no_function_is_recorded(case, bias, gradients):
    operands = case.operands(bias=bias, grad=True)
    with gradients(), torch.profiler.profile() as profile:
        y = LinearF.apply(*operands)
        torch.testing.assert_close(y, F.linear(*operands), rtol=0, atol=0)
    assert not y.requires_grad
    assert y.is_inference() == (gradients is torch.inference_mode)
    assert not [event for event in profile.events() if "LinearF" in event.name]


def test_a_class_derived_from_it_has_a_ctx_of_its_own_without_gradients():
    class Counted(LinearF):
        @staticmethod
        def forward(ctx, x, weight, bias=None):
            assert not hasattr(ctx, "calls")
            ctx.calls = 1
            return LinearF.forward(ctx, x, weight, bias)

    operands = ORDINARY.operands()
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(Counted.apply(*operands), F.linear(*operands))


def test_traced_module_computes_the_same_without_a_warning():
    x = torch.randn(4, 3)
    with warnings.catch_warnings():
        # torch's own: torch.jit is deprecated. TracerWarning, a UserWarning, is not among those let through.
        warnings.filterwarnings("ignore", message=".*deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*deprecated", category=FutureWarning)
        traced = torch.jit.trace(Net(bias=True), (x,))
        with pytest.raises(OperandError, match="input has 5 features"):
            torch.jit.trace(Net(bias=True), (torch.ones(4, 5),))
    torch.testing.assert_close(traced(x), Net(bias=True)(x))
