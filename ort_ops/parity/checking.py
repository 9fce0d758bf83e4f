"""Two questions about a model and its file: is the file right, and does the runtime compute it."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ort_ops.errors import ParityError
from ort_ops.selection import Prefer

from .evaluated import evaluate, notes_of, versions
from .exact import ExactFile
from .export_side import ExportSide
from .report import Report, Row, unless_empty, worst_rows
from .runs import Setting, make_run, settings
from .runtime_side import Expectations, RuntimeSide, refused
from .sample import Sample
from .subject import File, Subject

__all__ = ["Rule", "check"]

Rule = tuple[float, float]


def check(
    model: nn.Module,
    file: File,
    inputs: Any = None,
    providers: Sequence[str] = ("cpu",),
    *,
    seeds: int = 3,
    functions: Iterable[type] | None = None,
    trust: Iterable[str] = (),
    libraries: Sequence[str | os.PathLike[str]] = (),
    prefer: Prefer = "kernel",
    levels: Sequence[str | None] = (None,),
    threads: Sequence[int | None] = (None,),
    ranges: Mapping[str, tuple[float, float]] | None = None,
    dims: Mapping[str, int] | None = None,
    rule: Rule | None = None,
    on_step: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Compare a model with its file, and runs of the file with the file.

    model: in evaluation mode; it is run as it is, and a copy of it in float64.
    file: the path, or the model in memory, or what an export gave.
    inputs: the model's arguments: a tuple of them, or the one by itself, or a dictionary by the names of
        forward's parameters or of the file's inputs; or a list of these. Arrays of NumPy's are taken for
        tensors. They are the file's inputs by the names of forward's parameters where it has these, else in
        its order. None makes some from what the file says of its inputs, ``seeds`` times: with other
        values and sizes of dimensions.
    providers: ``"cpu"``, ``"cuda"``, ``"cuda:use_tf32=0"``.
    levels, threads: run at each of these optimisation levels (``LEVELS``), by each number of threads; None is
        ONNX Runtime's default.
    functions, trust, prefer: who runs custom nodes, as for ``ort_ops.InferenceSession``; a Function computes
        its nodes in float64, too. One that the model calls does so without being named, where the file has no
        function body; it runs none.
    libraries: custom operator libraries for the sessions.
    ranges, dims: for inputs that are made: the least and the largest value by the input's name, and sizes of
        symbolic dimensions.
    rule: (atol, rtol): judge runs by this rule against PyTorch's run instead.
    on_step: called before each step with its number, how many there are, and what it does.

    *Export*: the file and the model are both evaluated in float64, casts in either lifted; they may differ by
    float64's own rounding, and by what the rounding of constants in the file explains that are no weights of
    the model. *Runtime*: a run may be off the file in float64 by four times what PyTorch's own run is off,
    absolutely and as a share of an element's size (where PyTorch turned at a step, at that element alone),
    and where the bound of the arithmetic explains it by four roundings of most elements; what is further off
    is less precise within that bound, and wrong beyond it. Of a session that can't be made, and of a sample
    over which ONNX Runtime fails, nothing can be said.
    Integers, booleans and strings are the same or not; NaN and infinities are compared by place.

    Raises ParityError where nothing can be compared: a model in training mode, no inputs, inputs that it
    doesn't take, a node that nothing can evaluate. ProviderError where a provider isn't there,
    RegistrationError for a library that can't be loaded, ValueError for another ``prefer``. What the model
    raises comes through.
    """
    asked = settings(providers, levels, threads)
    if rule is not None and not all(math.isfinite(each) and each >= 0 for each in rule):
        raise ParityError(f"rule={rule!r}; expected (atol, rtol), each a number that is 0 or more")
    subject = Subject(
        model,
        file,
        inputs,
        count=seeds,
        ranges=ranges,
        dims=dims,
        functions=functions,
        trust=trust,
        prefer=prefer,
    )
    tell = _Steps(len(subject.given) + 1 + len(asked), on_step)
    evaluated = evaluate(
        subject, on_sample=lambda number: tell(f"sample {number}, in float64 and by PyTorch")
    )
    samples = evaluated.samples
    tell("the file beside the model")
    export = ExportSide(subject, evaluated)
    judged = [export.judge(sample, number) for number, sample in enumerate(samples)]
    rows = worst_rows(judged)
    expectations = Expectations(subject.exact_file)
    for setting in asked:
        tell(f"a run on {setting}")
        try:
            run = make_run(subject.source, setting, libraries, subject.options)
        except ParityError as error:
            rows += refused(subject.exact_file, setting, error)
            continue
        runtime = RuntimeSide(expectations, run, rule)
        judged = [_judge(runtime, subject.exact_file, setting, *each) for each in enumerate(samples)]
        rows += worst_rows(judged)
    return Report(unless_empty(rows, subject.empty), tuple(notes_of(subject, evaluated)), versions())


def _judge(runtime: RuntimeSide, file: ExactFile, setting: Setting, number: int, sample: Sample) -> list[Row]:
    """Return a row for each output of a run; where it fails over the sample, the others are still judged."""
    try:
        return runtime.judge(sample, number)
    except ParityError as error:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in sample.feed.items())
        said = ParityError(f"sample {number}, {shapes}: {error}")
        return [replace(row, sample=number) for row in refused(file, setting, said)]


class _Steps:
    """Counts steps for who wants to show them."""

    def __init__(self, total: int, on_step: Callable[[int, int, str], None] | None) -> None:
        self._total, self._on_step, self._done = total, on_step, 0

    def __call__(self, what: str) -> None:
        if self._on_step is not None:
            self._on_step(self._done, self._total, what)
        self._done += 1
