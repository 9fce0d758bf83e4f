"""Operators of a file exchanged, one at a time: the one that locate names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from onnx import numpy_helper
from torch import Tensor, nn

from ort_ops.export import export
from ort_ops.parity import locate

from .models import Model, uniform

BOTH = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


def layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"a": nn.Linear(6, 6), "b": nn.Linear(6, 3)}


def read(model: nn.Module, inputs: tuple[Tensor, ...], path: Path, *, dynamo: bool) -> onnx.ModelProto:
    options: Any = {"external_data": False} if dynamo else {}
    export(model, inputs, path, dynamo=dynamo, verbose=False, **options)
    return onnx.load(path)


def masked(model: Any, x: Tensor) -> Tensor:
    y = model.a(x)
    z: Tensor = torch.where(y > -1e3, y, torch.zeros_like(y))
    return z * 2


def scattered(model: Any, x: Tensor) -> Tensor:
    y = model.a(x)
    places = torch.ones(4, 6, dtype=torch.int64)
    return torch.zeros_like(y).scatter_add(0, places, y) + y.tanh()


# What gives one number everywhere then, as much else does, and what gives a step of what it should.
EXCHANGED: dict[str, tuple[Callable[..., Any], str, str]] = {
    "a mask that is False everywhere": (masked, "Greater", "Less"),
    "products with zeros for sums": (scattered, "ScatterElements", "mul"),
    "a step of what is multiplied by it": (lambda m, x: m.b(F.hardswish(m.a(x))), "HardSwish", "HardSigmoid"),
    "a step of the logarithm": (lambda m, x: m.b(F.log_softmax(m.a(x), -1)), "LogSoftmax", "Softmax"),
    "a step of ELU": (lambda m, x: m.b(F.elu(m.a(x))), "Elu", "Exp"),
    "nothing": (lambda m, x: m.b(m.a(x).tanh()), "Tanh", "Identity"),
}


@BOTH
@pytest.mark.parametrize("name", EXCHANGED)
def test_an_operator_that_gives_what_is_elsewhere_is_named(name: str, dynamo: bool, tmp_path: Path) -> None:
    function, kind, other = EXCHANGED[name]
    model, x = Model(function, **layers()).eval(), uniform(4, 6)
    file = read(model, (x,), tmp_path / "model.onnx", dynamo=dynamo)
    assert locate(model, file, (x,), questions=["export"]).node is None
    (node,) = (each for each in file.graph.node if each.op_type == kind)
    if kind == "ScatterElements":
        next(each for each in node.attribute if each.name == "reduction").s = other.encode()
    else:
        node.op_type = other
        del node.attribute[:]
    assert locate(model, file, (x,), questions=["export"]).node == node.name


def quantised(model: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a code book's nearest vectors are decoded to, with a straight-through estimator."""
    z = model.encoder(x)
    flat = z.reshape(-1, 4)
    book = model.book.weight
    apart = (flat**2).sum(1, keepdim=True) + (book**2).sum(1) - 2 * flat @ book.t()
    q = book[apart.argmin(1)].view_as(z)
    return model.decoder(z + (q - z)), apart.argmin(1), ((q - z) ** 2).mean()


@BOTH
@pytest.mark.parametrize("shape", [(5, 4), (4,)], ids=["weight", "bias"])
def test_of_a_layer_before_a_straight_through_estimator_it_is_the_right_node(
    shape: tuple[int, ...], dynamo: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    parts = {"encoder": nn.Linear(5, 4), "book": nn.Embedding(12, 4), "decoder": nn.Linear(4, 5)}
    model, x = Model(quantised, **parts).eval(), uniform(2, 6, 5)
    file = read(model, (x,), tmp_path / "model.onnx", dynamo=dynamo)
    weight = next(each for each in file.graph.initializer if tuple(each.dims) == shape)
    changed = numpy_helper.to_array(weight).copy()
    changed[..., 3] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    (reader,) = (node.name for node in file.graph.node if weight.name in node.input)
    assert locate(model, file, (x,), questions=["export"]).node == reader
