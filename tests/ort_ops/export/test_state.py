"""What torch looks like after an export is what it looked like before, whatever happened inside."""

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from onnx_ir.passes import common as passes
from torch import Tensor, nn
from torch.autograd import Function
from torch.export import ExportedProgram
from torch.onnx._internal.exporter import _compat
from torch.onnx._internal.torchscript_exporter import utils as torchscript_utils
from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

from ort_ops.errors import ExportError
from ort_ops.export import Program, export, keep_functions
from ort_ops.export.operator import CALL
from ort_ops.export.quiet import quiet

from .functions import Calls, Twice, x


def all_functions(base: type = Function) -> Iterator[type]:
    for function in base.__subclasses__():
        yield function
        yield from all_functions(function)


def state() -> dict[str, Any]:
    """Return everything that an export replaces or sets while it runs."""
    replaced = {
        f"{owner.__name__}.{name}": getattr(owner, name)
        for owner, name in (
            (torch.onnx, "export"),
            (torch.export, "export"),
            (ExportedProgram, "run_decompositions"),
            (_compat, "export_compat"),
            (torchscript_utils, "export"),
            (passes, "DeduplicateInitializersPass"),
        )
    }
    return {
        **replaced,
        **{
            f"{f.__module__}.{f.__qualname__} {id(f)}": dict(f.__dict__) for f in [Function, *all_functions()]
        },
        # torch.onnx.export itself leaves the opset of the last export.
        "GLOBALS": {name: value for name, value in vars(GLOBALS).items() if "opset" not in name},
        "gradients": torch.is_grad_enabled(),
        "random": torch.get_rng_state().tolist(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "tracing": torch._C._get_tracing_state(),
        "kept when unused": CALL in torch.fx.node._side_effectful_functions,
        "warnings": list(warnings.filters),
    }


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in before if name not in after or before[name] != after[name]]


def twice() -> nn.Module:
    return Calls(lambda model, x: Twice.apply(x)).eval()


def broken(where: str) -> nn.Module:
    """Return a model that fails in its forward, in the Function's, in its symbolic, or late in the export."""

    class Broken(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if where == "forward":
                raise ValueError("planted")
            return x * 2

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            if where == "symbolic":
                raise ValueError("planted")
            return None if where == "no result" else g.op("my::Broken", x)

    def call(model: Calls, x: Tensor) -> Tensor:
        if where == "model":
            raise ValueError("planted")
        return Broken.apply(Twice.apply(x))

    return Calls(call).eval()


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("canonical", [True, False])
def test_torch_is_as_before_after_an_export(canonical: bool, dynamo: bool) -> None:
    before = state()
    export(twice(), (x(3, 4),), dynamo=dynamo, canonical=canonical, verbose=False)
    assert differing(before, state()) == []


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_model_that_draws_random_numbers_while_it_is_exported_leaves_them_as_they_were(
    dynamo: bool,
) -> None:
    before = state()
    export(Calls(lambda model, x: Twice.apply(x + torch.rand_like(x))).eval(), (x(3, 4),), dynamo=dynamo)
    assert differing(before, state()) == []


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("where", ["model", "forward", "symbolic", "no result"])
def test_torch_is_as_before_after_a_failure(where: str, dynamo: bool) -> None:
    model = broken(where)
    before = state()
    with pytest.raises(Exception, match=r"planted|None"):
        export(model, (x(3, 4),), dynamo=dynamo, canonical=True, verbose=False)
    assert differing(before, state()) == []
    assert export(twice(), (x(3, 4),), dynamo=dynamo, verbose=False).calls


def test_a_change_that_is_left_behind_is_seen() -> None:
    before = state()
    own = Twice.forward
    try:
        Twice.forward = staticmethod(lambda ctx, x: x)  # type: ignore[method-assign,assignment]
        torch.rand(1)
        assert set(differing(before, state())) == {
            f"{Twice.__module__}.{Twice.__qualname__} {id(Twice)}",
            "random",
        }
    finally:
        Twice.forward = staticmethod(own)  # type: ignore[method-assign,assignment]


def test_a_function_trains_after_an_export() -> None:
    class Cubed(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0] * 3 * ctx.saved_tensors[0] ** 2

        @staticmethod
        def symbolic(g: Any, x: Any) -> Any:
            return g.op("my::Cubed", x)

    export(Calls(lambda model, x: Cubed.apply(x)).eval(), (x(3),), verbose=False)
    given = x(3).requires_grad_()
    Cubed.apply(given).sum().backward()
    torch.testing.assert_close(given.grad, 3 * x(3) ** 2, rtol=0, atol=0)


def test_exports_in_a_row_do_not_add_up() -> None:
    programs = [export(twice(), (x(3, 4),), verbose=False) for _ in range(3)]
    texts = {program.model_proto.SerializeToString() for program in programs}
    assert len(texts) == 1
    assert [len(program.calls) for program in programs] == [1, 1, 1]


def run(program: Program, *inputs: Tensor) -> Any:
    session = program.session(["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]
    return session.run(None, {name: t.numpy() for name, t in zip(names, inputs, strict=True)})[0]


def test_exports_in_threads_do_not_meet() -> None:
    programs: dict[int, Program] = {}
    errors: list[BaseException] = []

    def work(count: int) -> None:
        def call(model: Calls, x: Tensor) -> Tensor:
            for _ in range(count):
                x = Twice.apply(x)
            return x

        try:
            programs[count] = export(Calls(call).eval(), (x(3, 4),), dynamo=count % 2 == 0, verbose=False)
        except BaseException as error:
            errors.append(error)

    before = state()
    threads = [threading.Thread(target=work, args=(count,)) for count in range(1, 5)]
    with quiet():  # warnings are silenced for all threads at once
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    assert {count: len(program.calls) for count, program in programs.items()} == {1: 1, 2: 2, 3: 3, 4: 4}
    for count, program in programs.items():
        np.testing.assert_array_equal(run(program, x(3, 4)), x(3, 4).numpy() * 2**count)
    assert differing(before, state()) == []


def test_another_thread_may_call_functions_meanwhile() -> None:
    stop = threading.Event()
    wrong: list[Any] = []

    def work() -> None:
        while not stop.is_set():
            given = x(3).requires_grad_()
            y = Twice.apply(given)
            if not torch.equal(y, x(3) * 2):
                wrong.append(y)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        programs = [export(twice(), (x(3, 4),), dynamo=dynamo, verbose=False) for dynamo in (True, False)]
    finally:
        stop.set()
        thread.join()
    assert not wrong
    assert [len(program.calls) for program in programs] == [1, 1]


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_thread_inside_of_a_block_exports_by_itself(dynamo: bool) -> None:
    programs: list[Any] = []

    def work() -> None:
        with quiet():
            target = None if dynamo else io.BytesIO()
            programs.append(torch.onnx.export(twice(), (x(3, 4),), target, dynamo=dynamo, verbose=False))
        programs.append(export(twice(), (x(3, 4),), verbose=False))

    with keep_functions() as kept:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(300)
        assert not thread.is_alive()
        export(twice(), (x(3, 4),), verbose=False)
    assert kept.programs == []
    assert not isinstance(programs[0], Program)  # the block is for the thread that entered it
    assert len(programs[1].calls) == 1


class Trains(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2 * ctx.saved_tensors[0]

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("my::Trains", x)


def test_a_model_compiled_inside_of_a_block_trains() -> None:
    compiled = torch.compile(lambda x: Trains.apply(x).sum(), backend="aot_eager")
    for where in (keep_functions, contextlib.nullcontext):
        given = x(3).requires_grad_()
        with where(), quiet():
            compiled(given).backward()
        assert given.grad is not None
        torch.testing.assert_close(given.grad, 2 * x(3), rtol=0, atol=0)


def test_an_exported_program_keeps_its_functions() -> None:
    with keep_functions() as kept, quiet():
        captured = torch.export.export(twice(), (x(3, 4),), strict=False)
        torch.onnx.export(captured, (), None, verbose=False)
    (program,) = kept.programs
    assert len(program.calls) == 1
    np.testing.assert_array_equal(run(program, x(3, 4)), x(3, 4).numpy() * 2)
    torch.testing.assert_close(captured.module()(x(3, 4)), x(3, 4) * 2, rtol=0, atol=0)


def test_a_program_of_an_earlier_block_is_kept_too() -> None:
    with keep_functions():
        captured = torch.export.export(twice(), (x(3, 4),), strict=False)
    program = export(captured, (x(3, 4),), verbose=False)
    assert len(program.calls) == 1
    np.testing.assert_array_equal(run(program, x(3, 4)), x(3, 4).numpy() * 2)


@pytest.mark.parametrize("dynamo", [True, False])
def test_custom_opsets_of_an_export_inside_are_kept(dynamo: bool) -> None:
    with keep_functions() as kept, quiet():
        torch.onnx.export(
            twice(), (x(3, 4),), io.BytesIO(), dynamo=dynamo, verbose=False, custom_opsets={"my": 4}
        )
    assert kept.programs[0].model.opset_imports["my"] == 4


@pytest.mark.parametrize("dynamo", [True, False])
def test_what_an_exporter_raises_has_an_end(dynamo: bool) -> None:
    def fail(model: Calls, x: Tensor) -> Tensor:
        raise ValueError("planted")

    with pytest.raises(Exception, match="planted") as caught:
        export(Calls(fail).eval(), (x(3, 4),), dynamo=dynamo, verbose=False)
    seen: list[BaseException] = []
    cause: BaseException | None = caught.value
    while cause is not None:
        assert not any(cause is other for other in seen)
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    assert not any(isinstance(error, ExportError) for error in seen)


@pytest.mark.parametrize("wrap", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("dynamo", [True, False])
def test_an_export_inside_a_mode_leaves_it_on(wrap: Callable[[], Any], dynamo: bool) -> None:
    with wrap():
        before = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        program = export(twice(), (torch.ones(3, 4),), dynamo=dynamo, verbose=False)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert len(program.calls) == 1
