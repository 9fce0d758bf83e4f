"""What goes wrong in a ``symbolic`` is an ExportError that names the Function, by both exporters."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function
from torch.onnx.symbolic_helper import parse_args

from ort_ops.errors import ExportError

from .functions import OnlyFirst, x
from .test_honest import BOTH, custom, exported, run


def planted(written: Callable[..., Any]) -> type[Function]:
    """Return a Function with this symbolic."""

    class Planted(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, k: float) -> Tensor:
            return x * k

        symbolic = staticmethod(written)

    return Planted


def raises(g: Any, x: Any, k: float) -> Any:
    return {}["planted"]


def takes_too_little(g: Any, x: Any) -> Any:
    return g.op("my::Planted", x)


@parse_args("f", "f")
def wants_a_number(g: Any, x: Any, k: float) -> Any:
    return g.op("my::Planted", k_f=k)


RAISED = {
    "any exception": (raises, KeyError, "'planted'"),
    "too few parameters": (takes_too_little, TypeError, "takes 2 positional arguments but 3 were given"),
    "a tensor as a number": (wants_a_number, RuntimeError, "Expected node type 'onnx::Constant'"),
    "a number as an input": (
        lambda g, x, k: g.op("my::Planted", x, k),
        TypeError,
        r"g.op\('my::Planted'\) is given a float \(2.5\) for input 1; expected a tensor",
    ),
    "a list as an input": (lambda g, x, k: g.op("my::Planted", [x, x]), TypeError, r"one by one \(\*xs\)"),
    "no suffix": (lambda g, x, k: g.op("my::Planted", x, k=k), ValueError, "Invalid attribute specifier 'k'"),
    "another suffix": (lambda g, x, k: g.op("my::Planted", x, k_q=k), ValueError, "specifier 'k_q'"),
    "another type": (
        lambda g, x, k: g.op("my::Planted", x, k_i=k),
        TypeError,
        r"g.op\('my::Planted'\) can't write k_i=2.5; expected an int",
    ),
}


@BOTH
@pytest.mark.parametrize(("symbolic", "kind", "says"), RAISED.values(), ids=RAISED)
def test_what_a_symbolic_raises_names_the_function(
    symbolic: Any, kind: type[Exception], says: str, dynamo: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    function = planted(symbolic)
    with pytest.raises(ExportError, match=rf"\.Planted: symbolic raised \w+: .*{says}") as raised:
        exported(lambda model, x: function.apply(x, 2.5), dynamo=dynamo)
    assert isinstance(raised.value.__cause__, kind)
    assert "\n" not in str(raised.value)
    assert "graph(" not in "".join(capfd.readouterr())


@BOTH
def test_a_symbolic_that_returns_no_value_of_the_graph(dynamo: bool) -> None:
    function = planted(lambda g, x, k: 3.0)
    with pytest.raises(
        ExportError, match=r"\.Planted: symbolic returned a float; expected what g.op returns"
    ):
        exported(lambda model, x: function.apply(x, 2.5), dynamo=dynamo)


@BOTH
def test_none_for_one_of_the_results_that_the_model_uses(dynamo: bool) -> None:
    says = r"\.OnlyFirst: symbolic returned None for a result that the model uses"
    with pytest.raises(ExportError, match=says):
        exported(lambda model, x: OnlyFirst.apply(x)[1], dynamo=dynamo)


def test_a_size_that_the_torchscript_exporter_traces_is_no_attribute() -> None:
    function = planted(lambda g, x, k: g.op("my::Planted", x, k_i=k))
    with pytest.raises(ExportError, match="k_i depends on the model's inputs, which an attribute can't"):
        exported(lambda model, x: function.apply(x, x.shape[0]), dynamo=False)
    several = planted(lambda g, x, k: g.op("my::Planted", x, k_i=[k, 2]))
    with pytest.raises(ExportError, match="k_i depends on the model's inputs, which an attribute can't"):
        exported(lambda model, x: several.apply(x, x.shape[0]), dynamo=False)
    program = exported(lambda model, x: function.apply(x, int(x.shape[0])), dynamo=False)
    assert custom(program) == ["my::Planted"]


@BOTH
def test_tensors_and_lists_are_inputs_and_attributes(dynamo: bool) -> None:
    def symbolic(g: Any, x: Any, k: float) -> Any:
        return g.op("my::Planted", x, torch.tensor([k]), None, ks_f=[k, 1.0], flag_i=True, t_t=torch.ones(2))

    function = planted(symbolic)
    program = exported(lambda model, x: function.apply(x, 2.5), dynamo=dynamo)
    assert custom(program) == ["my::Planted"]
    assert run(program, x(3, 4)).shape == (3, 4)


class Holder:
    def __init__(self, scale: Tensor) -> None:
        self.scale = scale


class Scaled(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, holder: Holder) -> Tensor:
        return x * holder.scale

    @staticmethod
    def symbolic(g: Any, x: Any, holder: Holder) -> Any:
        return g.op("my::Scaled", x, holder.scale)


def test_a_tensor_inside_of_an_object_is_no_input_of_a_node() -> None:
    says = r"Scaled: symbolic raised .* for input 1 that apply isn't given as an argument"
    with pytest.raises(ExportError, match=says):
        exported(lambda model, x: Scaled.apply(x, Holder(x.sum(0))))
    with pytest.raises(ExportError, match=r"Scaled .* a tensor inside of an object"):
        exported(lambda model, x: Scaled.apply(x, Holder(x.sum(0))), dynamo=False)


class Positive(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x > 0

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Positive", x).setType(x.type())


@BOTH
def test_another_type_than_forwards_is_refused(dynamo: bool) -> None:
    with pytest.raises(ExportError, match=r"says FLOAT of result 0, and forward gives BOOL; .*torch.bool"):
        exported(lambda model, x: Positive.apply(x), dynamo=dynamo)
