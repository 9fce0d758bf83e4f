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


class Codes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x / 0.1) * 0.1

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.located::Codes", x)


class Above(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, least: float) -> Tensor:
        return (x > least).to(x.dtype)

    @staticmethod
    def symbolic(g: Any, x: Any, least: float) -> Any:
        return g.op("tests.located::Above", x, least_f=least)


class Largest(torch.autograd.Function):
    """An operator of the name of one of ONNX's, which locate knows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.zeros_like(x).scatter_(-1, torch.topk(x, 3, -1).indices, 1.0)
        return x * mask, mask

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests.located::TopK", x, outputs=2)


def spiking(model: Any, x: Tensor) -> Tensor:
    """Return what two steps of a net give whose neurons fire above a threshold."""
    a, b = torch.zeros(4, 6), torch.zeros(4, 3)
    for _ in range(2):
        a = 0.9 * a + model.a(x)
        fired = Above.apply(a, 0.2)
        a = a - fired
        b = 0.9 * b + model.b(fired)
    return b


# A function, and the operator in a body, or in the file, that is exchanged, and by which other.
IN_FUNCTIONS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "a body that forgets its last step": (lambda m, x: m.b(Codes.apply(m.a(x))), "Mul", "Identity"),
    "a body that gives ones, as another call does": (
        lambda m, x: m.b(Above.apply(m.a(x) + 1e3, 0.0)) - m.b(m.a(Above.apply(m.a(x) - 1e3, 0.0))),
        *("Greater", "Less"),
    ),
    "one of two results of an operator called TopK": (lambda m, x: Largest.apply(m.a(x)), "Mul", "Add"),
    "a difference before what gives zeros and ones": (spiking, "Sub", "Add"),
}


@BOTH
@pytest.mark.parametrize("name", IN_FUNCTIONS)
def test_a_fault_in_or_before_a_function_is_named(name: str, dynamo: bool, tmp_path: Path) -> None:
    function, kind, other = IN_FUNCTIONS[name]
    model, x = Model(function, **layers()).eval(), uniform(4, 6)
    options: Any = {"external_data": False} if dynamo else {}
    path = tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, functions="attach", verbose=False, **options)
    file = onnx.load(path)
    assert locate(model, file, (x,), questions=["export"]).node is None
    bodies = [(node, body.name) for body in file.functions for node in body.node if node.op_type == kind]
    if bodies:
        ((node, body),) = bodies
        guilty = next(each.name for each in file.graph.node if each.op_type == body)
    else:
        node = next(each for each in file.graph.node if each.op_type == kind)
        guilty = node.name
    node.op_type = other
    if other == "Identity":
        del node.input[1:]
    assert locate(model, file, (x,), questions=["export"]).node == guilty


ROOT: dict[str, tuple[str, str]] = {"the root": ("Sqrt", "Abs"), "one over it": ("Reciprocal", "Sqrt")}


@pytest.mark.parametrize("name", ROOT)
def test_of_one_over_a_root_it_is_the_wrong_node(name: str, tmp_path: Path) -> None:
    kind, other = ROOT[name]
    model, x = Model(lambda m, x: m.a(x) * (m.a(x) ** 2 + 1).rsqrt(), **layers()).eval(), uniform(4, 6)
    file = read(model, (x,), tmp_path / "model.onnx", dynamo=True)
    (node,) = (each for each in file.graph.node if each.op_type == kind)
    node.op_type = other
    assert locate(model, file, (x,), questions=["export"]).node == node.name


@BOTH
@pytest.mark.parametrize(("kind", "other"), [("Max", "Min"), ("Min", "Max")])
def test_who_reads_zeros_is_named_and_not_who_makes_them(
    kind: str, other: str, dynamo: bool, tmp_path: Path
) -> None:
    def limited(model: Any, x: Tensor) -> Tensor:
        y = model.a(x)
        high, low = y.amax(-1), y.amin(-1)
        zeros = torch.zeros_like(high)
        return torch.maximum(high, zeros) - torch.minimum(low, zeros)

    model, x = Model(limited, **layers()).eval(), uniform(4, 6)
    free: Any = (
        {"dynamic_shapes": (({0: "n"},),), "external_data": False}
        if dynamo
        else {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    )
    path = tmp_path / "model.onnx"
    export(model, (x,), path, dynamo=dynamo, verbose=False, **free)
    file = onnx.load(path)
    (node,) = (each for each in file.graph.node if each.op_type == kind)
    node.op_type = other
    assert locate(model, file, (x,), questions=["export"]).node == node.name


def gated(model: Any, x: Tensor) -> Tensor:
    """Return one half of a layer's result, gated by the other, as a linear unit is."""
    value, gate = model.a(x).chunk(2, -1)
    y: Tensor = value.sin() * gate.sigmoid()
    return y


def test_who_gives_two_results_in_each_others_place_is_named(tmp_path: Path) -> None:
    model, x = Model(gated, **layers()).eval(), uniform(4, 6)
    file = read(model, (x,), tmp_path / "model.onnx", dynamo=True)
    (node,) = (each for each in file.graph.node if each.op_type == "Split")
    node.output[:] = reversed(node.output)
    assert locate(model, file, (x,), questions=["export"]).node == node.name
