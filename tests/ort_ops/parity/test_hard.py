"""Models that are hard to judge: right ones are found right, faults in them are not excused."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from onnx import numpy_helper
from torch import Tensor, nn

from ort_ops.errors import ParityError
from ort_ops.export import export
from ort_ops.export.quiet import quiet
from ort_ops.parity import Verdict, check, locate
from ort_ops.parity.original import ExactModel
from tests.ort_ops.releases import TORCH

from .models import Model, uniform


def exported(
    model: nn.Module, inputs: tuple[Any, ...], path: Path, *, dynamo: bool = True, **options: Any
) -> Path:
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, path, dynamo=dynamo, verbose=False, external_data=False, **options)
    return path


def linear(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(width, width)


RIGHT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "the least number of a dtype": (
        lambda m, x, mask: m.l(x).masked_fill(mask, torch.finfo(x.dtype).min),
        (uniform(4, 8), torch.arange(32).reshape(4, 8) % 3 == 0),
    ),
    "the epsilon of a dtype": (
        lambda m, x: torch.log(F.relu(m.l(x)) + torch.finfo(x.dtype).eps),
        (uniform(4, 8),),
    ),
    "a constant of many simple numbers": (lambda m, x: m.l(x) + torch.full((8,), 0.3), (uniform(3, 8),)),
    "constants of both kinds": (
        lambda m, x: m.l(x) * 0.1 + torch.tensor(0.3, dtype=torch.float32),
        (uniform(3, 8),),
    ),
    "a folded exponential": (lambda m, x: torch.tensor(1 / 0.07).log().exp() * m.l(x), (uniform(3, 8),)),
    "SELU": (lambda m, x: F.selu(m.l(x)), (uniform(50, 8),)),
    "corners of another size": (
        lambda m, x: F.interpolate(x, scale_factor=1.7, mode="bilinear", align_corners=True),
        (uniform(1, 2, 7, 9),),
    ),
    "places of the largest": (
        lambda m, x: F.max_pool2d(x, 2, return_indices=True),
        (uniform(2, 3, 8, 8),),
    ),
    "ELU near zero": (lambda m, x: F.elu(x * 1e-3), (uniform(50, 8),)),
    "sequences": (lambda m, x: torch.stack(list(x.split([3, 5], 1)[1].unbind(0))), (uniform(3, 8),)),
    "a size that depends on values": (lambda m, x: (lambda y: y[y > 0] * 2)(m.l(x)), (uniform(50, 8),)),
    "a slope of many digits": (lambda m, x: F.leaky_relu(m.l(x), 0.0123456789), (uniform(3, 8),)),
    "an epsilon of many digits": (lambda m, x: F.layer_norm(x, (8,), eps=1.23456789e-5), (uniform(3, 8),)),
    "a number beyond whole ones": (
        lambda m, x, mask: m.l(x).masked_fill(mask, -1e30),
        (uniform(4, 8), torch.arange(32).reshape(4, 8) % 3 == 0),
    ),
    "deviations far from zero": (lambda m, x: (x + 1e5).std(-1), (uniform(20, 64),)),
    "tables of large angles": (
        lambda m, x: m.l(x) * torch.outer(torch.arange(300.0), 10000 ** (-torch.arange(8.0) / 8)).cos(),
        (uniform(300, 8),),
    ),
    "a mean of weights": (
        lambda m, x: F.linear(x, m.l.weight / m.l.weight.norm(dim=1, keepdim=True)),
        (uniform(3, 8),),
    ),
    "infinities replaced": (lambda m, x: torch.nan_to_num(torch.log(F.relu(m.l(x)))), (uniform(4, 8),)),
    "numbers beyond a dtype": (
        lambda m, x, mask: (m.l(x) + 2 * (mask * torch.finfo(x.dtype).min)).softmax(-1),
        (uniform(4, 8), (torch.arange(32).reshape(4, 8) >= 12).float()),
    ),
    "logarithms of vanishing shares": (lambda m, x: (1e4 * m.l(x)).log_softmax(-1), (uniform(5, 8),)),
    "sums at one place": (
        lambda m, x: torch.zeros(5, 2).scatter_add(1, torch.arange(40).reshape(5, 8) % 2, m.l(x)),
        (uniform(5, 8),),
    ),
    "elements at places": (
        lambda m, x: (m.l(x).gather(1, x.argsort(1)[:, :3]), m.l(x).scatter(0, x.argsort(0)[:1], 0.5)),
        (uniform(5, 8),),
    ),
    "many elements of nearly one size": (lambda m, x: (x * 1e-2 + 1000).sum(1), (uniform(5, 70),)),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_a_right_file_is_found_right(name: str, dynamo: bool, tmp_path: Path) -> None:
    function, inputs = RIGHT[name]
    model = Model(function, l=linear()).eval()
    path = exported(model, inputs, tmp_path / "model.onnx", dynamo=dynamo)
    report = check(model, path, inputs)
    assert report.verdict in (Verdict.EQUAL, Verdict.LESS_PRECISE), str(report)
    assert locate(model, path, inputs).node is None


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_a_weight_that_is_nearly_another_is_no_changed_one(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)).eval()
    path = exported(model, (uniform(2, 16),), tmp_path / "model.onnx", dynamo=dynamo)
    report = check(model, path, uniform(2, 16))
    assert report.verdict is Verdict.EQUAL, str(report)
    assert report.notes == ()


def test_a_table_that_is_not_what_the_model_computes_is_found(tmp_path: Path) -> None:
    function, inputs = RIGHT["tables of large angles"]
    model = Model(function, l=linear()).eval()
    file = onnx.load(exported(model, inputs, tmp_path / "model.onnx"))
    table = next(each for each in file.graph.initializer if list(each.dims) == [300, 8])
    changed = numpy_helper.to_array(table).copy()
    changed[200, 3] *= 1 + 1e-6
    table.CopyFrom(numpy_helper.from_array(changed, table.name))
    assert check(model, file, inputs).verdict is Verdict.EXPORT_WRONG


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_a_weight_may_be_a_number_of_the_code_too(dynamo: bool, tmp_path: Path) -> None:
    def scaled(m: Any, x: Tensor) -> Tensor:
        return m.l(x) * 0.1 + m.a * x.sin() - 0.3 * m.b

    model = Model(scaled, l=linear()).eval()
    model.a, model.b = nn.Parameter(torch.tensor(0.1)), nn.Parameter(torch.tensor(0.3))
    path = exported(model, (uniform(3, 8),), tmp_path / "model.onnx", dynamo=dynamo)
    report = check(model, path, uniform(3, 8))
    assert report.verdict is Verdict.EQUAL, str(report)
    assert all(row.tolerance < 1e-12 for row in report.rows if row.question == "export")
    assert locate(model, path, uniform(3, 8)).node is None
    with torch.no_grad():
        model.a += 1e-8  # one unit in its last place
    assert check(model, path, uniform(3, 8)).verdict is Verdict.EXPORT_WRONG


TENTHS = torch.arange(40).reshape(5, 8) * 0.1


@pytest.mark.parametrize("given", [TENTHS, *TENTHS[0].double()[1:]], ids=lambda given: f"{given.max():.1f}")
def test_a_step_that_float64_decides_is_not_called_wrong(given: Tensor, tmp_path: Path) -> None:
    model = Model(lambda m, x, y: x // y).eval()
    inputs = (given.double().round(decimals=1), torch.full_like(given, 0.1, dtype=torch.float64))
    path = exported(model, inputs, tmp_path / "model.onnx")
    report = check(model, path, inputs)
    assert report.rows[0].verdict in (Verdict.EQUAL, Verdict.CANNOT_SAY), str(report)
    differ = bool((inputs[0] // inputs[1] != (inputs[0] / inputs[1]).floor()).any())
    assert ("turn on a rounding error of float64" in report.rows[0].reason) is differ


def test_a_step_that_float64_decides_excuses_nothing_beside_it(tmp_path: Path) -> None:
    model = Model(lambda m, x: x // 0.1 + m.l(x), l=linear()).eval()
    path = exported(model, (TENTHS,), tmp_path / "model.onnx")
    assert check(model, path, TENTHS).verdict is Verdict.CANNOT_SAY
    with torch.no_grad():
        model.l.weight[1, 1] *= 1 + 1e-5  # type: ignore[union-attr,index,operator]
    assert check(model, path, TENTHS).verdict is Verdict.EXPORT_WRONG


@pytest.mark.parametrize("discrete", [True, False])
def test_a_bound_that_is_met_the_other_way_is_wrong(discrete: bool, tmp_path: Path) -> None:
    def bound(m: Any, x: Tensor) -> Tensor:
        return x >= 0.5 if discrete else (x >= 0.5).float() + m.l(x)

    given = torch.arange(32).reshape(4, 8) / 8 - 1
    file = onnx.load(exported(Model(bound, l=linear()).eval(), (given,), tmp_path / "model.onnx"))
    assert check(Model(bound, l=linear()).eval(), file, given).verdict is Verdict.EQUAL
    next(node for node in file.graph.node if node.op_type == "GreaterOrEqual").op_type = "Greater"
    assert check(Model(bound, l=linear()).eval(), file, given).verdict is Verdict.EXPORT_WRONG


def test_a_bound_that_a_number_lies_on_is_met_as_pytorch_meets_it(tmp_path: Path) -> None:
    model = Model(lambda m, x: torch.bucketize(x, torch.tensor([0.1, 0.2, 0.3, 0.4]))).eval()
    path = exported(model, (torch.arange(5) * 0.1,), tmp_path / "model.onnx")
    report = check(model, path, torch.arange(5) * 0.1)
    assert report.verdict is Verdict.EQUAL, str(report)


def test_places_of_equal_elements_are_nothing_to_be_said_of(tmp_path: Path) -> None:
    model = Model(lambda m, x: torch.topk(F.relu(x), 5)[1]).eval()
    path = exported(model, (uniform(6, 12) - 1,), tmp_path / "model.onnx")
    assert check(model, path, uniform(6, 12) - 1).verdict is Verdict.CANNOT_SAY


class Counting(nn.Module):
    """Writes into a buffer that no input reaches, beside a table that is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.l = linear()
        self.register_buffer("count", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        table = torch.outer(torch.arange(30.0), 10000 ** (-torch.arange(8.0) / 8)).cos()
        return self.l(x) * table


def test_a_model_that_writes_into_its_buffers_is_left_as_it_was(tmp_path: Path) -> None:
    model = Counting().eval()
    path = exported(model, (uniform(30, 8),), tmp_path / "model.onnx", dynamo=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert check(model, path, uniform(30, 8)).verdict is Verdict.EQUAL
    assert locate(model, path, uniform(30, 8)).node is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Scaled(nn.Module):
    """Tensors that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def forward(self, x: Tensor) -> Tensor:
        return (x * 0.1 - self.mean) / self.spread


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_tensors_that_a_model_holds_by_itself_are_what_they_are(dynamo: bool, tmp_path: Path) -> None:
    path = exported(Scaled().eval(), (uniform(5, 3),), tmp_path / "model.onnx", dynamo=dynamo)
    assert check(Scaled().eval(), path, uniform(5, 3)).verdict is Verdict.EQUAL


class MadeAnew(nn.Module):
    """Copies itself by making a new module, which is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.drop = linear(), nn.Dropout(0.5)

    def __deepcopy__(self, memo: dict[int, Any]) -> "MadeAnew":
        made = MadeAnew()
        made.load_state_dict(self.state_dict())
        return made

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.l(x))
        return y


def test_a_module_that_copies_itself_stays_in_its_mode(tmp_path: Path) -> None:
    model = MadeAnew().eval()
    path = exported(model, (uniform(5, 8),), tmp_path / "model.onnx")
    assert check(model, path, uniform(5, 8)).verdict is Verdict.EQUAL
    assert locate(model, path, uniform(5, 8)).node is None
    with pytest.raises(ParityError, match="training mode"):
        check(MadeAnew(), path, uniform(5, 8))


def test_sequences_are_mapped(tmp_path: Path) -> None:
    model = Model(lambda m, x, y: torch.hstack([x * 2, y])).eval()
    inputs = (uniform(4, 8), uniform(4, 3))
    path = exported(model, inputs, tmp_path / "model.onnx")
    assert "SequenceMap" in {node.op_type for node in onnx.load(path).graph.node}
    assert check(model, path, inputs).verdict is Verdict.EQUAL


def test_a_branch_is_followed_again(tmp_path: Path) -> None:
    def branch(m: Any, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sin() * 0.3, lambda x: x.cos() - 0.2, (x,))

    model = Model(branch).eval()
    path = exported(model, (uniform(4, 8),), tmp_path / "model.onnx")
    assert check(model, path, uniform(4, 8)).verdict is Verdict.EQUAL
    assert locate(model, path, uniform(4, 8)).node is None


def test_a_provider_without_kernels_takes_nothing_from_the_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).bfloat16().eval()
    given = uniform(3, 8).bfloat16()
    path = exported(model, (given,), tmp_path / "model.onnx")
    report = check(model, path, given)
    assert [row.verdict for row in report.rows] == [Verdict.EQUAL, Verdict.CANNOT_SAY]
    assert "no session could be made" in report.rows[1].reason
    file = onnx.load(path)
    weight = next(each for each in file.graph.initializer if list(each.dims) == [8, 8])
    weight.raw_data = weight.raw_data[:-2] + b"\x80\x3f"
    assert check(model, file, given).verdict is Verdict.EXPORT_WRONG
    assert locate(model, file, given).question == "export"
    with pytest.raises(ParityError, match="no session could be made"):
        locate(model, path, given)


class Keywords(nn.Module):
    def forward(self, x: Tensor, **others: Tensor) -> Tensor:
        return x * 2 + others["b"] - others["a"]


def test_keywords_of_any_name_may_be_in_any_order(tmp_path: Path) -> None:
    x, a, b = (uniform(2, size) for size in (3, 3, 3))
    model = Keywords().eval()
    path = exported(model, (x,), tmp_path / "model.onnx", kwargs={"a": a, "b": b * 3})
    assert check(model, path, {"b": b * 3, "x": x, "a": a}).verdict is Verdict.EQUAL


class Sizes(nn.Module):
    # By names: over *inputs and a free size torch 2.9 fails.
    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return x + y[::2] + z[1:]


def test_sizes_that_are_made_up_keep_to_those_they_come_of(tmp_path: Path) -> None:
    size = torch.export.Dim("size", min=2, max=64)
    model = Sizes().eval()
    inputs = (uniform(4, 3), uniform(8, 3), uniform(5, 3))
    shapes = ({0: size}, {0: 2 * size}, {0: size + 1})
    path = exported(model, inputs, tmp_path / "model.onnx", dynamic_shapes=shapes)
    assert check(model, path).verdict is Verdict.EQUAL


def test_inputs_that_were_made_up_are_named_where_a_model_refuses_them(tmp_path: Path) -> None:
    model = Model(lambda m, x: x.reshape(-1, 5)).eval()
    axes = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    path = exported(model, (uniform(5),), tmp_path / "model.onnx", dynamo=False, **axes)
    said = r"made up .*x \(\d+,\): RuntimeError: .*invalid for input of size"
    with pytest.raises(ParityError, match=said) as caught:
        check(model, path)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_element_of_a_folded_weight_that_is_off_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)).train()
    for _ in range(3):
        model(torch.randn(4, 3, 8, 8))
    model.eval()
    given = uniform(2, 3, 8, 8)
    file = onnx.load(exported(model, (given,), tmp_path / "model.onnx", dynamo=False))
    assert check(model, file, given).verdict is Verdict.EQUAL
    weight = next(each for each in file.graph.initializer if list(each.dims) == [6, 3, 3, 3])
    changed = numpy_helper.to_array(weight).copy()
    changed[2, 1, 0, 1] *= 1 + 1e-5
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    report = check(model, file, given)
    assert report.verdict is Verdict.EXPORT_WRONG, str(report)
    assert "0.weight times a factor a channel in 1 of 162 elements" in str(report)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_folded_normalisations_are_right_whatever_cancels_in_them(
    dynamo: bool, seed: int, tmp_path: Path
) -> None:
    torch.manual_seed(seed)
    layers = (
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(216, 4),
        nn.BatchNorm1d(4),
    )
    model = nn.Sequential(*layers).train()
    for norm in (layers[1], layers[5]):
        nn.init.uniform_(norm.weight, 0.2, 2)
        nn.init.normal_(norm.bias)
    for _ in range(5):
        model(torch.randn(4, 3, 8, 8))
    path = exported(model.eval(), (uniform(2, 3, 8, 8),), tmp_path / "model.onnx", dynamo=dynamo)
    report = check(model, path, uniform(2, 3, 8, 8))
    assert report.verdict is Verdict.EQUAL, str(report)
    assert report.rows[0].smallest_fault is not None
    assert report.rows[0].smallest_fault < 4e-6


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_a_weight_over_its_norm_may_be_that_weight(norm: Any, tmp_path: Path) -> None:
    if norm is nn.utils.weight_norm and TORCH < (2, 13):
        pytest.skip("torch 2.9 doesn't capture a weight that is assigned")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = norm(nn.Conv1d(3, 4, 3)).eval()
    path = exported(model, (uniform(2, 3, 9),), tmp_path / "model.onnx")
    assert check(model, path, uniform(2, 3, 9)).verdict is Verdict.EQUAL


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(16, 16, bias=False) for _ in "qkv")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 4
        hidden = (1.0 - mask[:, None].to(x.dtype)) * torch.finfo(x.dtype).min
        return (scores + hidden).softmax(-1) @ self.v(x)


def test_rows_that_are_masked_throughout_excuse_no_fault_in_others(tmp_path: Path) -> None:
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0] = 0
    inputs = (uniform(2, 6, 16), mask)
    path = exported(Attention().eval(), inputs, tmp_path / "model.onnx")
    assert check(Attention().eval(), path, inputs).verdict is Verdict.EQUAL
    for place in range(3):
        file = onnx.load(path)
        weights = [each for each in file.graph.initializer if list(each.dims) == [16, 16]]
        changed = numpy_helper.to_array(weights[place]) * np.float32(1.5)
        weights[place].CopyFrom(numpy_helper.from_array(changed, weights[place].name))
        assert check(Attention().eval(), file, inputs).verdict is Verdict.EXPORT_WRONG


@pytest.mark.parametrize("number", [-1e9, -1e30])
@pytest.mark.parametrize("share", [1, 2])
def test_large_numbers_beside_small_ones_hide_nothing(share: int, number: float, tmp_path: Path) -> None:
    width = 8
    mask = torch.arange(4 * width).reshape(4, width) % 3 < share
    inputs = (uniform(4, width), mask)

    def fill(m: Any, x: Tensor, mask: Tensor) -> Tensor:
        return m.l(x).masked_fill(mask, number)

    path = exported(Model(fill, l=linear(width)).eval(), inputs, tmp_path / "model.onnx")
    model = Model(fill, l=linear(width)).eval()
    assert check(model, path, inputs).verdict is Verdict.EQUAL
    with torch.no_grad():
        model.l.weight[1, 1] *= 1 + 1e-5  # type: ignore[union-attr,index,operator]
    assert check(model, path, inputs).verdict is Verdict.EXPORT_WRONG


def test_a_model_that_writes_into_its_input_is_given_a_copy(tmp_path: Path) -> None:
    model = Model(lambda m, x: m.l(x.add_(1)), l=linear()).eval()
    given = uniform(2, 8)
    path = exported(model, (given.clone(),), tmp_path / "model.onnx")
    report = check(model, path, (given,))
    assert report.verdict is Verdict.EQUAL
    assert torch.equal(given, uniform(2, 8))
    assert all(row.tolerance < 1e-5 for row in report.rows)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = linear(), nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.a(x) * mask + self.b(x)


def test_inputs_by_name_may_be_in_any_order(tmp_path: Path) -> None:
    model = Two().eval()
    x, mask = uniform(2, 8), uniform(2, 8) * 0.5
    path = exported(model, (x, mask), tmp_path / "model.onnx")
    assert check(model, path, {"mask": mask, "x": x}).verdict is Verdict.EQUAL


def test_a_flag_that_the_file_does_not_take_may_be_given(tmp_path: Path) -> None:
    model = Model(lambda m, x, flag: m.l(x) if flag else x, l=linear()).eval()
    inputs = (uniform(3, 8), True)
    path = exported(model, inputs, tmp_path / "model.onnx")
    assert check(model, path, inputs).verdict is Verdict.EQUAL


def quantised_weight(m: Any, x: Tensor) -> Tensor:
    weight = torch.fake_quantize_per_channel_affine(m.l.weight, m.scale, m.zero, 0, -128, 127)
    return F.linear(x, weight, m.l.bias)


FAKE_QUANTISED: dict[str, Any] = {
    "result": lambda m, x: torch.fake_quantize_per_tensor_affine(m.l(x), 0.05, 3, -128, 127),
    "input, by tensors": lambda m, x: m.l(
        torch.fake_quantize_per_tensor_affine(x, m.scale[0], m.zero[0], -128, 127)
    ),
    "weight": quantised_weight,
}


@pytest.mark.parametrize("name", FAKE_QUANTISED)
def test_fake_quantisation_is_computed_in_float64(name: str, tmp_path: Path) -> None:
    # Its kernels take float64 and compute in float32.
    model = Model(FAKE_QUANTISED[name], l=linear()).eval()
    model.register_buffer("scale", torch.full((8,), 0.013))
    model.register_buffer("zero", torch.zeros(8, dtype=torch.int32))
    path = exported(model, (uniform(64, 8),), tmp_path / "model.onnx")
    report = check(model, path, uniform(64, 8))
    assert report.verdict is Verdict.EQUAL, str(report)
    assert not report.notes
    assert all(row.tolerance < 1e-12 for row in report.rows if row.question == "export")
    model.l.bias.data[0] += 1e-2 if name == "result" else 1e-6  # type: ignore[union-attr,operator]
    assert check(model, path, uniform(64, 8)).verdict is Verdict.EXPORT_WRONG


def test_a_kernel_that_computes_in_float32_is_noted() -> None:
    def learnt(m: Any, x: Tensor) -> Tensor:
        result: Tensor = torch._fake_quantize_learnable_per_tensor_affine(x, m.s, m.z, -128, 127, 1.0)
        return result

    model = Model(learnt).eval()
    model.s, model.z = nn.Parameter(torch.tensor([0.1])), nn.Parameter(torch.tensor([0.0]))
    exact = ExactModel(model)
    exact.run(((uniform(3, 4),), {}))
    assert any("fake_quantize" in name for name in exact.notes)


def test_what_is_multiplied_and_divided_again_excuses_no_fault(tmp_path: Path) -> None:
    """It has float32's digits, as if it had been computed in float32."""
    layer = linear()
    model = Model(lambda m, x: m.layer(x * 255 / 255), layer=layer).eval()
    export(model, (uniform(4, 8),), tmp_path / "model.onnx", verbose=False)
    report = check(model, tmp_path / "model.onnx", uniform(4, 8))
    assert (report.verdict, report.notes) == (Verdict.EQUAL, ())
    with torch.no_grad():
        layer.weight[3, 2] *= 1.00001  # type: ignore[index,operator]
    assert check(model, tmp_path / "model.onnx", uniform(4, 8)).rows[0].verdict is Verdict.EXPORT_WRONG


def test_integers_are_as_far_apart_as_they_are() -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (int64[n] x) => (int64[n] y) <int64 one = {1}> '
        "{ y = Add(x, one) }"
    )
    model = Model(lambda m, x: x + 1_000_001).eval()
    row, *_ = check(model, file, torch.arange(3)).rows
    assert (row.verdict, row.max_abs) == (Verdict.EXPORT_WRONG, 1e6)
    assert (row.got, row.expected) == (1, 1_000_001)


def test_of_an_output_that_is_always_empty_nothing_is_said() -> None:
    file = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[6] x) => (float[n] y, float[6] z) '
        "<float five = {5}, float three = {3}, float one = {1}> "
        "{ k = Greater(x, five) c = Compress<axis = 0>(x, k) y = Mul(c, three) z = Add(x, one) }"
    )
    model = Model(lambda m, x: (x[x > 5] * 2, x + 1)).eval()
    report = check(model, file, torch.rand(6))
    assert {row.verdict for row in report.rows if row.output == "y"} == {Verdict.CANNOT_SAY}
    assert {row.verdict for row in report.rows if row.output == "z"} == {Verdict.EQUAL}
    row, *_ = check(model, file, torch.rand(6) + 4.5).rows
    assert row.verdict is Verdict.EXPORT_WRONG


def test_a_note_of_a_node_excuses_what_depends_on_it_alone() -> None:
    nodes = "{{ s = SimplifiedLayerNormalization(x, w) y = Mul(s, w) z = Mul(x, {factor}) }}"
    constants = "<float[8] w = {1, 1, 1, 1, 1, 1, 1, 1}, float right = {0.7}, float wrong = {0.700005}>"
    model = Model(lambda m, x: (F.rms_norm(x, (8,), eps=1e-5), x * 0.7)).eval()
    for factor, verdict in (("right", Verdict.EQUAL), ("wrong", Verdict.EXPORT_WRONG)):
        file = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 18]> g (float[n, 8] x) => (float[n, 8] y, float[n, 8] z) '
            f"{constants} {nodes.format(factor=factor)}"
        )
        report = check(model, file, uniform(4, 8))
        assert "not evaluated in float64" in " ".join(report.notes)
        assert next(row for row in report.rows if row.output == "z").verdict is verdict


def test_the_module_of_a_captured_program_is_a_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).eval()
    captured = torch.export.export(model, (uniform(4, 8),))
    path = exported(model, (uniform(4, 8),), tmp_path / "model.onnx")
    assert check(captured.module(), path, uniform(4, 8)).verdict is Verdict.EQUAL
    assert locate(captured.module(), path, uniform(4, 8)).node is None
    with pytest.raises(ParityError, match=r"got ExportedProgram; .* \(program.module\(\)\)"):
        check(captured, path, uniform(4, 8))  # type: ignore[arg-type]
