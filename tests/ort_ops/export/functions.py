"""The table of Functions that are exported: each shows one thing that a ``symbolic`` or a forward may do."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.onnx import symbolic_helper, symbolic_opset9, symbolic_opset13
from torch.onnx.symbolic_helper import parse_args
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, eq=False)
class Case:
    """A model, what it is called with, and what is known about its export.

    ``torchscript`` says whether the TorchScript exporter works on it, ``dynamo`` whether plain
    ``torch.onnx.export`` does (which loses the nodes). ``whole`` counts the nodes that stand for whole calls,
    None where every node does. ``dynamic`` are the dynamic axes of the inputs. ``in_2_9`` is what torch 2.9
    says under the newer exporter (True) and the other one, where it can't export the model.
    """

    name: str
    model: Callable[[], nn.Module]
    inputs: tuple[Any, ...] = ()
    torchscript: bool = True
    dynamo: bool = True
    runs: bool = True
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    in_2_9: dict[bool, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def x(*shape: int) -> Tensor:
    return torch.linspace(-2.0, 2.0, int(np.prod(shape)) if shape else 1).reshape(shape)


class Calls(nn.Module):
    """A model of one call."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call
        self.weight = nn.Parameter(x(4) + 3)
        self.register_buffer("scale", torch.tensor([0.5, 1.0, 2.0, 4.0]))

    # By names: over *inputs and a free size torch 2.9 fails, without any Function, too.
    def forward(self, x: Tensor, y: Tensor | None = None, z: Tensor | None = None) -> Any:
        return self.call(self, *(tensor for tensor in (x, y, z) if tensor is not None))


CASES: list[Case] = []


def case(name: str, *inputs: Any, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a case whose model calls the decorated function with itself and the inputs."""

    def add(call: Callable[..., Any]) -> Callable[..., Any]:
        CASES.append(Case(name, lambda: Calls(call).eval(), inputs or (x(3, 4),), **options))
        return call

    return add


class Twice(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Twice", x)


twice = Twice.apply  # kept before any export begins


@case("one node")
def _(model: Calls, x: Tensor) -> Tensor:
    return Twice.apply(x)


@case("an apply kept in a variable")
def _(model: Calls, x: Tensor) -> Tensor:
    return twice(twice(x))


@case("equal calls stay two nodes")
def _(model: Calls, x: Tensor) -> Tensor:
    return torch.cat([Twice.apply(x), Twice.apply(x)])


@case("on a parameter and on a buffer")
def _(model: Calls, x: Tensor) -> Tensor:
    return x + Twice.apply(model.weight) + Twice.apply(model.scale)


@case("on a constant that the model makes")
def _(model: Calls, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, that it is a constant: it is
        return x + Twice.apply(torch.tensor([1.0, 2.0, 3.0, 4.0]))


@case("a result that nothing reads")
def _(model: Calls, x: Tensor) -> Tensor:
    Twice.apply(x + 1)
    return Twice.apply(x)


class Attributes(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float, axis: int, mode: str, flag: bool) -> Tensor:
        return x * alpha + axis + (1 if flag else 0)

    @staticmethod
    def symbolic(g: Any, x: Any, alpha: float, axis: int, mode: str, flag: bool) -> Any:
        return g.op("my::Attributes", x, alpha_f=alpha, axis_i=axis, mode_s=mode, flag_i=int(flag))


@case("attributes: float, int, string, bool")
def _(model: Calls, x: Tensor) -> Tensor:
    return Attributes.apply(x, 0.1, -1, "näher", True)


class Named(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: str, function_: float = 2.0) -> Tensor:
        return x * len(function) * function_

    @staticmethod
    def symbolic(g: Any, x: Any, function: str, function_: float = 2.0) -> Any:
        return g.op("my::Named", x, function_s=function)


@case("a parameter called function")
def _(model: Calls, x: Tensor) -> Tensor:
    return Named.apply(x, "cube")


class Lists(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, floats: list[float], ints: tuple[int, ...], texts: list[str]) -> Tensor:
        return x * sum(floats) + sum(ints) + len(texts)

    @staticmethod
    def symbolic(g: Any, x: Any, floats: list[float], ints: tuple[int, ...], texts: list[str]) -> Any:
        return g.op("my::Lists", x, floats_f=floats, ints_i=ints, texts_s=texts)


@case("attributes: lists")
def _(model: Calls, x: Tensor) -> Tensor:
    return Lists.apply(x, [0.5, 1.5], (1, 2, 3), ["a", "b"])


class TensorAttribute(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x + torch.arange(4, dtype=x.dtype)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::TensorAttribute", x, value_t=torch.arange(4.0), half_t=torch.ones(2).half())


@case("attributes: tensors")
def _(model: Calls, x: Tensor) -> Tensor:
    return TensorAttribute.apply(x)


class MaybeBias(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return x * weight if bias is None else x * weight + bias

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        return g.op("my::MaybeBias", x, weight, *([] if bias is None else [bias]))


@case("None for a tensor")
def _(model: Calls, x: Tensor) -> Tensor:
    return MaybeBias.apply(x, model.weight, None) + MaybeBias.apply(x, model.weight, model.scale)


@case("an argument left to its default")
def _(model: Calls, x: Tensor) -> Tensor:
    return MaybeBias.apply(x, model.weight)


class AbsentMiddle(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor | None, high: Tensor) -> Tensor:
        return torch.minimum(x, high)

    @staticmethod
    def symbolic(g: Any, x: Any, low: Any, high: Any) -> Any:
        absent = symbolic_helper._optional_input_placeholder_tensor(g)
        return g.op("my::AbsentMiddle", x, absent if low is None else low, high)


@case("an input left out in the middle")
def _(model: Calls, x: Tensor) -> Tensor:
    return AbsentMiddle.apply(x, None, model.weight)


class Split(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x.relu(), x.clamp(max=0), (x > 0).to(torch.int64)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Split", x, outputs=3)


@case("several outputs")
def _(model: Calls, x: Tensor) -> Any:
    return Split.apply(x)


@case("one of several outputs")
def _(model: Calls, x: Tensor) -> Tensor:
    return Split.apply(x)[1]


class OnlyFirst(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 3, x.sum()

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::OnlyFirst", x), None


@case("None for an output that nothing reads")
def _(model: Calls, x: Tensor) -> Tensor:
    return OnlyFirst.apply(x)[0]


class AddThenTwice(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x + 1) * 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Twice", g.op("Add", x, torch.tensor(1.0)))


@case("a standard operator before it", runs=False)
def _(model: Calls, x: Tensor) -> Tensor:
    return AddThenTwice.apply(x)


class Chain(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.abs()

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        first, second = g.op("my::First", x, outputs=2)
        return g.op("my::Second", second, first, depth_i=2)


@case("several custom nodes", runs=False)
def _(model: Calls, x: Tensor) -> Tensor:
    return Chain.apply(x)


class Standard(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * x

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("Mul", g.op("Sigmoid", x), x)


@case("standard operators only")
def _(model: Calls, x: Tensor) -> Tensor:
    return Standard.apply(x)


class Parsed(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float, sizes: list[int], name: str) -> Tensor:
        return x * alpha

    @staticmethod
    @parse_args("v", "f", "is", "s")
    def symbolic(g: Any, x: Any, alpha: float, sizes: list[int], name: str) -> Any:
        return g.op("my::Parsed", x, alpha_f=alpha, sizes_i=sizes, name_s=name)


@case("@parse_args")
def _(model: Calls, x: Tensor) -> Tensor:
    return Parsed.apply(x, 0.25, [2, 3], "n")


class ParsedTensor(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        return x * scale

    @staticmethod
    @parse_args("v", "t")
    def symbolic(g: Any, x: Any, scale: Any) -> Any:
        return g.op("my::ParsedTensor", x, scale_t=scale)


@case("@parse_args of a constant tensor")
def _(model: Calls, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ParsedTensor.apply(x, torch.tensor([1.0, 2.0, 3.0, 4.0]))


@case("@parse_args of a buffer", torchscript=False)
def _(model: Calls, x: Tensor) -> Tensor:
    return ParsedTensor.apply(x, model.scale)


class Helpers(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x.unsqueeze(0) + 1).sum(0)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        y = symbolic_helper._unsqueeze_helper(g, x, [0])
        one = g.op("Constant", value_t=torch.tensor(1.0))
        y = symbolic_opset9.add(g, y, one)
        y = symbolic_helper._reducesum_helper(g, y, axes_i=[0], keepdims_i=0)
        return g.op("my::Same", y)


@case("symbolic_helper and the opset modules", runs=False)
def _(model: Calls, x: Tensor) -> Tensor:
    return Helpers.apply(x)


class OpsetModule(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.softmax(x, -1)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return symbolic_opset13.softmax(g, x, -1)


@case("a whole operator of an opset module")
def _(model: Calls, x: Tensor) -> Tensor:
    return OpsetModule.apply(x)


class Typed(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int) -> Tensor:
        return x.new_ones(x.shape[0], width)

    @staticmethod
    def symbolic(g: Any, x: Any, width: int) -> Any:
        y = g.op("my::Typed", x, width_i=width)
        sizes = x.type().varyingSizes()
        y.setType(x.type().with_sizes([sizes[0], width]))
        return y


@case("setType")
def _(model: Calls, x: Tensor) -> Tensor:
    return Typed.apply(x, 7)


class Sized(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.flatten(1)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        sizes = x.type().sizes()
        return g.op("my::Sized", x, sizes_i=sizes, rank_i=x.type().dim(), kind_s=x.type().scalarType())


@case("type().sizes(), dim(), scalarType()", x(2, 3, 4))
def _(model: Calls, x: Tensor) -> Tensor:
    return Sized.apply(x)


class Constants(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        table = g.op("Constant", value_t=torch.arange(6, dtype=torch.int64))
        return g.op("my::Constants", x, table, torch.tensor([0.5]))


@case("constants as inputs")
def _(model: Calls, x: Tensor) -> Tensor:
    return Constants.apply(x)


class ScaleAsInput(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        return torch.round(x / scale) * scale

    @staticmethod
    def symbolic(g: Any, x: Any, scale: float) -> Any:
        return g.op("my::ScaleAsInput", x, g.op("Constant", value_t=torch.tensor(scale)))


@case("a number as a constant input")
def _(model: Calls, x: Tensor) -> Tensor:
    return ScaleAsInput.apply(ScaleAsInput.apply(x, 0.5), 0.25)


class NewStyle(Function):
    @staticmethod
    def forward(x: Tensor, power: int = 2) -> Tensor:
        return x**power

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output.detach() + 1)

    @staticmethod
    def symbolic(g: Any, x: Any, power: int = 2) -> Any:
        return g.op("my::NewStyle", x, power_i=power)


@case("setup_context")
def _(model: Calls, x: Tensor) -> Tensor:
    return NewStyle.apply(x, 3)


NO_KEYWORDS = r"apply\(\) takes no keyword arguments"


@case("setup_context, keyword arguments", in_2_9={True: NO_KEYWORDS, False: NO_KEYWORDS})
def _(model: Calls, x: Tensor) -> Tensor:
    return NewStyle.apply(x, power=3) + NewStyle.apply(x)


class Outer(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Twice.apply(x) + 1

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Outer", x)


@case("a Function that calls another")
def _(model: Calls, x: Tensor) -> Tensor:
    return Outer.apply(x)


class Plain(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Twice.apply(x) + 1


@case("a Function without symbolic that calls one with")
def _(model: Calls, x: Tensor) -> Tensor:
    return Plain.apply(x)


class Derived(Twice):
    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Derived", x)


@case("a class that inherits its forward")
def _(model: Calls, x: Tensor) -> Tensor:
    return Derived.apply(x) + Twice.apply(x)


class CallsParent(Twice):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Twice.forward(ctx, x) + 1

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::CallsParent", x)


@case("a forward that calls its parent's")
def _(model: Calls, x: Tensor) -> Tensor:
    return CallsParent.apply(x)


@case("a class that is defined while the model runs")
def _(model: Calls, x: Tensor) -> Tensor:
    class Late(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x - 1

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("my::Late", x)

    return Late.apply(x)


@case("in a checkpointed block")
def _(model: Calls, x: Tensor) -> Tensor:
    return checkpoint(lambda y: Twice.apply(y) + 1, x, use_reentrant=False)


@case("in the branches of torch.cond", torchscript=False)
def _(model: Calls, x: Tensor) -> Tensor:
    return torch.cond(
        x.sum() > 0, lambda x: Attributes.apply(x, 2.0, 1, "t", True), lambda x: Twice.apply(x) + 1, (x,)
    )


class Castable(Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any) -> Any:
        return g.op("my::Castable", x, weight)


@case("custom_fwd", x(3, 4), x(4, 2))
def _(model: Calls, x: Tensor, weight: Tensor) -> Tensor:
    return Castable.apply(x, weight)


class MatMul(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any) -> Any:
        return g.op("my::MatMul", x, weight)


@case("under autocast", x(3, 4), x(4, 2))
def _(model: Calls, x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return MatMul.apply(x, weight)


@case("a dynamic batch", dynamic={"x": {0: "batch"}})
def _(model: Calls, x: Tensor) -> Tensor:
    return MaybeBias.apply(Twice.apply(x), model.weight)


@case("a slice by its own size", dynamic={"x": {0: "batch"}})
def _(model: Calls, x: Tensor) -> Tensor:
    return Twice.apply(x[: x.shape[0] // 2])


class Nonzero(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.nonzero(x > 0)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Nonzero", x)


@case("a size that depends on values")
def _(model: Calls, x: Tensor) -> Tensor:
    return Nonzero.apply(x) + 1


class InNumpy(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(np.repeat(np.tanh(x.numpy()), 2, axis=1))

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::InNumpy", x)


@case("a forward in NumPy")
def _(model: Calls, x: Tensor) -> Tensor:
    return InNumpy.apply(x) + 1


@case("a forward in NumPy, a dynamic batch", dynamic={"x": {0: "batch"}})
def _(model: Calls, x: Tensor) -> Tensor:
    return InNumpy.apply(x) + 1


class ByValue(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x * 3

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::ByValue", x)


@case("a forward that branches on values", dynamo=False)
def _(model: Calls, x: Tensor) -> Tensor:
    return ByValue.apply(x)


class Scatter(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: int) -> Tensor:
        x.add_(shift)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def symbolic(g: Any, x: Any, shift: int) -> Any:
        return g.op("my::InPlace", x, shift_i=shift)


@case("a forward that works in place")
def _(model: Calls, x: Tensor) -> Tensor:
    return Scatter.apply(x * 1, 5) * 2


class Identity(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return x


@case("a symbolic that writes nothing")
def _(model: Calls, x: Tensor) -> Tensor:
    return Twice.apply(Identity.apply(x))


class View(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.t()

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::View", x)


@case("a forward that returns a view")
def _(model: Calls, x: Tensor) -> Tensor:
    return View.apply(x)


class Ones(Function):
    @staticmethod
    def forward(ctx: Any, count: int) -> Tensor:
        return torch.ones(count)

    @staticmethod
    def symbolic(g: Any, count: int) -> Any:
        return g.op("my::Ones", count_i=count)


@case("no tensor among the arguments", torchscript=False)
def _(model: Calls, x: Tensor) -> Tensor:
    return x + Ones.apply(4)


class Swapped(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return x - y

    @staticmethod
    def symbolic(g: Any, x: Any, y: Any) -> Any:
        return g.op("my::Swapped", y, x)


@case("inputs in another order")
def _(model: Calls, x: Tensor) -> Tensor:
    return Swapped.apply(x, model.weight) + Swapped.apply(model.weight, x)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(x(4))

    def forward(self, x: Tensor) -> Tensor:
        return MaybeBias.apply(x, self.weight, None)


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shared = Block()
        self.blocks = nn.Sequential(Block(), nn.Sequential(shared, Block()), shared)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


CASES.append(Case("repeated and nested modules", lambda: Repeated().eval(), (x(3, 4),)))


class DTypeArgument(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype)

    @staticmethod
    def symbolic(g: Any, x: Any, dtype: torch.dtype) -> Any:
        return g.op("my::To", x, to_s=str(dtype))


@case("a dtype for an argument")
def _(model: Calls, x: Tensor) -> Tensor:
    return DTypeArgument.apply(x, torch.int32)


class DefaultDomain(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 5

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("TIMESFIVE", x)


@case("no domain")
def _(model: Calls, x: Tensor) -> Tensor:
    return DefaultDomain.apply(x)


@case("a version of its domain", options={"custom_opsets": {"my": 3}})
def _(model: Calls, x: Tensor) -> Tensor:
    return Twice.apply(x)


class Complicated(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, options: dict[str, Any]) -> Tensor:
        return x * options["alpha"]

    @staticmethod
    def symbolic(g: Any, x: Any, options: dict[str, Any]) -> Any:
        return g.op("my::Complicated", x, alpha_f=options["alpha"], names_s=list(options["names"]))


@case("a dictionary for an argument")
def _(model: Calls, x: Tensor) -> Tensor:
    return Complicated.apply(x, {"alpha": 1.5, "names": ("a", "b")})


class Half(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 0.5

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Half", x, by_f=0.5)


for dtype in (torch.float16, torch.bfloat16, torch.float64):
    CASES.append(Case(f"{dtype}", lambda: Calls(lambda model, x: Half.apply(x)).eval(), (x(3, 4).to(dtype),)))
