"""PyTorch's exporters while they keep Functions: what stands in the place of the ways into them.

Everything is put back afterwards, whatever happens.
"""

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import onnx_ir as ir
import torch
from torch import Tensor
from torch.autograd import Function
from torch.export import ExportedProgram
from torch.onnx._internal.exporter import _compat
from torch.onnx._internal.torchscript_exporter import utils as torchscript_utils
from torch.utils import _pytree as pytree

from ort_ops.errors import ExportError

from .calls import Call, find_call, forwards_tried_out
from .canonical import initializers_apart, parameters_of
from .capture import functions_shown
from .exactly import constants_matched_exactly
from .files import read, save, scratch, write
from .finish import finish
from .frozen import refuse_frozen
from .fused import narrow_weights
from .inputs import inputs_apart
from .literals import put_right
from .lost import (
    LostValueError,
    fixed_size,
    is_unused,
    refuse_lost,
    refuse_traced_through,
    refuse_untraceable,
    spoilt,
    transformed,
)
from .node import kept_operators, nodes_kept, translations
from .operator import CALL, calls_in
from .options import Options
from .own import is_running_own
from .program import Program
from .quiet import graphs_unsaid, registration_quiet
from .record import Record
from .running import random_numbers_as_before
from .torchscript import Writing
from .translate import translation
from .translations import translations_kept

__all__ = ["Kept", "keeping", "one_at_a_time"]


@contextlib.contextmanager
def keeping(options: Options) -> Iterator["Kept"]:
    """Have PyTorch's exporters keep Functions in this thread until the end."""
    kept = Kept(options)
    with _replacements.held():
        _active().append(kept)
        try:
            yield kept
        finally:
            _active().pop()


class Kept:
    """What ``keep_functions`` gives.

    ``programs`` has a Program for each export made inside, in order; ``made`` counts the calls of each
    Function that were made outside of exports: what a model does when it isn't exported.
    """

    def __init__(self, options: Options) -> None:
        self.programs: list[Program] = []
        self.made: Counter[type[Function]] = Counter()
        self._options = options
        self._asked: Mapping[str, int] = {}
        self._record = Record()

    @contextlib.contextmanager
    def _recording(self, model: Any) -> Iterator[Record]:
        before, self._record = self._record, Record(exporting=True, parameters=parameters_of(model))
        try:
            yield self._record
        finally:
            self._record = before

    def _finish(
        self, model: ir.Model, program: ExportedProgram | None, record: Record, opsets: Mapping[str, int]
    ) -> Program:
        calls, moved = finish(model, record, self._options, opsets)
        functions = tuple({call.function for call in record.calls})
        self.programs.append(Program(model, program, calls, moved, functions))
        return self.programs[-1]


class _Host:
    """Passes what happens on to the innermost ``keep_functions``."""

    def captures(self) -> bool:
        """Tell whether a program is being captured in this thread."""
        return bool(_active()) and _active()[-1]._record.capturing

    def keeps(self) -> bool:
        """Tell whether Functions are kept in this thread."""
        return bool(_active())

    def see(self, call: Call) -> None:
        _active()[-1]._record.calls.append(call)

    def fake(self, function: type[Function]) -> Callable[..., Any] | None:
        return _active()[-1]._options.fakes.get(function)

    def writing(self) -> Writing | None:
        return _active()[-1]._record.writing if _active() else None

    def computed(self, function: type[Function], result: Any) -> Any:
        """Return a call's result, spoilt where it is to be seen whether anything depends on it."""
        kept = _active()[-1]
        if not kept._record.exporting:
            kept.made[function] += 1
        kept._record.computed += 1
        if kept._record.computed - 1 != kept._record.spoilt:
            return result
        return pytree.tree_map_only(Tensor, spoilt, result)


class _Replacements:
    """What stands in the place of the ways into the exporters, for as long as any thread is inside."""

    def __init__(self) -> None:
        self._users = 0
        self._undo = contextlib.ExitStack()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with one_at_a_time:
            if not self._users:
                with contextlib.ExitStack() as undo:  # what fails half-way is undone
                    _enter(undo)
                    self._undo = undo.pop_all()
            self._users += 1
        try:
            yield
        finally:
            with one_at_a_time:
                self._users -= 1
                if not self._users:
                    self._undo.close()


def _enter(undo: contextlib.ExitStack) -> None:
    undo.enter_context(functions_shown(_host))
    undo.enter_context(nodes_kept())
    undo.enter_context(translations_kept())
    undo.enter_context(constants_matched_exactly())
    _replace(undo, torch.onnx, "export", _export_asked)
    _replace(undo, torch.export, "export", _capture)
    _replace(undo, ExportedProgram, "run_decompositions", _decompose)
    _replace(undo, _compat, "export_compat", _export_captured)
    _replace(undo, torchscript_utils, "export", _export_traced)


def _active() -> list[Kept]:
    """Return what this thread is inside of, the innermost last."""
    if not hasattr(_inside, "kept"):
        _inside.kept = []
    found: list[Kept] = _inside.kept
    return found


_host = _Host()
_inside = threading.local()
_replacements = _Replacements()
one_at_a_time = threading.RLock()
"""Held by the thread that exports: PyTorch's exporters keep what they do in globals."""


def _replace(undo: contextlib.ExitStack, owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Put ``replacement`` in the place of a function; it is given the original first."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*arguments: Any, **keywords: Any) -> Any:
        if is_running_own() or not _active():  # a function body is derived; another thread's export
            return original(*arguments, **keywords)
        with one_at_a_time:
            return replacement(original, *arguments, **keywords)

    setattr(owner, name, replaced)
    undo.callback(setattr, owner, name, original)


def _export_asked(original: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Stand in for torch.onnx.export: note custom_opsets, which it doesn't pass to the newer exporter.

    Random numbers may be drawn: it runs some models, and Functions are run on samples of ours.
    """
    kept = _active()[-1]
    before, kept._asked = kept._asked, keywords.get("custom_opsets") or {}
    try:
        with random_numbers_as_before():
            return original(*arguments, **keywords)
    finally:
        kept._asked = before


def _capture(
    original: Callable[..., Any], mod: Any, args: Any, kwargs: Any = None, **options: Any
) -> ExportedProgram:
    """Stand in for torch.export.export: see that each call is in the program that it returns."""
    record = _active()[-1]._record
    if record.refused is not None:
        raise record.refused
    before = len(record.calls)
    outer, record.capturing = record.capturing, True
    try:
        # With gradients Dynamo, which traces the branches of torch.cond, wraps a Function in its own way.
        with torch.no_grad():
            args, kwargs = inputs_apart(mod, (args, kwargs), options.get("dynamic_shapes"))
            program = _capture_any_size(original, mod, args, kwargs, **options)
        if torch.is_grad_enabled() and _returns_with_gradients(program):
            again = len(record.calls)
            program = original(mod, args, kwargs, **options)
            del record.calls[before:again]
    except Exception as error:
        seen = record.calls[before:]
        del record.calls[before:]  # the exporter tries again in another way
        if record.exporting and isinstance(error, torch._dynamo.exc.UserError | ValueError):
            record.refused = fixed_size(seen)
        if record.exporting and record.refused is None:
            record.refused = transformed(error)
        if record.refused is not None:
            raise record.refused from error
        if record.exporting and isinstance(error, ExportError):
            record.refused = error
        raise
    finally:
        record.capturing = outer
    there = {key: find_call(key) for key in calls_in(program)}
    traced = {call.key: call for call in record.calls[before:]}
    refuse_lost([call for key, call in traced.items() if key not in there], "torch.export.export left it out")
    record.calls += [call for key, call in there.items() if key not in traced]  # of a program's module
    program.graph_module.meta["ort_ops.calls"] = list(there.values())  # they live as long
    return program


def _capture_any_size(original: Callable[..., Any], *arguments: Any, **options: Any) -> ExportedProgram:
    """Capture a program; where what forwards do with sizes is more than torch can solve, without that.

    Else the exporter would capture it with the numbers that torch suggests instead.
    """
    calls = _active()[-1]._record.calls
    before = len(calls)
    try:
        program: ExportedProgram = original(*arguments, **options)
    except torch._dynamo.exc.UserError:
        if len(calls) == before or fixed_size(calls[before:]) is not None:
            raise
        traced = calls[before:]
        del calls[before:]
        try:
            with forwards_tried_out():
                return cast(ExportedProgram, original(*arguments, **options))
        except torch._dynamo.exc.UserError:
            calls[before:] = traced
        raise
    return program


def _returns_with_gradients(program: ExportedProgram) -> bool:
    """Tell whether a result is of a region that turns gradients on: PyTorch's exporter fails there."""
    region = torch.ops.higher_order.wrap_with_set_grad_enabled
    results = program.graph.output_node().all_input_nodes
    makers = (source for result in results for source in (result, *result.all_input_nodes))
    return any(maker.target is region for maker in makers)


def _decompose(original: Callable[..., Any], *arguments: Any, **keywords: Any) -> ExportedProgram:
    """Stand in for ExportedProgram.run_decompositions, whose result the exporter translates."""
    program: ExportedProgram = original(*arguments, **keywords)
    _active()[-1]._record.program = program
    return program


def _export_captured(
    original: Callable[..., Any], model: Any, args: Any, f: Any = None, **options: Any
) -> Program:
    """Stand in for the newer exporter's way into it."""
    kept = _active()[-1]
    with kept._recording(model) as record:
        if isinstance(model, ExportedProgram):
            if kept._options.functions != "inline":
                refuse_traced_through(model)
            record.calls += [find_call(key) for key in calls_in(model)]
        own = {CALL: translation(record)}
        table = {**(options.pop("custom_translation_table", None) or {}), **translations(), **own}
        try:
            with initializers_apart(kept._options.canonical), registration_quiet():
                program = original(model, args, None, custom_translation_table=table, **options)
        except Exception as error:
            _raise_reason(error)
            raise
        lost = [call for call in record.calls if call.number not in record.written]
        refuse_lost(lost, "the exporter didn't translate it")
        narrow_weights(program.model)
        put_right(program.model, program.exported_program)
        opsets = {**kept._options.custom_opsets, **kept._asked}
        result = kept._finish(program.model, program.exported_program, record, opsets)
    save(result, f, options)
    return result


def _export_traced(original: Callable[..., Any], model: Any, args: Any, f: Any, **options: Any) -> None:
    """Stand in for the TorchScript exporter's way into it.

    It traces into forwards, for those without a symbolic, and loses values there; where all Functions have
    one, it can do without.
    """
    with contextlib.nullcontext() if options.get("verbose") else graphs_unsaid():
        try:
            _export_traced_once(original, model, args, f, **options)
            return
        except LostValueError as error:
            if options.get("autograd_inlining") is False:
                raise
            lost = error
        # Not in there, where what it raises would come of that error.
        try:
            _export_traced_once(original, model, args, f, **{**options, "autograd_inlining": False})
        except torch.onnx.errors.UnsupportedOperatorError:
            raise
        except Exception as error:  # as of a Function without a symbolic
            reason = str(error).partition("\n")[0]
            raise ExportError(f"{lost}; without tracing into forwards: {reason}") from lost.__cause__


def _export_traced_once(original: Callable[..., Any], model: Any, args: Any, f: Any, **options: Any) -> None:
    kept = _active()[-1]
    canonical = kept._options.canonical
    args, options["kwargs"] = inputs_apart(model, (args, options.get("kwargs")))
    sizes = options.get("input_names"), options.get("dynamic_axes")
    refuse_frozen(kept_operators(), model, args, options["kwargs"] or {}, *sizes)
    with kept._recording(model) as record, scratch(model, f) as target:
        record.writing = Writing(record.calls, record.note, all_types=canonical)
        as_inputs = options.pop("keep_initializers_as_inputs", None)
        try:
            # Initializers that are inputs are not merged, and keep their names.
            to: Any = str(target) if isinstance(target, Path) else target
            original(model, args, to, keep_initializers_as_inputs=canonical or as_inputs, **options)
        except Exception as error:
            _raise_reason(record.writing.failed or error)
            refuse_untraceable(record.calls, error)
            raise
        if record.writing.failed is not None:
            raise record.writing.failed
        record.writing.refuse_mixed()
        record.writing = None
        lost = [call for call in record.calls if call.number not in record.written]
        if lost and not is_unused(lost, record, model, args, options.get("kwargs") or {}):
            refuse_lost(lost, "the TorchScript exporter left it out")
        opsets = {**kept._options.custom_opsets, **(options.get("custom_opsets") or {})}
        written = read(target)
        if canonical and not as_inputs:
            inputs = [value for value in written.graph.inputs if not value.is_initializer()]
            written.graph.inputs[:] = inputs
        result = kept._finish(written, None, record, opsets)
        write(result, f)


def _raise_reason(error: Exception) -> None:
    """Raise the ExportError of ours that is behind what an exporter raises, if any, with its own cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ExportError):
            raise ExportError(str(cause)) from cause.__cause__ or error
        cause = cause.__cause__ or cause.__context__
