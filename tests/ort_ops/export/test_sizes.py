"""A forward that computes in Python with a size that may vary is exported for any size, or named."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import Function

from ort_ops.errors import ExportError

from .functions import x
from .test_honest import custom, exported, run

ROW = x(6)


def computing(compute: Callable[[Tensor], Tensor]) -> type[Function]:
    """Return a Function that computes this."""

    class Sized(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return compute(x)

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("my::Sized", x)

    return Sized


ANY_SIZE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a root": (lambda x: x / math.sqrt(x.shape[-1]), "[b,n]"),
    "a logarithm": (lambda x: x * math.log(x.shape[-1]), "[b,n]"),
    "a float": (lambda x: x * float(x.shape[-1]), "[b,n]"),
    "a loop": (lambda x: torch.stack([x[:, i] for i in range(x.shape[1] - 1)], 1), "[b,n - 1]"),
    "unbind": (lambda x: torch.stack(x.unbind(1)).sum(0), "[b]"),
    "an int": (lambda x: x.new_ones(2 * int(x.shape[1]) + 1), "[2*n + 1]"),
    # What torch itself can trace has the shapes that it finds.
    "halves": (lambda x: x.chunk(2, -1)[0] * 1, "[b,((n + 1)//2)]"),
    "a remainder": (lambda x: x * (2 if x.shape[-1] % 2 == 0 else 3), "[b,n]"),
}


@pytest.mark.parametrize("dim", [str, torch.export.Dim])
@pytest.mark.parametrize(("compute", "shape"), ANY_SIZE.values(), ids=ANY_SIZE)
def test_a_size_that_forward_computes_with_stays_free(
    compute: Callable[[Tensor], Tensor], shape: str, dim: Any
) -> None:
    function = computing(compute)
    free = {0: dim("b"), 1: dim("n")}
    program = exported(lambda model, x: function.apply(x), x(4, 6), dynamic_shapes=(free,))
    assert custom(program) == ["my::Sized"]
    assert [str(value.shape) for value in program.model.graph.inputs] == ["[b,n]"]
    (output,) = program.model.graph.outputs
    if dim is str or "//" not in shape:  # torch solves no equation of a half: it is found by trying
        assert str(output.shape) == shape
    for given in (x(4, 6), x(1, 2), x(5, 8)):
        np.testing.assert_array_equal(run(program, given), compute(given).numpy())


ONE_SIZE: dict[str, Callable[[Tensor], Tensor]] = {
    "a row of six": lambda x: x + ROW,
    "a row of six and a root": lambda x: (x + ROW) / math.sqrt(x.shape[-1]),
    "a case of its own": lambda x: x * 2 if x.shape[-1] == 6 else x,
}
SAYS = r"\.Sized: .*holds only where dimension 1 of its tensor 0 is 6, and that is to vary; .* fakes="


@pytest.mark.parametrize("free", ["n", torch.export.Dim("n"), torch.export.Dim.DYNAMIC], ids=str)
@pytest.mark.parametrize("compute", ONE_SIZE.values(), ids=ONE_SIZE)
def test_a_forward_for_one_size_is_named_where_the_size_is_to_vary(
    compute: Callable[[Tensor], Tensor], free: Any
) -> None:
    function = computing(compute)
    with pytest.raises(ExportError, match=SAYS):
        exported(lambda model, x: function.apply(x), x(4, 6), dynamic_shapes=({0: "b", 1: free},))
    program = exported(lambda model, x: function.apply(x), x(4, 6), dynamic_shapes=({0: "b"},))
    np.testing.assert_array_equal(run(program, x(5, 6)), compute(x(5, 6)).numpy())


def test_fakes_give_shapes_where_torch_takes_a_size_for_a_number() -> None:
    function = computing(ONE_SIZE["a case of its own"])
    program = exported(
        lambda model, x: function.apply(x),
        x(4, 6),
        dynamic_shapes=({0: "b", 1: "n"},),
        fakes={function: torch.empty_like},
    )
    for given in (x(4, 6), x(5, 8)):
        np.testing.assert_array_equal(run(program, given), given.numpy() * (2 if given.shape[1] == 6 else 1))


def test_a_model_that_fixes_a_size_by_itself_is_not_blamed_on_a_function() -> None:
    function = computing(lambda x: x * 2)
    with pytest.raises(Exception, match=r"static|Constraints violated") as raised:
        exported(lambda model, x: function.apply(x + ROW), x(4, 6), dynamic_shapes=({0: "b", 1: "n"},))
    assert "Sized" not in str(raised.value)
