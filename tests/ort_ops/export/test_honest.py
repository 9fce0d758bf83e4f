"""What an export can't do is an error that names the Function and says why; what it can is right."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.onnx._internal.torchscript_exporter import jit_utils
from torch.onnx._internal.torchscript_exporter import utils as torchscript_utils
from torch.utils.checkpoint import checkpoint

import ort_ops
from ort_ops.errors import ExportError
from ort_ops.export import Program, export
from ort_ops.export import keeping as exporter_module
from ort_ops.export.quiet import quiet
from tests.ort_ops.releases import TORCH

from .functions import Calls, MaybeBias, Scatter, Twice, x
from .test_nodes import all_nodes

BOTH = pytest.mark.parametrize("dynamo", [True, False])
CPU = ["CPUExecutionProvider"]


def exported(call: Callable[..., Any], *inputs: Tensor, dynamo: bool = True, **options: Any) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return export(Calls(call).eval(), inputs or (x(3, 4),), dynamo=dynamo, verbose=False, **options)


def custom(program: Program) -> list[str]:
    return [f"{n.domain}::{n.op_type}" for n in all_nodes(program.model_proto.graph) if n.domain == "my"]


def run(program: Program, *inputs: Tensor) -> Any:
    session = program.session(CPU)
    names = [argument.name for argument in session.get_inputs()]
    return session.run(None, {name: t.numpy() for name, t in zip(names, inputs, strict=True)})[0]


class OnceDifferentiable(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::OnceDifferentiable", x)


class WithoutGradients(Function):
    @staticmethod
    @torch.no_grad()
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::WithoutGradients", x)


class OfItsClass(Function):
    factor = 2

    @classmethod
    def forward(cls, ctx: Any, x: Tensor, by: float = 1.0) -> Tensor:  # type: ignore[override]
        return x * cls.factor * by

    @classmethod
    def symbolic(cls, g: Any, x: Any, by: float = 1.0) -> Any:
        return g.op("my::OfItsClass", x, by_f=by * cls.factor)


class Batched(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor) -> Any:
        return Batched.apply(x), in_dims[0]

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Batched", x)


class GeneratedRule(Batched):
    generate_vmap_rule = True
    vmap = Function.vmap

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::GeneratedRule", x)


@BOTH
@pytest.mark.parametrize(
    "function", [OnceDifferentiable, WithoutGradients, OfItsClass, Batched, GeneratedRule]
)
def test_any_form_of_function_is_kept(function: type[Function], dynamo: bool) -> None:
    program = exported(lambda model, x: function.apply(x), dynamo=dynamo)
    assert custom(program) == [f"my::{function.__name__}"]
    np.testing.assert_array_equal(run(program, x(3, 4)), x(3, 4).numpy() * 2)


@BOTH
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0,), (), (1, 1), (2, 3, 5, 7)], ids=str)
def test_any_shape(shape: tuple[int, ...], dynamo: bool) -> None:
    program = exported(lambda model, x: Twice.apply(x), x(*shape), dynamo=dynamo)
    assert custom(program) == ["my::Twice"]
    y = run(program, x(*shape))
    assert y.shape == shape
    np.testing.assert_array_equal(y, x(*shape).numpy() * 2)


# The TorchScript exporter by itself fails on the reentrant form with a weight: unordered_map::at.
@pytest.mark.parametrize(("reentrant", "dynamo"), [(True, True), (False, True), (False, False)])
def test_a_checkpointed_block_with_a_weight(reentrant: bool, dynamo: bool) -> None:
    def call(model: Calls, x: Tensor) -> Tensor:
        return checkpoint(lambda y: MaybeBias.apply(y, model.weight, None) + 1, x, use_reentrant=reentrant)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad", UserWarning)
        program = exported(call, dynamo=dynamo)
    assert custom(program) == ["my::MaybeBias"]
    weight = Calls(call).weight.detach()
    np.testing.assert_array_equal(run(program, x(3, 4)), (x(3, 4) * weight + 1).numpy())


@pytest.mark.skipif(TORCH < (2, 13), reason="torch 2.9 doesn't convert while_loop")
def test_a_loop_keeps_the_call_in_its_body() -> None:
    def call(model: Calls, x: Tensor) -> Tensor:
        results = torch.while_loop(
            lambda count, y: count < 3, lambda count, y: (count + 1, Twice.apply(y)), (torch.tensor(0), x)
        )
        return results[1]

    program = exported(call)
    assert custom(program) == ["my::Twice"]
    np.testing.assert_array_equal(run(program, x(3, 4)), x(3, 4).numpy() * 8)


def test_a_scan_keeps_the_call_in_its_body() -> None:
    def step(carry: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        y = Twice.apply(carry + row)
        return y, y.clone()

    program = exported(lambda model, x: scan(step, torch.zeros(4), x)[1])
    assert custom(program) == ["my::Twice"]
    carry, rows = torch.zeros(4), []
    for row in x(3, 4):
        carry = (carry + row) * 2
        rows.append(carry)
    np.testing.assert_array_equal(run(program, x(3, 4)), torch.stack(rows).numpy())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return MaybeBias.apply(x, self.first.weight[0], None) @ Twice.apply(self.second.weight)


@BOTH
def test_tied_weights_stay_one_initializer(dynamo: bool) -> None:
    model = Tied().eval()
    program = export(model, (x(3, 4),), dynamo=dynamo, verbose=False)
    assert sorted(custom(program)) == ["my::MaybeBias", "my::Twice"]
    (weight,) = [i for i in program.model_proto.graph.initializer if list(i.dims) == [4, 4]]
    assert weight.name in ("first.weight", "second.weight")
    with torch.no_grad():
        np.testing.assert_allclose(run(program, x(3, 4)), model(x(3, 4)).numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "dim", [torch.export.Dim.AUTO, torch.export.Dim.DYNAMIC, torch.export.Dim("batch")], ids=str
)
def test_a_dynamic_batch_runs_at_any_size(dim: Any) -> None:
    program = exported(lambda model, x: Twice.apply(x), dynamic_shapes=({0: dim},))
    session = program.session(CPU)
    (argument,) = session.get_inputs()
    assert isinstance(argument.shape[0], str)
    for rows in (0, 1, 5):
        (y,) = session.run(None, {argument.name: x(rows, 4).numpy()})
        np.testing.assert_array_equal(y, x(rows, 4).numpy() * 2)


class Branches(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.where(x.sum() > 0, x * 2, x * 3)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        positive = g.op("Greater", g.op("ReduceSum", x, keepdims_i=0), torch.tensor(0.0))
        y, blocks, _ = jit_utils.add_op_with_blocks(g, "If", positive, n_blocks=2)
        for block, name in zip(blocks, ("my::Then", "my::Else"), strict=True):
            torchscript_utils._add_output_to_block(block.block, block.op(name, x).setType(x.type()))
        return y


@BOTH
def test_custom_nodes_in_the_blocks_of_a_symbolic(dynamo: bool) -> None:
    program = exported(lambda model, x: Branches.apply(x), dynamo=dynamo)
    assert sorted(custom(program)) == ["my::Else", "my::Then"]
    (call,) = program.calls
    assert len(call.nodes) == 2
    assert "no one node stands for the call" in call.reason
    options = onnx.helper.make_opsetid("my", 1)
    assert options in program.model_proto.opset_import


class TimesArray(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, by: Any) -> Tensor:
        return x * torch.from_numpy(by)

    @staticmethod
    def symbolic(g: Any, x: Any, by: Any) -> Any:
        return g.op("my::TimesArray", x, by_t=torch.from_numpy(by))


@BOTH
def test_arrays_for_arguments_are_told_apart(dynamo: bool) -> None:
    arrays = [np.full(4, value, np.float32) for value in (2, 3, 5)]

    def call(model: Calls, x: Tensor) -> Tensor:
        TimesArray.apply(x, arrays[0])  # nothing reads it
        return TimesArray.apply(TimesArray.apply(x, arrays[1]), arrays[2])

    program = exported(call, dynamo=dynamo)
    values = [
        onnx.numpy_helper.to_array(node.attribute[0].t)[0]
        for node in program.model_proto.graph.node
        if node.domain == "my"
    ]
    assert values == [3, 5]
    assert [bool(call.nodes) for call in program.calls] == [False, True, True]


@BOTH
def test_inputs_made_in_inference_mode(dynamo: bool) -> None:
    with torch.inference_mode():
        given = x(3, 4) + 0
    program = exported(lambda model, x: Twice.apply(x), given, dynamo=dynamo)
    assert custom(program) == ["my::Twice"]


@pytest.mark.parametrize("transform", [torch.vmap, lambda f: torch.func.grad(lambda x: f(x).sum())])
def test_under_a_transform_of_torch_func_no_node_is_made_up(transform: Callable[..., Any]) -> None:
    with pytest.raises(ExportError, match=r"Batched is called under a transform of torch\.func"):
        exported(lambda model, x: transform(Batched.apply)(x))


class Batched(Function):
    """May be vmapped and differentiated by PyTorch."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * ctx.saved_tensors[0].cos()

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Batched", x)


class AsksForSizes(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, how: str) -> Tensor:
        if how == "pad":
            return nn.functional.pad(x, (1, 1))
        if how == "first":
            return x[:4]
        return x.reshape(int(x.shape[0]), 2, 2)

    @staticmethod
    def symbolic(g: Any, x: Any, how: str) -> Any:
        return g.op("my::AsksForSizes", x, how_s=how)


@pytest.mark.parametrize("how", ["pad", "int", "first"])
def test_the_torchscript_exporters_file_has_no_size_of_the_example_where_any_may_come(how: str) -> None:
    program = exported(
        lambda model, x: AsksForSizes.apply(x, how),
        x(6, 4),
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )
    (output,) = program.model.graph.outputs
    assert output.shape is None or not isinstance(output.shape[0], int)
    for size in (3, 5):
        assert run(program, x(size, 4)).shape[0] == (min(size, 4) if how == "first" else size)


def test_a_write_into_a_part_of_a_tensor_that_the_torchscript_exporter_loses_is_an_error() -> None:
    def call(model: Calls, x: Tensor) -> Tensor:
        y = x * 1
        Scatter.apply(y[:, :2], 5)
        return y * 2

    with pytest.raises(ExportError, match=r"1 calls of .*Scatter did not become nodes"):
        exported(call, dynamo=False)


def test_one_unused_call_of_many_is_found_without_trying_each() -> None:
    runs = 0

    def call(model: Calls, x: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        for _ in range(20):
            x = Twice.apply(x)
        Twice.apply(x[0])
        return x

    program = exported(call, dynamo=False)
    assert [bool(call.nodes) for call in program.calls] == [True] * 20 + [False]
    assert runs < 10


class WritesInSecret(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.mul_(2)
        return x + 1

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::WritesInSecret", x)


@BOTH
def test_a_forward_that_writes_into_what_it_does_not_return_is_an_error(dynamo: bool) -> None:
    def call(model: Calls, x: Tensor) -> Tensor:
        y = x * 1
        return WritesInSecret.apply(y) + y

    with pytest.raises(ExportError, match="forward writes into its tensor 0 and does not return it"):
        exported(call, dynamo=dynamo)


class Spectrum(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1j

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Spectrum", x)


@BOTH
@pytest.mark.parametrize("given", [x(3, 4), x(3, 4) + 1j], ids=["returned", "taken"])
def test_complex_numbers_are_refused_in_words(given: Tensor, dynamo: bool) -> None:
    with pytest.raises(
        ExportError, match=r"Spectrum: forward takes or returns torch.complex64, .*view_as_real"
    ):
        exported(lambda model, x: torch.view_as_real(Spectrum.apply(x)), given, dynamo=dynamo)


class ReturnsNone(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, None, Tensor]:
        return x * 2, None, x * 3

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        twice, thrice = g.op("my::ReturnsNone", x, outputs=2)
        return twice, None, thrice


def test_a_symbolic_may_return_none_where_forward_does() -> None:
    program = exported(lambda model, x: ReturnsNone.apply(x)[2])  # the TorchScript exporter fails on None
    assert custom(program) == ["my::ReturnsNone"]
    np.testing.assert_array_equal(run(program, x(3, 4)), x(3, 4).numpy() * 3)


def test_results_that_are_zero_matter_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    lose = torchscript_utils._model_to_graph

    def losing(*arguments: Any, **keywords: Any) -> Any:
        graph, *rest = lose(*arguments, **keywords)
        exporter_module._active()[-1]._record.written.clear()
        return (graph, *rest)

    monkeypatch.setattr(torchscript_utils, "_model_to_graph", losing)
    with pytest.raises(ExportError, match=r"1 calls of .*Twice did not become nodes"):
        exported(lambda model, x: Twice.apply(x), torch.zeros(3, 4), dynamo=False)


@pytest.mark.parametrize("strict", [True, False])
def test_a_program_that_was_captured_without_its_functions_is_refused(strict: bool) -> None:
    model = Calls(lambda model, x: MaybeBias.apply(OnceDifferentiable.apply(x), model.weight)).eval()
    with torch.no_grad(), quiet():
        captured = torch.export.export(model, (x(3, 4),), strict=strict)
    with pytest.raises(
        ExportError, match=r"computes through .*MaybeBias.*captured in a block of keep_functions"
    ):
        export(captured, (x(3, 4),), verbose=False)
    assert export(captured, (x(3, 4),), verbose=False, functions="inline").calls == ()


class TakesLists(Function):
    @staticmethod
    def forward(ctx: Any, tensors: list[Tensor], options: dict[str, Any]) -> tuple[Tensor, None, Tensor]:
        return tensors[0] * options["by"], None, tensors[1] + 1

    @staticmethod
    def symbolic(g: Any, tensors: list[Any], options: dict[str, Any]) -> Any:
        return g.op("my::TakesLists", *tensors, by_f=options["by"], outputs=2)


def test_lists_and_none_in_the_branches_of_a_condition() -> None:
    def branch(x: Tensor) -> Tensor:
        first, _, second = TakesLists.apply([x, x * 2], {"by": 3.0})
        return first + second

    program = exported(lambda model, x: torch.cond(x.sum() > 0, branch, lambda x: x * 1, (x,)), x(3, 4) + 3)
    assert custom(program) == ["my::TakesLists"]
    given = x(3, 4) + 3
    np.testing.assert_array_equal(run(program, given), (given * 3 + given * 2 + 1).numpy())


class TakesAny(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, others: Any, by: int = 1) -> Tensor:
        return x * by

    @staticmethod
    def symbolic(g: Any, x: Any, others: Any, by: int = 1) -> Any:
        return g.op("my::TakesAny", x, by_i=by)


@pytest.mark.parametrize("others", [lambda x: [x * 2], lambda x: (x,), lambda x: {"x": x}, lambda x: x.shape])
def test_the_torchscript_exporter_takes_no_tensors_in_lists(others: Callable[[Tensor], Any]) -> None:
    with pytest.raises(ExportError, match=r"TakesAny: the TorchScript exporter .* takes no tensors in lists"):
        exported(lambda model, x: TakesAny.apply(x, others(x)), dynamo=False)
    assert custom(exported(lambda model, x: TakesAny.apply(x, others(x)))) == ["my::TakesAny"]


class Unwritten(Function):
    """Has no symbolic: the exporters write what it computes with."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 3


def test_a_value_that_the_torchscript_exporter_loses_is_said_with_the_functions_that_it_may_be_of(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(
        ExportError, match=r"lost a value in a call of \S+\.Twice, \S+\.TakesAny .*multiplies by 1"
    ):
        exported(lambda model, x: Unwritten.apply(TakesAny.apply(Twice.apply(x), 0)), dynamo=False)
    assert "graph at exception" not in capfd.readouterr().out  # its pages, which nobody asked for
    assert custom(exported(lambda model, x: TakesAny.apply(x, 0, 2), dynamo=False)) == ["my::TakesAny"]


LOSING: dict[str, Callable[[Tensor], Tensor]] = {
    "adds 0": lambda x: x + 0,
    "multiplies by 1": lambda x: x * 1,
    "divides 1": lambda x: 1 / x,
}


@pytest.mark.parametrize("name", LOSING)
def test_what_the_torchscript_exporter_loses_it_needs_not_where_all_have_a_symbolic(name: str) -> None:
    class Loses(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return LOSING[name](x)

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("my::Loses", x)

    program = exported(lambda model, x: Loses.apply(x) + 1, dynamo=False, functions="attach")
    assert custom(program) == ["my::Loses"]
    assert [call.body for call in program.calls] == ["function"]
    np.testing.assert_array_equal(run(program, x(3, 4)), (LOSING[name](x(3, 4)) + 1).numpy())


@pytest.mark.parametrize("beside", [None, 3])
def test_the_torchscript_exporter_takes_no_none_beside_tensors(beside: Any) -> None:
    class Beside(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            return x * 2, beside

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("my::Beside", x)

    with pytest.raises(ExportError, match=r"Beside: the TorchScript exporter .* takes no None or number"):
        exported(lambda model, x: Beside.apply(x)[0], dynamo=False)
    assert custom(exported(lambda model, x: Beside.apply(x)[0])) == ["my::Beside"]


INSIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "a number of a tensor": lambda x: x * x.abs().max().item(),
    "numbers of a tensor": lambda x: x * x.sum(0).tolist()[0],
    "vmap": lambda x: torch.vmap(lambda row: row / row.sum())(x),
    "grad": lambda x: torch.func.grad(lambda y: y.sin().sum())(x),
}


@pytest.mark.parametrize("name", INSIDE)
def test_what_a_forward_may_do_inside(name: str) -> None:
    class Inside(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return INSIDE[name](x)

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("my::Inside", x)

    program = exported(lambda model, x: Inside.apply(x) + 1, dynamic_shapes=({0: "b"},))
    assert custom(program) == ["my::Inside"]
    (output,) = program.model.graph.outputs
    assert str(output.shape) == "[b,4]"
    for given in (x(3, 4), x(5, 4)):
        np.testing.assert_allclose(run(program, given), (INSIDE[name](given) + 1).numpy(), rtol=1e-6)


@BOTH
def test_a_compiled_module_is_exported_as_what_it_was_made_of(dynamo: bool) -> None:
    compiled = torch.compile(Calls(lambda model, x: Twice.apply(x)).eval(), backend="eager")
    free = (
        {"dynamic_shapes": ({0: "n"},)} if dynamo else {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    )
    program = export(compiled, (x(3, 4),), dynamo=dynamo, verbose=False, **free)
    assert custom(program) == ["my::Twice"]
    np.testing.assert_array_equal(run(program, x(5, 4)), x(5, 4).numpy() * 2)


class WrongCount(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x * 3

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::WrongCount", x)


class NoValue(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return None


@BOTH
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (WrongCount, "WrongCount: symbolic returned 1 values for the 2 tensors that forward returns"),
        (NoValue, "NoValue: symbolic returned None for a result that the model uses"),
    ],
)
def test_a_symbolic_that_gives_too_little(function: type[Function], says: str, dynamo: bool) -> None:
    def call(model: Calls, x: Tensor) -> Any:
        return function.apply(x)

    with pytest.raises(ExportError, match=says):
        exported(call, dynamo=dynamo)


class Fails(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        raise ValueError("planted")

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Fails", x)


def test_a_forward_that_fails_is_named_and_tried_once() -> None:
    random = torch.get_rng_state()
    with pytest.raises(ExportError, match=r"Fails: forward runs neither on fake tensors .*planted.* fakes="):
        exported(lambda model, x: Fails.apply(x))
    assert torch.equal(random, torch.get_rng_state())


class WritesAndKeeps(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.add_(1)
        ctx.mark_dirty(x)
        return x * 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::WritesAndKeeps", x)


def test_a_forward_that_writes_into_what_it_does_not_return_is_refused() -> None:
    with pytest.raises(ExportError, match="WritesAndKeeps: forward writes into its tensor 0"):
        exported(lambda model, x: WritesAndKeeps.apply(x * 1))


@BOTH
def test_a_call_that_an_exporter_loses_is_an_error(dynamo: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the translation notes nothing, as when a call is lost between capture and file."""
    monkeypatch.setattr(exporter_module.Record, "note", lambda record, call, whole: None)
    with pytest.raises(ExportError, match=r"1 calls of .*Twice did not become nodes"):
        exported(lambda model, x: Twice.apply(x), dynamo=dynamo)


def test_a_call_that_the_capture_loses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "calls_in", lambda program: [])
    with pytest.raises(ExportError, match=r"1 calls of .*Twice did not become nodes: torch.export.export"):
        exported(lambda model, x: Twice.apply(x))


@BOTH
def test_a_file_without_its_functions_says_what_it_needs(dynamo: bool) -> None:
    program = exported(lambda model, x: Twice.apply(x), dynamo=dynamo)
    with pytest.raises(
        Exception,
        match=r"my::Twice, and nobody can run it: the file names .*Twice for it, which may run with",
    ):
        ort_ops.InferenceSession(program.model_proto.SerializeToString(), providers=CPU)


class GivesNone(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, scale: Tensor, mask: Tensor | None) -> Tensor:
        return x * scale

    @staticmethod
    def symbolic(g: Any, x: Any, bias: Any, scale: Any, mask: Any) -> Any:
        return g.op("my::GivesNone", x, bias, scale, mask)


@BOTH
def test_none_among_inputs_is_an_absent_input(dynamo: bool) -> None:
    program = exported(lambda model, x: GivesNone.apply(x, None, x, None), dynamo=dynamo)
    (node,) = [node for node in program.model.graph if node.domain == "my"]
    assert [value is not None for value in node.inputs] == [True, False, True]
