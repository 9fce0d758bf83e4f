"""Faults planted in right files, for the experiment: what is caught, by whom, and which node is named."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812, the name that PyTorch's own documentation uses
from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch import Tensor, nn

from mylinear import LinearF

from .models import Model, uniform

__all__ = ["ARCHITECTURES", "FAULTS", "Architecture", "Fault"]


@dataclass(frozen=True)
class Architecture:
    """A model, its inputs, and the exporter that writes it."""

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    dynamo: bool
    functions: tuple[type, ...] = ()

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()


def _mlp() -> nn.Module:
    from mylinear import MyLinear

    return nn.Sequential(MyLinear(16, 16), nn.ReLU(), MyLinear(16, 16), nn.Tanh(), MyLinear(16, 4))


def _cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1)),
        *(nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 16), nn.GELU(), nn.Linear(16, 5)),
    )


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.after = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.after(x))))


def _recurrent() -> nn.Module:
    return Model(
        lambda m, x: m.head(m.rnn(x)[0].relu()),
        rnn=nn.LSTM(8, 8, batch_first=True),
        head=nn.Linear(8, 8),
    )


def _discrete() -> nn.Module:
    def compute(m: Any, x: Tensor, n: Tensor) -> Any:
        y = m.l(x)
        return y.argmax(-1), y > 0.3, n * 3 + 1, y.softmax(-1)

    return Model(compute, l=nn.Linear(16, 16))


def _half() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU()).half()


ARCHITECTURES = {
    each.name: each
    for each in (
        Architecture("CNN", _cnn, (uniform(2, 3, 16, 16),), True),
        Architecture("CNN, TorchScript", _cnn, (uniform(2, 3, 16, 16),), False),
        Architecture("MLP of MyLinear", _mlp, (uniform(5, 16),), True, (LinearF,)),
        Architecture("MLP of MyLinear, TorchScript", _mlp, (uniform(5, 16),), False, (LinearF,)),
        Architecture("transformer block", Block, (uniform(2, 7, 16),), True),
        Architecture("transformer block, TorchScript", Block, (uniform(2, 7, 16),), False),
        Architecture("LSTM", _recurrent, (uniform(2, 5, 8),), True),
        Architecture("LSTM, TorchScript", _recurrent, (uniform(2, 5, 8),), False),
        Architecture(
            "integers and booleans", _discrete, (uniform(9, 16), torch.arange(9) * 1_000_000_000), True
        ),
        Architecture("float16", _half, (uniform(5, 16).half(),), True),
    )
}


@dataclass(frozen=True)
class Fault:
    """What is done to a right file.

    ``plant`` changes it in place and returns the names of the nodes of which one is to be blamed, or None
    where there is nothing in it to change. ``inputs`` changes the inputs, for a fault that others don't show.
    """

    name: str
    plant: Callable[[ModelProto], list[str] | None]
    inputs: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)

    def __str__(self) -> str:
        return self.name


FAULTS: list[Fault] = []


def fault(
    name: str, **options: Any
) -> Callable[[Callable[[ModelProto], list[str] | None]], Callable[[ModelProto], list[str] | None]]:
    def add(plant: Callable[[ModelProto], list[str] | None]) -> Callable[[ModelProto], list[str] | None]:
        FAULTS.append(Fault(name, plant, **options))
        return plant

    return add


def nodes(model: ModelProto, *kinds: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type in kinds]


def weight_of(model: ModelProto, node: NodeProto, place: int) -> Any:
    names = {initializer.name: initializer for initializer in model.graph.initializer}
    return names.get(node.input[place]) if place < len(node.input) else None


def change_weight(model: ModelProto, change: Callable[[Any], Any], *, least: int = 2) -> list[str] | None:
    """Change the last weight of a product or a convolution; the nodes that read it are to be blamed."""
    for node in reversed(nodes(model, "Gemm", "MatMul", "Conv", "MYLINEAR")):
        weight = weight_of(model, node, 1)
        if weight is None or len(weight.dims) < least:
            continue
        changed = change(numpy_helper.to_array(weight))
        if changed is None:
            continue
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), weight.name))
        return [each.name for each in model.graph.node if weight.name in each.input]
    return None


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    for attribute in list(node.attribute):
        if attribute.name == name:
            node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute(name, value))


def put_behind(model: ModelProto, node: NodeProto, made: Callable[[str, str], list[NodeProto]]) -> list[str]:
    """Put nodes between a node and those that read its first result."""
    result, before = node.output[0], f"{node.output[0]}_before"
    node.output[0] = before
    added = made(before, result)
    place = next(i for i, each in enumerate(model.graph.node) if each is node or each == node)
    for offset, each in enumerate(added):
        each.name = f"{node.name}_fault_{offset}"
        model.graph.node.insert(place + 1 + offset, each)
    return [node.name, *(each.name for each in added)]


def constant(model: ModelProto, name: str, value: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def float_type(model: ModelProto) -> Any:
    kind = model.graph.input[0].type.tensor_type.elem_type
    return helper.tensor_dtype_to_np_dtype(kind)


@fault("GELU by its approximation")
def _(model: ModelProto) -> list[str] | None:
    found = nodes(model, "Erf")
    if not found:
        return None
    node = found[-1]
    x, y = node.input[0], node.output[0]
    place = next(i for i, each in enumerate(model.graph.node) if each == node)
    dtype = float_type(model)
    # erf(z) is close to tanh(2/sqrt(pi)·(z + 0.0894·z³)): what GELU by tanh makes of it.
    three, factor, scale = (
        constant(model, f"fault_{name}", dtype.type(value))
        for name, value in (("three", 3.0), ("factor", 0.08943), ("scale", 1.1283791670955126))
    )
    added = [
        helper.make_node("Pow", [x, three], ["fault_cube"], "fault_pow"),
        helper.make_node("Mul", ["fault_cube", factor], ["fault_part"], "fault_mul"),
        helper.make_node("Add", [x, "fault_part"], ["fault_sum"], "fault_add"),
        helper.make_node("Mul", ["fault_sum", scale], ["fault_scaled"], "fault_scale"),
        helper.make_node("Tanh", ["fault_scaled"], [y], "fault_tanh"),
    ]
    del model.graph.node[place]
    for offset, each in enumerate(added):
        model.graph.node.insert(place + offset, each)
    return [each.name for each in added]


@fault("another epsilon")
def _(model: ModelProto) -> list[str] | None:
    found = nodes(model, "LayerNormalization")
    if not found:
        return None
    set_attribute(found[-1], "epsilon", 1e-6)
    return [found[-1].name]


@fault("one weight by a millionth")
def _(model: ModelProto) -> list[str] | None:
    def change(array: Any) -> Any:
        changed = array.copy()
        place = np.unravel_index(int(np.argmax(np.abs(array))), array.shape)
        changed[place] *= array.dtype.type(1 + 1e-6)
        if changed[place] == array[place]:  # the next number that there is
            changed[place] = np.nextafter(array[place], 2 * array[place])
        return changed

    return change_weight(model, change)


@fault("a weight transposed")
def _(model: ModelProto) -> list[str] | None:
    def change(array: Any) -> Any:
        square = array.ndim == 2 and array.shape[0] == array.shape[1]
        return array.T if square else None

    return change_weight(model, change)


@fault("the axis before")
def _(model: ModelProto) -> list[str] | None:
    found = nodes(model, "Softmax")
    if not found:
        return None
    axis = next((a.i for a in found[-1].attribute if a.name == "axis"), -1)
    set_attribute(found[-1], "axis", axis - 1)
    return [found[-1].name]


def round_to(bits: int) -> Callable[[ModelProto], list[str] | None]:
    """Return what rounds a weight to so many bits of its fraction."""

    def change(array: Any) -> Any:
        if array.dtype != np.float32:
            return None
        raw = array.view(np.uint32).astype(np.uint64)
        drop = 23 - bits
        rounded = ((raw + (1 << (drop - 1))) >> drop << drop).astype(np.uint32)
        return rounded.view(np.float32)

    return lambda model: change_weight(model, change)


FAULTS.append(Fault("weights rounded to TF32", round_to(10)))
FAULTS.append(Fault("weights rounded to bfloat16", round_to(7)))


@fault("weights rounded to float16")
def _(model: ModelProto) -> list[str] | None:
    def change(array: Any) -> Any:
        return array.astype(np.float16).astype(np.float32) if array.dtype == np.float32 else None

    return change_weight(model, change)


def with_nan(x: Tensor) -> Tensor:
    return x.masked_fill(x == x.max(), float("nan")) if x.is_floating_point() else x


@fault("NaN lost", inputs=with_nan)
def _(model: ModelProto) -> list[str] | None:
    found = nodes(model, "Relu")
    if not found:
        return None
    node = found[0]
    x, y = node.input[0], node.output[0]
    zero = constant(model, "fault_zero", float_type(model).type(0))
    place = next(i for i, each in enumerate(model.graph.node) if each == node)
    del model.graph.node[place]
    added = [
        helper.make_node("Greater", [x, zero], ["fault_positive"], "fault_greater"),
        helper.make_node("Where", ["fault_positive", x, zero], [y], "fault_where"),
    ]
    for offset, each in enumerate(added):
        model.graph.node.insert(place + offset, each)
    return [each.name for each in added]


@fault("an integer overflows")
def _(model: ModelProto) -> list[str] | None:
    outputs = {value.name for value in model.graph.output}
    integers = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == onnx.TensorProto.INT64}
    found = [node for node in nodes(model, "Mul") if integers & set(node.input)]
    if not found or not outputs:
        return None
    int32, int64 = int(onnx.TensorProto.INT32), int(onnx.TensorProto.INT64)

    def made(before: str, result: str) -> list[NodeProto]:
        return [
            helper.make_node("Cast", [before], ["fault_int32"], to=int32),
            helper.make_node("Cast", ["fault_int32"], [result], to=int64),
        ]

    return put_behind(model, found[-1], made)


@fault("a bias along the wrong axis")
def _(model: ModelProto) -> list[str] | None:
    for node in reversed(nodes(model, "Gemm", "MYLINEAR")):
        bias = weight_of(model, node, 2)
        if bias is None:
            continue
        name = node.input[2]
        wide = numpy_helper.to_array(bias)
        turned = constant(model, f"{name}_turned", wide[:1])
        node.input[2] = ""
        dtype_zero = constant(model, f"{name}_zeros", np.zeros_like(wide))
        node.input[2] = dtype_zero

        def made(before: str, result: str, turned: str = turned) -> list[NodeProto]:
            return [helper.make_node("Add", [before, turned], [result])]

        return put_behind(model, node, made)
    return None


@fault("a bias dropped")
def _(model: ModelProto) -> list[str] | None:
    for node in reversed(nodes(model, "Gemm", "Conv", "MYLINEAR")):
        if len(node.input) == 3:
            del node.input[2]
            return [node.name]
    return None


@fault("noise that depends on the seed")
def _(model: ModelProto) -> list[str] | None:
    found = nodes(model, "Relu", "Softmax")
    if not found or float_type(model) != np.float32:
        return None

    def made(before: str, result: str) -> list[NodeProto]:
        return [
            helper.make_node("RandomNormalLike", [before], ["fault_noise"], scale=1e-4),
            helper.make_node("Add", [before, "fault_noise"], [result]),
        ]

    return put_behind(model, found[-1], made)


@fault("padding on one side")
def _(model: ModelProto) -> list[str] | None:
    found = nodes(model, "Conv")
    if not found:
        return None
    set_attribute(found[-1], "pads", [0, 0, 2, 2])
    return [found[-1].name]


@fault("a constant of another type's precision")
def _(model: ModelProto) -> list[str] | None:
    found = nodes(model, "Tanh")
    if not found:
        return None
    scale = constant(model, "fault_scale", np.float32(ml_dtypes.bfloat16(1.0009)) * np.float32(1.0003))

    def made(before: str, result: str) -> list[NodeProto]:
        return [helper.make_node("Mul", [before, scale], [result])]

    return put_behind(model, found[-1], made)
