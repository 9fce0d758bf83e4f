"""What an exporter computed beforehand is right where the model's own rounding explains it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ort_ops.export import export
from ort_ops.parity import Verdict, check, locate

from .models import Model, uniform


def decay(m: Any, x: Tensor) -> Tensor:
    """Return what a Mamba does: the exponential of a logarithm is a whole number in float32 alone."""
    return torch.exp(x[..., None] * -m.logs.exp()).sum(-1)


def positions(m: Any, x: Tensor) -> Tensor:
    rows, width = x.shape
    angles = torch.arange(rows)[:, None] * torch.exp(torch.arange(0, width, 2) * (-np.log(10000.0) / width))
    return x + torch.stack([angles.sin(), angles.cos()], -1).reshape(rows, width)


def rotated(m: Any, x: Tensor) -> Tensor:
    rows, width = x.shape
    angles = torch.outer(torch.arange(rows).float(), 10000.0 ** (torch.arange(0, width, 2) / -width))
    first, second = x.chunk(2, -1)
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos()], -1)


def masked(m: Any, x: Tensor) -> Tensor:
    """Return what has two constants of one shape, of which infinities could be taken for one another."""
    hidden = torch.zeros(64, 64).masked_fill(torch.ones(64, 64).tril() == 0, -torch.inf) * m.logs.exp()[0]
    return ((x @ (m.logs.exp()[1] * torch.ones(64, 64))).sin()[:64] + hidden).softmax(-1)


def differences(m: Any, x: Tensor) -> Tensor:
    """Return what has two tables that differ by roundings alone, as splines have."""
    knots, x = torch.linspace(-2.2, 2.2, 12) * m.logs.exp()[0], x[:, :10]
    return x / (knots[1:-1] - knots[:-2]) + x.square() / (knots[2:] - knots[1:-1])


def distances(m: Any, x: Tensor) -> Tensor:
    """Return distances from a table: one operation to PyTorch, of whose steps the exporter folds some."""
    return torch.cdist(x, torch.ones(96, 64) * m.logs.exp()[1] + torch.arange(96.0)[:, None].sin())


def entropy(m: Any, x: Tensor) -> Tensor:
    targets = (torch.ones(128, 64) * m.logs[2]).sigmoid()
    return nn.functional.binary_cross_entropy_with_logits(x, targets, reduction="none")


def exported(function: Callable[..., Any], path: Path) -> tuple[nn.Module, onnx.ModelProto]:
    model = Model(function).eval()
    model.logs = nn.Parameter(torch.arange(1, 5.0).log())
    export(model, (uniform(128, 64),), path, verbose=False)
    return model, onnx.load(path)


@pytest.mark.parametrize("function", [decay, positions, rotated, masked, differences, distances, entropy])
def test_a_right_constant_is_found_right(function: Callable[..., Any], tmp_path: Path) -> None:
    model, file = exported(function, tmp_path / "model.onnx")
    rows = check(model, file, uniform(128, 64)).rows
    assert [row.verdict for row in rows] == [Verdict.EQUAL, Verdict.EQUAL], str(rows)
    assert rows[0].tolerance < 1e-11
    assert locate(model, file, uniform(128, 64)).node is None


@pytest.mark.parametrize("function", [decay, positions, rotated])
def test_one_that_is_off_by_more_is_found(function: Callable[..., Any], tmp_path: Path) -> None:
    model, file = exported(function, tmp_path / "model.onnx")
    table = max(file.graph.initializer, key=lambda each: np.prod(each.dims) * (each.data_type == 1))
    changed = numpy_helper.to_array(table).copy()
    changed.reshape(-1)[67 % changed.size] *= np.float32(1 + 1e-5)
    table.CopyFrom(numpy_helper.from_array(changed, table.name))
    assert check(model, file, uniform(128, 64)).verdict is Verdict.EXPORT_WRONG


LITERALS: dict[str, Callable[[Tensor], Tensor]] = {
    "tensor": lambda x: x * torch.tensor(0.123456789),
    "tensor of the input's dtype": lambda x: x * torch.tensor(0.123456789, dtype=x.dtype),
    "list": lambda x: x * torch.tensor([0.1, 0.3, 0.123456789, 7.0], dtype=x.dtype),
    "full": lambda x: x + torch.full((4,), 0.123456789, dtype=x.dtype),
    "as_tensor": lambda x: x * torch.as_tensor(0.3, dtype=x.dtype) + 0.7,
    "linspace": lambda x: x * torch.linspace(0.1, 0.5, 4, dtype=x.dtype),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", LITERALS)
def test_numbers_in_the_code_are_what_the_file_has_of_them(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model, given = Model(lambda m, x: LITERALS[name](x)).eval(), uniform(3, 4).to(dtype)
    export(model, (given,), tmp_path / "model.onnx", verbose=False)
    file = onnx.load(tmp_path / "model.onnx")
    row = check(model, file, given).rows[0]
    assert row.verdict is Verdict.EQUAL, str(row)
    assert row.tolerance < 1e-13
    constant = next(each for each in file.graph.initializer if each.data_type != 7)
    changed = numpy_helper.to_array(constant).copy()
    changed.reshape(-1)[-1] *= changed.dtype.type(1 + 8 * np.finfo(changed.dtype).eps)
    constant.CopyFrom(numpy_helper.from_array(changed, constant.name))
    assert check(model, file, given).verdict is Verdict.EXPORT_WRONG


def interpolated(m: Any, x: Tensor) -> Tensor:
    """Return what a vision transformer does for images of another size."""
    table = nn.functional.interpolate(m.table, size=(10, 10), mode="bicubic")
    return (x[:, :100].T.reshape(1, -1, 10, 10) + table).sin()


def test_an_interpolated_table_is_right_by_what_pytorchs_own_is_off(tmp_path: Path) -> None:
    model = Model(interpolated).eval()
    torch.manual_seed(0)
    model.table = nn.Parameter(torch.randn(1, 128, 7, 7))
    export(model, (uniform(128, 100),), tmp_path / "model.onnx", verbose=False)
    file = onnx.load(tmp_path / "model.onnx")
    report = check(model, file, uniform(128, 100))
    assert report.rows[0].verdict is Verdict.EQUAL, str(report)
    (table,) = (each for each in file.graph.initializer if 10 in each.dims)
    changed = numpy_helper.to_array(table).copy()
    changed.reshape(-1)[np.argmax(np.abs(changed))] *= 1 + 1e-5
    table.CopyFrom(numpy_helper.from_array(changed, table.name))
    assert check(model, file, uniform(128, 100)).rows[0].verdict is Verdict.EXPORT_WRONG


def stretched(m: Any, x: Tensor) -> Tensor:
    return nn.functional.interpolate(x[None], scale_factor=1.5, mode="linear")


def warped(m: Any, x: Tensor) -> Tensor:
    image = x.reshape(1, 2, 64, 64)
    grid = nn.functional.affine_grid(image[:, 0, :2, :3] / 2, image.shape, align_corners=False)
    return nn.functional.grid_sample(image, grid, align_corners=False)


@pytest.mark.parametrize("function", [stretched, warped])
def test_places_that_are_computed_beforehand_are_right(function: Callable[..., Any], tmp_path: Path) -> None:
    model = Model(function).eval()
    export(model, (uniform(128, 64),), tmp_path / "model.onnx", verbose=False)
    report = check(model, tmp_path / "model.onnx", uniform(128, 64))
    assert report.rows[0].verdict is Verdict.EQUAL, str(report)
    assert report.rows[0].tolerance < 1e-10
