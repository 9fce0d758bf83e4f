import ctypes
import math
import os
import warnings
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from onnx import TensorProto
from torch import nn

import ort_ops.export
from mylinear import LinearF, MyLinear
from mylinear.errors import OperandError
from mylinear.export import export
from ort_ops.errors import ExportError
from tests.ort_ops.releases import TORCH

ELEM_TYPES = {
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
}
DTYPES = list(ELEM_TYPES)
OPSETS = [18, 20, 21, 23]
LOWEST_IR = {18: 8, 20: 9, 21: 10, 23: 11}  # ONNX's own table; 8 is the first with functions
LEADS = {1: [()], 2: [(0,), (1,), (7,)], 3: [(0, 3), (7, 3), (3, 0)], 4: [(7, 2, 3), (2, 0, 3)]}
# Layers with a bias, without one, and both kinds in one file.
BIASES = {"all": (True, True), "none": (False, False), "some": (True, False)}


def make_layer(in_features=5, out_features=3, dtype=torch.float32, bias=True):
    torch.manual_seed(in_features * 10 + out_features)
    return MyLinear(in_features, out_features, dtype=dtype, bias=bias).eval()


def make_stack(biases=(True, False), dtype=torch.float32, between=nn.ReLU):
    first, second = make_layer(5, 4, dtype, biases[0]), make_layer(4, 3, dtype, biases[1])
    return nn.Sequential(first, between(), second).eval()


def make_input(*shape, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(*shape).to(dtype)


def to_bytes(model):
    return model.SerializeToString(deterministic=True)


def inputs_of(model):
    return [list(node.input) for node in model.graph.node if node.op_type == "MYLINEAR"]


def shape_of(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def run_plain(model, x):
    """Run a model in onnxruntime as it comes, with no operator registered: x and y are torch tensors."""
    source = model if isinstance(model, str) else to_bytes(model)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    array = x.contiguous().view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()
    value = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, ELEM_TYPES[x.dtype])
    (y,) = session.run_with_ort_values(None, {"x": value})
    assert y.element_type() in ELEM_TYPES.values()
    dtype = next(dtype for dtype, number in ELEM_TYPES.items() if number == y.element_type())
    size = math.prod(y.shape()) * dtype.itemsize
    raw = ctypes.string_at(y.data_ptr(), size) if size else b""
    return torch.from_numpy(np.frombuffer(bytearray(raw), np.uint8)).view(dtype).reshape(y.shape())


def assert_same(y, expected):
    # Up to three sums of at most 5 products of values around 1, in any order, each rounded to eps;
    # a float16 or bfloat16 sum may also be rounded once more between product and bias.
    atol = (
        16
        * torch.finfo(expected.dtype).eps
        * max(1.0, expected.abs().max().item() if expected.numel() else 0)
    )
    torch.testing.assert_close(y, expected.detach(), rtol=0, atol=atol)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_layer_is_one_node_whichever_exporter_writes_it(dtype, bias, opset):
    layer, x = make_layer(dtype=dtype, bias=bias), make_input(2, 5, dtype=dtype)
    model = export(layer, example=x, opset=opset)
    assert to_bytes(model) == to_bytes(export(layer, example=x, opset=opset, dynamo=False))
    (node,) = model.graph.node
    names = ["weight", "bias"] if bias else ["weight"]
    assert (node.domain, node.op_type, node.name) == ("mylinear", "MYLINEAR", "MYLINEAR_0")
    assert (list(node.input), list(node.output), len(node.attribute)) == (["x", *names], ["y"], 0)
    assert [i.name for i in model.graph.initializer] == names
    assert {(i.domain, i.version) for i in model.opset_import} == {("", opset), ("mylinear", 1)}
    assert (model.ir_version, model.producer_name) == (LOWEST_IR[opset], "ort-ops")
    assert [shape_of(v) for v in (*model.graph.input, *model.graph.output)] == [["batch", 5], ["batch", 3]]
    assert model.graph.output[0].type.tensor_type.elem_type == ELEM_TYPES[dtype]
    assert [(f.domain, f.name) for f in model.functions] == [("mylinear", "MYLINEAR")]
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("rank", "biases", "dtype", "opset"),
    [
        *product(LEADS, BIASES.values(), [torch.float32], [18]),
        *product([2], [BIASES["some"]], DTYPES, OPSETS),
    ],
)
def test_layers_in_sequence_give_the_same_file_from_both_exporters(rank, biases, dtype, opset):
    stack, x = make_stack(biases, dtype), make_input(*LEADS[rank][-1], 5, dtype=dtype)
    model = export(stack, example=x, opset=opset)
    assert to_bytes(model) == to_bytes(export(stack, example=x, opset=opset, dynamo=False))
    assert [node.name for node in model.graph.node] == ["MYLINEAR_0", "Relu_0", "MYLINEAR_1"]
    first, second = (["0.weight", "0.bias"][: 1 + biases[0]], ["2.weight", "2.bias"][: 1 + biases[1]])
    assert inputs_of(model) == [["x", *first], ["Relu_0", *second]]
    assert [i.name for i in model.graph.initializer] == [*first, *second]
    shapes = {v.name: shape_of(v) for v in model.graph.value_info if v.name not in (*first, *second)}
    assert {name: shape[-1] for name, shape in shapes.items()} == {"MYLINEAR_0": 4, "Relu_0": 4}
    assert shape_of(model.graph.output[0])[:-1] == shape_of(model.graph.input[0])[:-1]
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_the_examples_batch_does_not_reach_the_file(batch, dynamo):
    layer = make_layer()
    model = export(layer, example=make_input(batch, 5), dynamo=dynamo)
    assert to_bytes(model) == to_bytes(export(layer, example=make_input(2, 5), dynamo=dynamo))


def test_weights_are_written_as_they_are():
    stack = make_stack((True, True))
    model = export(stack, example=make_input(2, 5))
    for initializer in model.graph.initializer:
        expected = stack.state_dict()[initializer.name].numpy()
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(initializer), expected)


# bfloat16 with some biases is the one body that the CPU provider can't run: see the test below.
@pytest.mark.parametrize(
    ("biases", "dtype"),
    [
        (biases, dtype)
        for biases, dtype in product(BIASES.values(), DTYPES)
        if (biases, dtype) != (BIASES["some"], torch.bfloat16)
    ],
)
@pytest.mark.parametrize("rank", LEADS)
def test_plain_onnxruntime_runs_the_file_at_any_batch(rank, biases, dtype):
    # The exporters' files are equal, as shown above, so that the faster one serves here. No ReLU: the CPU
    # provider has none for bfloat16.
    stack = make_stack(biases, dtype, between=nn.Identity)
    example = make_input(*LEADS[rank][-1], 5, dtype=dtype)
    model = export(stack, example=example, dynamo=False)
    for lead in LEADS[rank]:
        if lead[1:] == LEADS[rank][-1][1:]:  # only the batch is dynamic
            x = make_input(*lead, 5, dtype=dtype)
            assert_same(run_plain(model, x), stack(x))


@pytest.mark.parametrize("lead", [(), (0,), (7,), (7, 3)])
def test_bfloat16_with_some_biases_keeps_its_nodes_and_needs_a_bfloat16_gemm(lead):
    stack = make_stack(BIASES["some"], torch.bfloat16, between=nn.Identity)
    x = make_input(*lead, 5, dtype=torch.bfloat16)
    model = export(stack, example=x)
    assert [len(names) for names in inputs_of(model)] == [3, 2]
    onnx.checker.check_model(model, full_check=True)
    with pytest.raises(Exception, match="Could not find an implementation for Gemm"):
        run_plain(model, x)


class Mixed(nn.Module):
    """Layers of several ranks and element types in one file."""

    def __init__(self, dtypes, biases=(True, True), ranks=(2, 2)):
        super().__init__()
        self.ranks, (first, second) = ranks, dtypes
        self.first, self.second = make_layer(5, 4, first, biases[0]), make_layer(4, 3, second, biases[1])

    def forward(self, x):
        y = self.first(x.to(self.first.weight.dtype)).to(self.second.weight.dtype)
        return self.second(y if self.ranks[0] == self.ranks[1] else y.unsqueeze(1))


@pytest.mark.parametrize("dtypes", [pair for pair in product(DTYPES, DTYPES) if pair[0] != pair[1]])
@pytest.mark.parametrize("ranks", [(2, 2), (2, 3)])
def test_one_body_serves_nodes_of_several_types_and_ranks(dtypes, ranks):
    for biases in BIASES.values():
        if torch.bfloat16 in dtypes and biases == BIASES["some"]:
            continue
        mixed = Mixed(dtypes, biases, ranks).eval()
        model = export(mixed, example=make_input(2, 5), dynamo=False)
        assert len(model.functions) == 1
        x = make_input(7, 5)
        # The narrower of the two types decides how far the last layer's input may be off.
        y, expected = run_plain(model, x), mixed(x)
        atol = 32 * max(torch.finfo(dtype).eps for dtype in dtypes)
        torch.testing.assert_close(y, expected.detach(), rtol=0, atol=atol)


def test_a_weight_that_is_not_finite_stays_where_it_is_whatever_the_bias():
    stack = nn.Sequential(make_layer(5, 4, bias=False), make_layer(4, 3)).eval()
    with torch.no_grad():
        stack[1].weight[0, 0] = math.inf
    x = make_input(2, 3, 5)
    y = run_plain(export(stack, example=x), x)
    assert torch.isfinite(y[..., 1:]).all()
    assert torch.equal(torch.isinf(y), torch.isinf(stack(x)))


def test_the_recipes_file_has_its_node_in_the_default_domain_and_plain_onnxruntime_refuses_it(tmp_path):
    path = tmp_path / "linear.onnx"
    model = export(make_layer(), path, example=make_input(2, 5), dynamo=False, opset=11, domain="")
    (node,) = model.graph.node
    assert (node.domain, node.op_type, list(node.input)) == ("", "MYLINEAR", ["x", "weight", "bias"])
    assert [(i.domain, i.version) for i in model.opset_import] == [("", 11)]
    assert model.ir_version <= 6
    assert not model.functions
    assert shape_of(model.graph.output[0]) == ["batch", 3]
    with pytest.raises(onnx.checker.ValidationError, match="MYLINEAR"):
        onnx.checker.check_model(model)
    with pytest.raises(Exception, match="MYLINEAR"):
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_both_exporters_write_the_default_domain_alike():
    models = [export(make_stack(), example=make_input(2, 5), domain="", dynamo=d) for d in (True, False)]
    assert to_bytes(models[0]) == to_bytes(models[1])
    assert not models[0].functions


@pytest.mark.parametrize("rank", LEADS)
@pytest.mark.parametrize("biases", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_opset_11_in_a_domain_of_its_own_runs_in_plain_onnxruntime(dtype, biases, rank):
    stack = make_stack(biases, dtype)
    x = make_input(*LEADS[rank][-1], 5, dtype=dtype)
    model = export(stack, example=x, dynamo=False, opset=11)
    assert model.ir_version == 8
    onnx.checker.check_model(model, full_check=True)
    assert_same(run_plain(model, x), stack(x))


def test_another_domain_is_written_on_node_and_function():
    stack, x = make_stack(), make_input(2, 5)
    model = export(stack, example=x, domain="com.example")
    assert {node.domain for node in model.graph.node} == {"", "com.example"}
    assert [function.domain for function in model.functions] == ["com.example"]
    assert_same(run_plain(model, x), stack(x))


class Block(nn.Module):
    """MyLinear among operators of PyTorch's own."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(5), make_layer(5, 8), make_layer(8, 5, bias=False)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x))))


def test_layers_among_other_operators_keep_their_nodes():
    block = Block().eval()
    models = [export(block, example=make_input(2, 3, 5), dynamo=dynamo) for dynamo in (True, False)]
    for model in models:
        assert [names[1:] for names in inputs_of(model)] == [["up.weight", "up.bias"], ["down.weight"]]
        assert shape_of(model.graph.output[0]) == ["batch", 3, 5]
        for batch in (0, 1, 7):
            x = make_input(batch, 3, 5)
            assert_same(run_plain(model, x), block(x))


class Flatten(nn.Module):
    """A model whose output's first size is not the batch."""

    def __init__(self):
        super().__init__()
        self.layer = make_layer()

    def forward(self, x):
        return self.layer(x).flatten(0, 1).sum(0, keepdim=True)


@pytest.mark.parametrize("dynamo", [True, False])
def test_only_sizes_that_are_the_batch_are_called_so(dynamo):
    model = export(Flatten().eval(), example=make_input(2, 4, 5), dynamo=dynamo)
    assert shape_of(model.graph.input[0]) == ["batch", 4, 5]
    assert shape_of(model.graph.output[0]) == [1, 3]


class Shared(nn.Module):
    """Two layers with one weight, and biases of equal value."""

    def __init__(self):
        super().__init__()
        self.a, self.b = make_layer(4, 4), make_layer(4, 4)
        self.b.weight = self.a.weight
        nn.init.zeros_(self.a.bias)
        nn.init.zeros_(self.b.bias)

    def forward(self, x):
        return self.b(self.a(x))


def test_a_tied_weight_is_written_once_and_equal_biases_keep_their_names():
    models = [export(Shared().eval(), example=make_input(2, 4), dynamo=dynamo) for dynamo in (True, False)]
    assert to_bytes(models[0]) == to_bytes(models[1])
    assert inputs_of(models[0]) == [["x", "a.weight", "a.bias"], ["MYLINEAR_0", "a.weight", "b.bias"]]
    assert [i.name for i in models[0].graph.initializer] == ["a.weight", "a.bias", "b.bias"]


class Twice(nn.Module):
    """Two equal calls, which an exporter that merges equal nodes must not merge."""

    def __init__(self):
        super().__init__()
        self.layer = make_layer()

    def forward(self, x):
        return self.layer(x) + self.layer(x)


def test_equal_calls_stay_two_nodes():
    models = [export(Twice().eval(), example=make_input(2, 5), dynamo=dynamo) for dynamo in (True, False)]
    assert inputs_of(models[0]) == [["x", "layer.weight", "layer.bias"]] * 2
    assert to_bytes(models[0]) == to_bytes(models[1])


class Elsewhere(nn.Module):
    """Its second call is no call of LinearF while an exporter looks: what a lost node looks like."""

    def __init__(self):
        super().__init__()
        self.first, self.second = make_layer(5, 5), make_layer(5, 5)

    def forward(self, x):
        x = self.first(x)
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            return F.linear(x, self.second.weight, self.second.bias)
        return self.second(x)


class Unused(Elsewhere):
    def forward(self, x):
        self.first(x)
        return self.second(x)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("kind", [Elsewhere, Unused])
def test_a_call_without_a_node_is_an_error(kind, dynamo, tmp_path):
    path = tmp_path / "linear.onnx"
    path.write_bytes(b"the file before")
    with pytest.raises(ExportError, match="called LinearF 2 times but the file has 1 MYLINEAR nodes"):
        export(kind().eval(), path, example=make_input(2, 5), dynamo=dynamo)
    assert path.read_bytes() == b"the file before"
    assert os.listdir(tmp_path) == ["linear.onnx"]


class OnlyStrict(nn.Module):
    """Its first capture fails, and torch.onnx.export tries again with strict=True, without a word."""

    def __init__(self):
        super().__init__()
        self.layer = make_layer()

    def forward(self, x):
        if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
            raise RuntimeError("not this way")
        return self.layer(x)


def test_a_second_attempt_of_the_exporter_keeps_the_node():
    exported = export(OnlyStrict().eval(), example=make_input(2, 5))
    assert inputs_of(exported) == [["x", "layer.weight", "layer.bias"]]


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = make_layer()

    def forward(self, x):
        y = self.layer(x)
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            raise RuntimeError("the model can't be traced")
        return y


@pytest.mark.parametrize("dynamo", [True, False])
def test_linearf_is_restored_after_a_failure_in_the_middle(dynamo):
    own = LinearF.__dict__["forward"]
    with pytest.raises(ExportError, match=f"dynamo={dynamo}.* failed: RuntimeError: the model can't"):
        export(Fails().eval(), example=make_input(2, 5), dynamo=dynamo)
    assert LinearF.__dict__["forward"] is own
    assert LinearF.apply(make_input(2, 5).requires_grad_(), make_input(3, 5)).requires_grad


@pytest.mark.parametrize("dynamo", [True, False])
def test_exporting_leaves_everything_as_it_was(dynamo, capfd):
    stack = make_stack()
    stack[0].weight.requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in stack.state_dict().items()}
    before = (list(warnings.filters), LinearF.__dict__["forward"])
    export(stack, example=make_input(2, 5), dynamo=dynamo)
    assert (list(warnings.filters), LinearF.__dict__["forward"]) == before
    assert torch.is_grad_enabled()
    assert not any(module.training for module in stack.modules())
    assert [p.requires_grad for p in stack.parameters()] == [False, True, True]
    assert all(torch.equal(tensor, state[name]) for name, tensor in stack.state_dict().items())
    assert stack(make_input(2, 5)).grad_fn is not None
    assert capfd.readouterr() == ("", "")


class Draws(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = make_layer()

    def forward(self, x):
        return self.layer(x + torch.rand_like(x))


@pytest.mark.parametrize("dynamo", [True, False])
def test_exporting_draws_no_random_numbers(dynamo):
    model, x = Draws().eval(), make_input(2, 5)
    before = torch.get_rng_state()
    export(model, example=x, dynamo=dynamo)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dynamo", [True, False])
def test_the_file_says_nothing_of_the_machine_it_was_written_on(dynamo):
    stack, x = make_stack(), make_input(2, 5)
    content = to_bytes(export(stack, example=x, dynamo=dynamo))
    for trace in (
        os.path.dirname(torch.__file__).encode(),
        os.path.dirname(__file__).encode(),
        b".py",
        b"torch",
    ):
        assert trace not in content


def test_the_newer_exporter_does_note_local_paths():
    program = ort_ops.export.export(make_stack(), (make_input(2, 5),), verbose=False)
    assert os.path.dirname(torch.__file__).encode() in to_bytes(program.model_proto)


def test_the_written_file_is_the_returned_model(tmp_path):
    path = tmp_path / "linear.onnx"
    path.write_bytes(b"the file before")
    model = export(make_stack(), path, example=make_input(2, 5))
    assert path.read_bytes() == to_bytes(model)
    assert os.listdir(tmp_path) == ["linear.onnx"]


def test_weights_above_the_limit_lie_beside_the_file(tmp_path, monkeypatch):
    layer, x = make_layer(32, 33), make_input(7, 32)
    monkeypatch.setattr(torch.onnx._internal.exporter._onnx_program, "_LARGE_MODEL_THRESHOLD", 2000)
    model = export(layer, tmp_path / "linear.onnx", example=x)
    assert sorted(os.listdir(tmp_path)) == ["linear.onnx", "linear.onnx.data"]
    assert (tmp_path / "linear.onnx").stat().st_size < 2000 < (tmp_path / "linear.onnx.data").stat().st_size
    onnx.checker.check_model(str(tmp_path / "linear.onnx"), full_check=True)
    torch.testing.assert_close(run_plain(str(tmp_path / "linear.onnx"), x), layer(x).detach())
    assert len(model.graph.initializer[0].raw_data) == 32 * 33 * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 11}, "pass dynamo=False"),
        ({"opset": 17}, "pass dynamo=False"),
        ({"opset": 10_000}, "expected 18 to"),
        ({"opset": 10, "dynamo": False}, "expected 11 to 23"),
        ({"opset": 24, "dynamo": False}, "expected 11 to 23"),
        ({"domain": "ai.onnx"}, "reserved"),
        ({"domain": "ai.onnx.ml"}, "reserved"),
        ({"domain": "com.microsoft"}, "reserved"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(options, message):
    with pytest.raises(ExportError, match=message):
        export(make_layer(), example=make_input(2, 5), **options)


def test_training_mode_is_refused_wherever_it_is():
    stack, x = make_stack(), make_input(2, 5)
    stack[2].train()
    with pytest.raises(ExportError, match=r"2 is in training mode.*model\.eval"):
        export(stack, example=x)
    assert stack[2].training
    with pytest.raises(ExportError, match="MyLinear is in training mode"):
        export(make_layer().train(), example=x)


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_model_without_linearf_is_refused(dynamo):
    with pytest.raises(ExportError, match="never calls LinearF"):
        export(nn.Linear(5, 3).eval(), example=make_input(2, 5), dynamo=dynamo)


class Named(nn.Module):
    """A parameter with the name of the file's output."""

    def __init__(self):
        super().__init__()
        self.y = nn.Parameter(torch.ones(3, 5))

    def forward(self, x):
        return LinearF.apply(x, self.y)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("domain", ["mylinear", ""])
def test_a_parameter_named_as_the_output_is_refused(domain, dynamo):
    with pytest.raises(ExportError, match="a parameter is named 'y'"):
        export(Named().eval(), example=make_input(2, 5), domain=domain, dynamo=dynamo)


class TakesAny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = make_layer()

    def forward(self, *inputs):
        return self.layer(inputs[0])


@pytest.mark.skipif(TORCH < (2, 13), reason="torch 2.9 can't have free sizes among *inputs")
def test_a_model_of_any_number_of_inputs():
    x = make_input(2, 5)
    model = export(TakesAny().eval(), example=x)
    assert shape_of(model.graph.input[0]) == ["batch", 5]


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_compiled_model_is_exported_as_what_it_was_made_of(dynamo):
    layer, x = make_layer(), make_input(2, 5)
    compiled = torch.compile(layer, backend="eager")
    assert to_bytes(export(compiled, example=x, dynamo=dynamo)) == to_bytes(
        export(layer, example=x, dynamo=dynamo)
    )


@pytest.mark.parametrize("example", [None, [1.0], (make_input(2, 5),), np.ones((2, 5), np.float32)])
def test_an_example_that_is_no_tensor_is_refused(example):
    with pytest.raises(ExportError, match=r"example is a .*; expected one tensor"):
        export(make_layer(), example=example)


def test_the_models_own_error_comes_through():
    with pytest.raises(OperandError, match="input has 4 features"):
        export(make_layer(5, 3), example=make_input(2, 4))


class Pair(Unused):
    def forward(self, x):
        return self.first(x), self.second(x)


def test_a_model_that_returns_more_than_a_tensor_is_refused():
    with pytest.raises(ExportError, match="returned a tuple; expected one tensor"):
        export(Pair().eval(), example=make_input(2, 5))


@pytest.mark.parametrize(
    ("dtypes", "opset", "message"),
    [
        ((torch.bfloat16, torch.bfloat16), 11, "expected opset 13 or above"),
        ((torch.bfloat16, torch.float32), 13, "expected opset 15 or above"),
    ],
)
def test_an_opset_without_the_casts_that_a_body_needs_is_refused(dtypes, opset, message):
    with pytest.raises(ExportError, match=rf"^MYLINEAR: .*{message}"):
        export(Mixed(dtypes).eval(), example=make_input(2, 5, dtype=dtypes[0]), dynamo=False, opset=opset)


@pytest.mark.cuda
@pytest.mark.parametrize("dynamo", [True, False])
def test_a_model_on_cuda_gives_the_file_that_it_gives_on_the_cpu(dynamo):
    stack, x = make_stack(), make_input(2, 5)
    expected = export(stack, example=x, dynamo=dynamo)
    assert to_bytes(export(stack.cuda(), example=x.cuda(), dynamo=dynamo)) == to_bytes(expected)
