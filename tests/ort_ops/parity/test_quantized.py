"""Quantised models: what turns at half a code, and what ONNX Runtime quantises of its own accord."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ort_ops.export import export
from ort_ops.parity import ExitCode, Verdict, check, locate, record, replay
from ort_ops.parity.evaluated import evaluate
from ort_ops.parity.judge import judge_output
from ort_ops.parity.runtime_side import RoundingBounds, golden_outputs, readings
from ort_ops.parity.subject import Subject
from ort_ops.parity.verdict import GOOD
from tests.ort_ops.releases import ORT

from .models import Model, uniform

BOTH = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


def fake_quantized(x: Tensor, scale: float, zero: int = 0, low: int = -128, high: int = 127) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)


PRODUCTS: dict[str, tuple[Callable[..., nn.Module], Callable[..., Tensor], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(16, 8), functional.linear, (64, 16)),
    "Conv": (lambda: nn.Conv2d(3, 8, 3), functional.conv2d, (4, 3, 9, 9)),
    "ConvTranspose": (lambda: nn.ConvTranspose2d(3, 8, 3), functional.conv_transpose2d, (4, 3, 9, 9)),
}


def product(kind: str, weights: str) -> tuple[nn.Module, Tensor]:
    """Return a layer between codes, its weight as it is or of codes, too: by one scale, or one a channel."""
    make, compute, shape = PRODUCTS[kind]
    torch.manual_seed(1)
    layer = make()
    channels = len(layer.weight)  # type: ignore[arg-type]
    scales, zeros = torch.linspace(0.002, 0.003, channels), torch.zeros(channels, dtype=torch.int32)

    def call(model: Any, x: Tensor) -> Tensor:
        weight = model.layer.weight
        if weights == "by tensor":
            weight = fake_quantized(weight, 0.003)
        elif weights == "by channel":
            weight = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -128, 127)
        return fake_quantized(compute(fake_quantized(x, 0.03), weight, model.layer.bias).relu(), 0.01)

    return Model(call, layer=layer).eval(), uniform(*shape)


def quantised_by_the_runtime(path: Path, x: Tensor) -> bool:
    """Tell whether it matters that ONNX Runtime quantises more than the file does."""

    def run(**options: Any) -> Any:
        return onnxruntime.InferenceSession(path, **options).run(None, {"x": x.numpy()})[0]

    return not np.array_equal(run(), run(disabled_optimizers=["WeightBiasQuantization"]))


@BOTH
@pytest.mark.parametrize("weights", ["as they are", "by tensor", "by channel"])
@pytest.mark.parametrize("kind", ["Linear", "Conv", "ConvTranspose"])
def test_weights_and_biases_that_the_runtime_quantises_are_named(
    kind: str, weights: str, dynamo: bool, tmp_path: Path
) -> None:
    model, x = product(kind, weights)
    path = tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, input_names=["x"], verbose=False)
    found = [row for row in check(model, path, (x,)).rows if row.question == "runtime"]
    located = locate(model, path, (x,))
    assert located.node is None
    if quantised_by_the_runtime(path, x):
        assert {row.verdict for row in found} == {Verdict.REDUCED_PRECISION}, found
        assert "WeightBiasQuantization" in found[0].reason
        assert located.exit_code is ExitCode.CANNOT_SAY
        (row,) = (row for row in located.rows if row.verdict is Verdict.REDUCED_PRECISION)
        assert row.question == "runtime"
    else:
        assert {row.verdict for row in found} <= GOOD, found
        assert weights != "as they are" or ORT < (1, 21)


def test_a_deployment_is_told_the_same(tmp_path: Path) -> None:
    path, golden = tmp_path / "model.onnx", tmp_path / "golden.safetensors"
    model, x = product("Conv", "as they are")
    export(model, (x,), path, input_names=["x"], verbose=False)
    record(model, path, golden, (x,))
    expected = {Verdict.REDUCED_PRECISION} if quantised_by_the_runtime(path, x) else GOOD
    assert {row.verdict for row in replay(golden, path).rows} <= expected


@pytest.mark.parametrize("as_the_runtime", [True, False])
def test_a_code_that_is_another_without_being_near_one_is_found(as_the_runtime: bool) -> None:
    model, x = product("Conv", "as they are")
    subject = Subject(model, export(model, (x,), input_names=["x"], verbose=False), (x,))
    file, (sample,) = subject.exact_file, evaluate(subject).samples
    (golden,) = golden_outputs(file, sample)
    other = readings(file, sample, "requantized")[golden.name]
    got = (other.golden if as_the_runtime else golden).exact.astype(np.float32)

    def verdict() -> Verdict:
        return judge_output(
            got,
            golden,
            RoundingBounds(file, sample),
            rule=None,
            on_cpu=True,
            otherwise=lambda: [other],
        ).verdict

    assert verdict() is (Verdict.REDUCED_PRECISION if as_the_runtime else Verdict.EQUAL)
    bound = other.bounds.bound(golden.name, opposite=True)
    settled = np.argwhere((bound < 1e-3) & (golden.exact > 0.1))
    got[tuple(settled[0])] += np.float32(0.01)
    assert verdict() is Verdict.RUNTIME_WRONG


class Bias(nn.Module):
    """The relative positions of T5, by logarithms that are whole numbers for powers of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        apart = places[None] - places[:, None]
        far = 8 + (torch.log(apart.abs().float() / 8) / math.log(128 / 8) * 8).long()
        buckets = torch.where(apart.abs() < 8, apart.abs(), far.clamp(max=15)) + (apart > 0).long() * 16
        return (x @ x.transpose(1, 2))[:, None] + self.table(buckets).permute(2, 0, 1)


def averaged(model: Model, x: Tensor) -> Tensor:
    return fake_quantized(functional.avg_pool2d(fake_quantized(x, 0.04), 2), 0.04)


def nearest(scale: float) -> nn.Module:
    return Model(lambda model, x: functional.interpolate(x, scale_factor=scale, mode="nearest"))


TURNING: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "half codes": lambda: (Model(lambda model, x: fake_quantized(x, 0.1)), torch.arange(40) / 10 - 2.05),
    "averages of codes": lambda: (Model(averaged), uniform(4, 4, 16, 16)),
    "nearest by 1.6": lambda: (nearest(1.6), uniform(1, 1, 40, 40)),
    "nearest by 0.6": lambda: (nearest(0.6), uniform(1, 1, 50, 50)),
    "logarithms of whole numbers": lambda: (Bias(), uniform(1, 70, 4)),
}


@BOTH
@pytest.mark.parametrize("case", TURNING)
def test_what_turns_on_a_rounding_error_is_nobodys_fault(case: str, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = TURNING[case]()
    path = tmp_path / "model.onnx"
    export(model.eval(), (x,), path, dynamo=dynamo, verbose=False)
    assert check(model, path, (x,)).verdict in GOOD
    found = locate(model, path, (x,))
    assert (found.node, found.exit_code) == (None, ExitCode.EQUAL)


def test_codes_that_turn_leave_a_run_right_whose_outputs_are_so() -> None:
    file = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]> g (float[n] x) => (float[n] y) {
        scale = Constant<value = float {0.1}>()
        zero = Constant<value = int8 {0}>()
        codes = QuantizeLinear(x, scale, zero)
        y = Cast<to = 1>(codes)
    }""")
    model = Model(lambda model, x: torch.clamp(torch.round(x / 0.1), -128, 127).to(torch.int8).float())
    x = (torch.arange(-100, 100) + 0.5) * 0.1
    assert check(model.eval(), file, (x,)).verdict in GOOD
    found = locate(model, file, (x,))
    assert (found.node, found.exit_code) == (None, ExitCode.EQUAL)
    (turned,) = (row for row in found.rows if row.verdict is Verdict.CANNOT_SAY)
    assert turned.op == "ai.onnx::QuantizeLinear"


@BOTH
@pytest.mark.parametrize("seed", [1, 3, 4])
def test_sums_at_half_a_code_turn_whatever_errors_cancel(seed: int, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    x = (torch.randint(-30, 30, (64, 16)) + 0.5) * 0.1
    layer = nn.Linear(16, 8, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-3, 4, (8, 16)) / 2)
    model = Model(
        lambda model, x: fake_quantized(model.layer(fake_quantized(x, 0.1)), 0.1), layer=layer
    ).eval()
    path = tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, verbose=False)
    (row,) = (row for row in check(model, path, (x,)).rows if row.question == "export")
    assert row.verdict is Verdict.CANNOT_SAY, row
    assert "turn on a rounding error" in row.reason
    assert locate(model, path, (x,)).node is None


class ByChannel(nn.Module):
    """Quantises its weight by channel as it computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.weight
        scale = weight.detach().abs().amax(1) / 127
        zero = torch.zeros(8, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -128, 127)
        return nn.functional.linear(x, weight, self.layer.bias)


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_wrong_weight_that_is_quantised_by_channel_is_found(dynamo: bool) -> None:
    model, x = ByChannel().eval(), uniform(3, 6)
    file = export(model, (x,), dynamo=dynamo, verbose=False).model_proto
    (weight,) = (each for each in file.graph.initializer if list(each.dims) == [8, 6])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[2, 3] *= -1
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    assert check(model, file, (x,)).verdict is Verdict.EXPORT_WRONG
    guilty = {node.name for node in file.graph.node if weight.name in node.input}
    assert locate(model, file, (x,)).node in guilty
