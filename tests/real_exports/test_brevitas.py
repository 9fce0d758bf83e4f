"""Brevitas exports to QONNX by its Functions, through either exporter, and the files compute what it does.

Brevitas knows that the newer exporter loses Functions, and has torch.onnx.ops.symbolic stand in for them
there. ``by_functions`` takes that away, as before 0.13; what it writes by itself is compared with, too.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import ort_ops
from ort_ops.export import Program, keep_functions
from ort_ops.parity.tolerance import arithmetic_of, dot_error

from . import qonnx
from .nodes import custom_nodes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import brevitas.nn as qnn
    from brevitas import quant
    from brevitas.export import export_onnx_qcdq, export_qonnx
    from brevitas.export.onnx.qonnx import function as functions
    from brevitas.export.onnx.standard import function as standard
    from brevitas.quant import fixed_point
    from brevitas.quant.experimental import float_quant_ocp as minifloat

pytestmark = pytest.mark.filterwarnings("ignore")  # Brevitas's own, which are many

QCDQ = ("QuantizeLinear", "Clip", "DequantizeLinear")
CPU = ["CPUExecutionProvider"]
OPERATORS = [
    value
    for module in (functions, standard)
    for value in vars(module).values()
    if isinstance(value, type) and {"torchscript", "dynamo"} <= vars(value).keys()
]


@dataclass(frozen=True)
class Case:
    """A model and its input. ``nodes`` are the QONNX nodes that it has to have.

    ``exact`` says that no sum in it is rounded: scales are powers of two. ``forwards`` says that the
    Functions' forwards compute what the nodes mean; those of Trunc and FloatQuant return what they are given.
    """

    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    nodes: dict[str, int]
    exact: bool = True
    forwards: bool = True

    def __str__(self) -> str:
        return self.name


ACT = quant.Int8ActPerTensorFixedPoint
WEIGHT = quant.Int8WeightPerTensorFixedPoint


def identity(**options: Any) -> nn.Module:
    return qnn.QuantIdentity(**{"act_quant": ACT, "return_quant_tensor": True, **options})


def mlp() -> nn.Module:
    return nn.Sequential(
        identity(),
        qnn.QuantLinear(8, 16, bias=True, weight_quant=WEIGHT, weight_bit_width=4, return_quant_tensor=True),
        qnn.QuantReLU(act_quant=quant.Uint8ActPerTensorFixedPoint, bit_width=5, return_quant_tensor=True),
        qnn.QuantLinear(16, 3, bias=True, weight_quant=WEIGHT, weight_bit_width=2),
    )


def conv() -> nn.Module:
    weight = fixed_point.Int8WeightPerChannelFixedPoint
    return nn.Sequential(
        qnn.QuantConv2d(3, 4, 3, bias=True, weight_quant=weight, input_quant=ACT, return_quant_tensor=True),
        qnn.QuantReLU(act_quant=quant.Uint8ActPerTensorFixedPoint, bit_width=3, return_quant_tensor=True),
        qnn.QuantConv2d(4, 2, 3, stride=2, bias=False, weight_quant=weight, weight_bit_width=4),
    )


def rounding() -> nn.Module:
    modes = [identity(float_to_int_impl_type=mode, bit_width=b) for b, mode in ((8, "FLOOR"), (6, "CEIL"))]
    return nn.Sequential(*modes, identity(bit_width=4, return_quant_tensor=False))


def binary() -> nn.Module:
    weight, act = quant.SignedBinaryWeightPerTensorConst, quant.SignedBinaryActPerTensorConst
    linear = qnn.QuantLinear(8, 4, bias=False, weight_quant=weight, weight_bit_width=1)
    return nn.Sequential(qnn.QuantIdentity(act_quant=act, bit_width=1), linear)


def pooled() -> nn.Module:
    trunc = quant.TruncTo8bit
    return nn.Sequential(identity(), qnn.TruncAvgPool2d(2, trunc_quant=trunc, return_quant_tensor=False))


def float_scales() -> nn.Module:
    weight, act = quant.Int8WeightPerChannelFloat, quant.ShiftedUint8ActPerTensorFloat
    return qnn.QuantLinear(8, 4, bias=True, weight_quant=weight, input_quant=act)


def minifloats() -> nn.Module:
    weight, act = minifloat.Fp8e4m3OCPWeightPerTensorFloat, minifloat.Fp8e4m3OCPActPerTensorFloat
    return qnn.QuantLinear(8, 4, bias=True, weight_quant=weight, input_quant=act)


CASES = [
    Case("mlp of 8, 5, 4 and 2 bits", mlp, (7, 8), {"Quant": 4}),
    Case("convolutions, scales per channel", conv, (2, 3, 9, 9), {"Quant": 4}),
    Case("rounding modes", rounding, (5, 8), {"Quant": 3}),
    Case("binary", binary, (7, 8), {"BipolarQuant": 2}),
    Case("average pooling", pooled, (2, 3, 6, 6), {"Quant": 1, "Trunc": 1}, forwards=False),
    Case("scales of any value, a zero point", float_scales, (7, 8), {"Quant": 2}, exact=False),
    Case("minifloats", minifloats, (7, 8), {"FloatQuant": 2}, exact=False, forwards=False),
]
QONNX = pytest.mark.parametrize("case", CASES, ids=str)


def trained(case: Case) -> tuple[nn.Module, Tensor]:
    """Return a model that has seen data, so that its scales are known, and an input."""
    torch.manual_seed(0)
    model = case.model().train()
    for _ in range(3):
        model(torch.randn(case.shape))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # on the grid of the products, so that adding it rounds nothing
            parameter.data = torch.round(parameter.data * 64) / 64
    return model.eval(), torch.randn(case.shape) * 1.5


def computed(model: nn.Module, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        y = model(x)
    return (y.value if hasattr(y, "value") else y).numpy()


@pytest.fixture
def by_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Brevitas call its Functions under the newer exporter, too."""
    assert len(OPERATORS) >= 9
    for operator in OPERATORS:
        monkeypatch.setattr(operator, "dynamo", operator.torchscript)


def exported(case: Case, *, dynamo: bool) -> tuple[Program, nn.Module, Tensor]:
    model, x = trained(case)
    with keep_functions() as kept:
        export_qonnx(model, args=(x,), dynamo=dynamo, verbose=False, optimize=dynamo)
    (program,) = kept.programs
    return program, model, x


def check(program: Program, case: Case, model: nn.Module, x: Tensor, functions: bool) -> None:
    """Compare ONNX Runtime with Brevitas's own model, which is not in its export mode."""
    if functions:
        session = program.session(CPU)
    else:
        session = ort_ops.InferenceSession(program.model_proto.SerializeToString(), providers=CPU)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = computed(model, x)
    runs = session.explain()
    assert len(runs) == sum(case.nodes.values())
    where = "brevitas" if functions else qonnx.__name__
    assert all(run.runner == "kernel" and run.kernel.startswith(where) for run in runs), runs
    assert len(np.unique(expected)) > 3  # of a model that gives one value whatever it is given
    if case.exact:
        np.testing.assert_array_equal(y, expected)
        return
    # One layer: Σ|x||w| + |b|, of 8 products and a bias, rounded in any order by both.
    quantized, weight, bias = model.input_quant(x).value, model.quant_weight().value, model.bias
    magnitude = (quantized.abs() @ weight.abs().T + bias.abs()).detach().double().numpy()
    assert (np.abs(y - expected) <= 2 * dot_error(9, magnitude, arithmetic_of(np.float32))).all()


@QONNX
def test_both_exporters_write_the_same_nodes(case: Case, by_functions: None) -> None:
    newer, torchscript = exported(case, dynamo=True)[0], exported(case, dynamo=False)[0]
    nodes = custom_nodes(newer.model_proto)
    assert nodes == custom_nodes(torchscript.model_proto)
    counted: dict[str, int] = {}
    for (domain, op_type, *_), count in nodes.items():
        assert domain == qonnx.DOMAIN
        counted[op_type] = counted.get(op_type, 0) + count
    assert counted == case.nodes
    for program in (newer, torchscript):
        assert sum(len(call.nodes) for call in program.calls) == sum(case.nodes.values())
        assert program.model.opset_imports[qonnx.DOMAIN] == functions.DOMAIN_VERSION


@QONNX
def test_the_nodes_are_those_that_brevitas_writes_by_itself(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = exported(case, dynamo=True)[0]
    assert not any(call.nodes for call in theirs.calls)  # none of the Functions for QONNX was called
    for operator in OPERATORS:
        monkeypatch.setattr(operator, "dynamo", operator.torchscript)
    ours = exported(case, dynamo=True)[0]
    mine, other = custom_nodes(ours.model_proto), custom_nodes(theirs.model_proto)
    assert mine == other


@pytest.mark.parametrize("dynamo", [True, False])
@QONNX
def test_the_file_equals_brevitas_by_kernels(case: Case, dynamo: bool, by_functions: None) -> None:
    program, model, x = exported(case, dynamo=dynamo)
    qonnx.register()
    check(program, case, model, x, functions=False)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("case", [case for case in CASES if case.forwards], ids=str)
def test_the_file_equals_brevitas_by_its_functions(case: Case, dynamo: bool, by_functions: None) -> None:
    program, model, x = exported(case, dynamo=dynamo)
    check(program, case, model, x, functions=True)


def test_a_kernel_that_rounds_otherwise_is_found(by_functions: None, monkeypatch: pytest.MonkeyPatch) -> None:
    program, model, x = exported(CASES[0], dynamo=True)
    monkeypatch.setitem(qonnx.ROUND, "ROUND", np.floor)
    qonnx.register()
    with pytest.raises(AssertionError, match="Mismatched elements"):
        check(program, CASES[0], model, x, functions=False)


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_qcdq_runs_in_stock_onnx_runtime(case: Case, by_functions: None) -> None:
    written = []
    for dynamo in (True, False):
        model, x = trained(case)
        with keep_functions() as kept:
            export_onnx_qcdq(
                model, args=(x,), dynamo=dynamo, verbose=False, optimize=dynamo, export_weight_q_node=True
            )
        (program,) = kept.programs
        proto = program.model_proto
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=CPU)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_array_equal(y, computed(model, x))
        written.append(Counter(node.op_type for node in proto.graph.node if node.op_type in QCDQ))
    assert written[0] == written[1]
    assert written[0]["QuantizeLinear"] == written[0]["DequantizeLinear"] == sum(case.nodes.values())
