"""Which constants of a file are weights of the model, and which are but for some elements."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ort_ops.export import export
from ort_ops.parity import Verdict, check, weights
from ort_ops.parity.weights import match_weights

from .models import Model, uniform

RANDOM = np.random.default_rng(0)


def array(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_weights_are_found_put_together_and_but_for_one_element() -> None:
    state = {"a": array(30, 40), "b": array(50, 40)}
    joined = np.concatenate([state["b"], state["a"][::-1]])
    off = joined.copy()
    off[3, 5] += 1
    exact, changed = match_weights([("joined", joined), ("off", off), ("other", array(80, 40))], state)
    assert exact == {"joined", "off"}
    assert [str(each) for each in changed] == [
        "off differs from the model's weights put together in 1 of 3200 elements"
    ]


class Experts(nn.Module):
    """Of four layers two compute something, whichever the router likes best."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Any:
        weights, chosen = self.router(x).softmax(-1).topk(2, -1)
        return sum(
            (weights * (chosen == place)).sum(-1, keepdim=True) * expert(x)
            for place, expert in enumerate(self.experts)
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda own, other: own.T,
        lambda own, other: own * 0,
        lambda own, other: other,
        lambda own, other: own[[1, 0, *range(2, 8)]],
    ],
    ids=["transposed", "zero", "another's", "two rows swapped"],
)
def test_another_weight_in_the_place_of_one_that_no_output_shows_is_not_called_equal(
    change: Any, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model, x, path = Experts().eval(), torch.randn(2, 8), tmp_path / "model.onnx"
    export(model, (x,), path, external_data=False, verbose=False)
    assert check(model, path, (x,)).verdict is Verdict.EQUAL
    file = onnx.load(path)
    unused = set(range(4)) - set(model.router(x).topk(2, -1)[1].flatten().tolist())
    place = min(unused)
    name, other = f"experts.{place}.weight", model.experts[3 - place].weight.detach().numpy()
    (weight,) = (each for each in file.graph.initializer if each.name == name)
    changed = np.ascontiguousarray(change(numpy_helper.to_array(weight), other))
    weight.CopyFrom(numpy_helper.from_array(changed, name))
    onnx.save(file, path)
    report = check(model, path, (x,))
    assert report.verdict is Verdict.CANNOT_SAY
    assert any(name in note for note in report.notes)


def test_numbers_that_are_most_of_a_pools_by_chance_are_no_weights() -> None:
    dense = np.arange(2**20, dtype=np.uint32).view(np.float32)  # each number there is, of one size
    others = RANDOM.integers(2**20, size=4000).astype(np.uint32).view(np.float32)
    assert match_weights([("others", others)], {"dense": dense}) == (set(), [])


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (1, 9), (33, 17)])
def test_what_is_a_weight_times_factors_is_not_looked_for_among_all(shape: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(weights, "_Pool", lambda state: None)
    state = {"weight": array(*shape), "other": array(*shape)}
    factors = RANDOM.uniform(0.5, 2, (shape[0], *(1 for _ in shape[1:]))).astype(np.float32)
    folded = state["weight"] * factors
    off = folded.copy()
    off[0, 3] *= np.float32(1 + 1e-4)
    exact, changed = match_weights([("folded", folded), ("off", off)], state)
    assert exact == set()
    assert [(each.initializer, each.parameter) for each in changed] == [
        ("off", "weight times a factor a channel")
    ]


class Few(nn.Module):
    """Weights of few elements."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.scale = nn.Linear(8, 3), nn.Parameter(torch.tensor(0.7654321))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x) * self.scale
        return y


@pytest.mark.parametrize(("name", "elements"), [("linear.bias", 1), ("linear.bias", 3), ("scale", 1)])
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_a_weight_of_few_elements_that_differs_is_named(name: str, elements: int, dynamo: bool) -> None:
    model = Few().eval()
    program = export(model, (uniform(5, 8),), dynamo=dynamo, verbose=False)
    assert check(model, program, uniform(5, 8)).verdict is Verdict.EQUAL
    weight = program.model.graph.initializers[name]
    assert weight.const_value is not None
    changed = weight.const_value.numpy().copy()
    changed.reshape(-1)[:elements] *= np.float32(1 + 1e-6)
    weight.const_value = ir.tensor(changed)
    report = check(model, program, uniform(5, 8))
    assert report.verdict is Verdict.EXPORT_WRONG
    assert f"{name} differs from the model's {name} in {elements} of {changed.size}" in report.notes[0]


def test_what_was_folded_into_few_elements_changed_none() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1), nn.BatchNorm2d(1))
    model = nn.Sequential(*layers).eval()
    program = export(model, (uniform(2, 3, 8, 8),), verbose=False)
    report = check(model, program, uniform(2, 3, 8, 8))
    assert (report.verdict, report.notes) == (Verdict.EQUAL, ())


class Placed(nn.Module):
    """Reads as many rows of a table as there are positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.layer = nn.Parameter(torch.randn(64, 8)), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.table[: x.shape[1]])


@pytest.mark.parametrize("shape", [(4, 8), (2, 3, 8)], ids=["under its name", "renamed"])
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_nor_is_one_that_the_exporter_renamed(dynamo: bool, shape: tuple[int, ...]) -> None:
    model, x = Model(lambda m, x: m.layer(x).argmax(-1), layer=nn.Linear(8, 6)).eval(), torch.randn(shape)
    file = export(model, (x,), dynamo=dynamo, external_data=False, verbose=False).model_proto
    (weight,) = (each for each in file.graph.initializer if sorted(each.dims) == [6, 8])
    changed = numpy_helper.to_array(weight).copy()
    changed[0, 0] *= 1.001
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    report = check(model, file, x)
    assert report.verdict is Verdict.CANNOT_SAY
    assert "differs from the model's layer.weight" in report.rows[0].reason


@pytest.mark.parametrize("rows", [slice(40, 41), slice(20, 64)], ids=["one row", "most rows"])
def test_a_weight_that_differs_where_no_output_shows_it_is_not_called_equal(
    rows: slice, tmp_path: Path
) -> None:
    model, path = Placed().eval(), tmp_path / "model.onnx"
    sizes = ({0: "batch", 1: "positions"},)
    export(model, (torch.randn(2, 9, 8),), path, dynamic_shapes=sizes, external_data=False, verbose=False)
    assert check(model, path).verdict is Verdict.EQUAL
    file = onnx.load(path)
    (table,) = (each for each in file.graph.initializer if each.name == "table")
    changed = numpy_helper.to_array(table).copy()
    changed[rows] *= 2
    table.CopyFrom(numpy_helper.from_array(changed, "table"))
    report = check(model, file)
    assert report.verdict is Verdict.CANNOT_SAY
    assert "table differs from the model's table" in report.rows[0].reason
    assert check(model, file, torch.randn(1, 50, 8)).verdict is Verdict.EXPORT_WRONG
