"""MCT Quantizers: its quantized layers through either exporter, run by its kernels and by its Functions.

Its kernels are written for onnxruntime-extensions; here they are imported on ``ort_ops.compat`` instead,
which has the same names. The library calls its Functions where torch.jit.is_tracing() says so, that is, under
the TorchScript exporter; ``exporting_is_tracing`` has it call them under the newer one, too.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import ort_ops.compat
from ort_ops import registry
from ort_ops.errors import KernelError
from ort_ops.export import Program, export
from ort_ops.parity.tolerance import arithmetic_of, dot_error

from .nodes import custom_nodes

sys.modules["onnxruntime_extensions"] = ort_ops.compat
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mct_quantizers
    from mct_quantizers.pytorch import quantizers

KERNELS = [op for op in registry._ops if any(domain == "mct_quantizers" for domain, _ in op.names)]
CPU = ["CPUExecutionProvider"]


@dataclass(frozen=True)
class Case:
    """A model, its input's shape, and the nodes that it has to have.

    ``terms`` is the number of products in each of its sums, of which one is a bias; 0 where thresholds are
    powers of two, so that nothing is rounded but by the quantizers.
    """

    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    nodes: dict[str, int]
    terms: int = 0

    def __str__(self) -> str:
        return self.name


def layer(module: nn.Module, quantizer: Any) -> nn.Module:
    quantizer.enable_custom_impl()
    return mct_quantizers.PytorchQuantizationWrapper(module, {"weight": quantizer})


def activation(quantizer: Any) -> nn.Module:
    quantizer.enable_custom_impl()
    return mct_quantizers.PytorchActivationQuantizationHolder(quantizer)


def linear() -> nn.Linear:
    module = nn.Linear(8, 4)
    module.bias.data = torch.round(module.bias.data * 64) / 64  # on the grid of the products
    return module


def powers_of_two() -> nn.Module:
    return nn.Sequential(
        activation(quantizers.ActivationPOTInferableQuantizer(8, [4.0], signed=True)),
        layer(
            nn.Conv2d(3, 4, 3, bias=False),
            quantizers.WeightsPOTInferableQuantizer(4, [0.25, 0.5, 0.125, 1.0], True, channel_axis=0),
        ),
        nn.ReLU(),
        activation(quantizers.ActivationPOTInferableQuantizer(4, [2.0], signed=False)),
        layer(nn.Conv2d(4, 2, 1, bias=False), quantizers.WeightsSymmetricInferableQuantizer(8, [0.5], False)),
    )


def tables() -> nn.Module:
    table = [-77.0, -30.0, -8.0, 0.0, 1.0, 12.0, 40.0, 100.0]
    return nn.Sequential(
        activation(quantizers.ActivationSymmetricInferableQuantizer(6, [2.0], signed=True)),
        layer(linear(), quantizers.WeightsLUTPOTInferableQuantizer(3, table, [0.5], False)),
        nn.ReLU(),
        activation(quantizers.ActivationSymmetricInferableQuantizer(5, [4.0], signed=False)),
        layer(
            nn.Linear(4, 2, bias=False),
            quantizers.WeightsLUTSymmetricInferableQuantizer(3, table, [0.25, 0.5], True, 0, input_rank=2),
        ),
    )


def any_thresholds() -> nn.Module:
    return layer(
        linear(),
        quantizers.WeightsSymmetricInferableQuantizer(5, [0.3, 0.21, 0.17, 0.4], True, channel_axis=0),
    )


def uniform() -> nn.Module:
    return layer(linear(), quantizers.WeightsUniformInferableQuantizer(6, [-0.2], [0.3], per_channel=False))


def uniform_activation(low: float = -1.0, high: float = 0.9375) -> nn.Module:  # steps of 1/16
    return activation(quantizers.ActivationUniformInferableQuantizer(5, [low], [high]))


CASES = [
    Case(
        "powers of two",
        powers_of_two,
        (2, 3, 6, 6),
        {"ActivationPOTQuantizer": 2, "WeightsPOTQuantizer": 1, "WeightsSymmetricQuantizer": 1},
    ),
    Case(
        "tables",
        tables,
        (7, 8),
        {"ActivationSymmetricQuantizer": 2, "WeightsLUTPOTQuantizer": 1, "WeightsLUTSymmetricQuantizer": 1},
    ),
    Case("any thresholds", any_thresholds, (7, 8), {"WeightsSymmetricQuantizer": 1}, terms=9),
    Case("uniform", uniform, (7, 8), {"WeightsUniformQuantizer": 1}, terms=9),
    Case("a uniform activation", uniform_activation, (7, 8), {"ActivationUniformQuantizer": 1}),
]
ALL = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def exporting_is_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.jit, "is_tracing", torch.onnx.is_in_onnx_export)


def made(case: Case) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return case.model().eval(), torch.randn(case.shape) * 1.5


def exported(case: Case, *, dynamo: bool) -> tuple[Program, nn.Module, torch.Tensor]:
    model, x = made(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, that thresholds are constants: they are
        return export(model, (x,), dynamo=dynamo, verbose=False), model, x


def check(y: np.ndarray, case: Case, model: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        expected = model(x).numpy()
    assert len(np.unique(expected)) > 3
    if not case.terms:
        np.testing.assert_array_equal(y, expected)
        return
    # One layer. A quantized weight is a whole number times the scale, each rounded once: 3 roundings more.
    weight, bias = next(iter(model.get_quantized_weights().values())), model.layer.bias
    magnitude = (x.abs() @ weight.abs().T + bias.abs()).detach().double().numpy()
    assert (np.abs(y - expected) <= 2 * dot_error(case.terms + 3, magnitude, arithmetic_of(np.float32))).all()


@ALL
def test_both_exporters_write_the_same_nodes(case: Case) -> None:
    newer, torchscript = (exported(case, dynamo=dynamo)[0] for dynamo in (True, False))
    nodes = custom_nodes(newer.model_proto)
    assert nodes == custom_nodes(torchscript.model_proto)
    counted: Counter[str] = Counter()
    for (_, op_type, *_), count in nodes.items():
        counted[op_type] += count
    assert counted == case.nodes


@pytest.mark.parametrize("dynamo", [True, False])
@ALL
def test_the_file_equals_pytorch_by_the_librarys_kernels(case: Case, dynamo: bool) -> None:
    program, model, x = exported(case, dynamo=dynamo)
    assert len(KERNELS) == 8
    session = program.session(CPU)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    runs = session.explain()
    assert len(runs) == sum(case.nodes.values())
    assert all((run.kernel or "").endswith("_ort") for run in runs), runs
    check(y, case, model, x)
    options = mct_quantizers.get_ort_session_options()  # the library's own way to a session
    plain = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options, providers=CPU)
    np.testing.assert_array_equal(plain.run(None, {plain.get_inputs()[0].name: x.numpy()})[0], y)


@pytest.mark.parametrize("dynamo", [True, False])
def test_activations_equal_pytorch_by_their_functions(dynamo: bool) -> None:
    case = CASES[-1]
    program, model, x = exported(case, dynamo=dynamo)
    registry._ops = [op for op in registry._ops if op not in KERNELS]
    session = program.session(CPU)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    (run,) = session.explain()
    assert run.kernel == f"{program.calls[0].function}.forward"
    check(y, case, model, x)


def test_a_kernel_that_gives_float64_for_a_float_is_refused() -> None:
    model = uniform_activation(-0.7, 1.9).eval()
    program = export(model, (torch.randn(7, 8),), verbose=False)
    session = program.session(CPU)
    with pytest.raises(KernelError, match=r"activation_uniform_ort.*float64"):
        session.run(None, {session.get_inputs()[0].name: np.ones((7, 8), np.float32)})


@pytest.mark.parametrize("dynamo", [True, False])
def test_weights_equal_pytorch_by_their_functions(dynamo: bool) -> None:
    case = CASES[2]  # its thresholds are an array among the arguments, and a constant among the node's inputs
    program, model, x = exported(case, dynamo=dynamo)
    assert [call.reason for call in program.calls] == [""]
    registry._ops = [op for op in registry._ops if op not in KERNELS]
    session = program.session(CPU)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    (run,) = session.explain()
    assert run.kernel == f"{program.calls[0].function}.forward"
    check(y, case, model, x)
