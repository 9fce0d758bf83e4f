"""``ort-ops check``: a model beside its file, and ONNX Runtime beside the file."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ort_ops import parity
from ort_ops.errors import OrtOpsError, ParityError
from ort_ops.parity.runs import of_runtime

from .arguments import check_provider, refuse_overwriting, with_weights
from .configured import Checked, read_config
from .console import complain, progress, say
from .options import (
    AllowReducedPrecision,
    Dims,
    Functions,
    Inputs,
    Json,
    Kernels,
    Libraries,
    Prefer,
    Providers,
    Ranges,
    Seeds,
    Trust,
    load_inputs,
    load_model,
    session_arguments,
)
from .report import print_report

__all__ = ["check"]


_WORST = (
    parity.ExitCode.WRONG,
    parity.ExitCode.COULD_NOT_RUN,
    parity.ExitCode.CANNOT_SAY,
    parity.ExitCode.EQUAL,
)


def check(
    file: Annotated[Path | None, typer.Argument(help="An ONNX file.")] = None,
    module: Annotated[
        str | None,
        typer.Option(help="pkg.module:name of the torch model, or of a function that returns it."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A file with a table [[model]] for each of several, these options its keys."),
    ] = None,
    provider: Providers = None,
    inputs: Inputs = None,
    seeds: Seeds = 3,
    range_: Ranges = None,
    dim: Dims = None,
    library: Libraries = None,
    kernels: Kernels = None,
    function: Functions = None,
    trust: Trust = None,
    prefer: Prefer = "kernel",
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Run at every optimisation level, by one and more threads.")
    ] = False,
    atol: Annotated[float | None, typer.Option(min=0, help="Judge runs by a plain rule.")] = None,
    rtol: Annotated[float | None, typer.Option(min=0, help="Judge runs by a plain rule.")] = None,
    allow_reduced_precision: AllowReducedPrecision = False,
    json_file: Json = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page there, with the nodes that locate looks at.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML there.")] = None,
) -> int:
    """Say whether a file computes what its model computes, and whether ONNX Runtime computes the file."""
    given: dict[str, Any] = {
        "provider": provider,
        "inputs": inputs,
        "seeds": seeds,
        "range": range_,
        "dim": dim,
        "library": library,
        "kernels": kernels,
        "function": function,
        "trust": trust,
        "prefer": prefer,
        "atol": atol,
        "rtol": rtol,
    }
    if (file is None, module is None) != ((config is not None,) * 2):
        raise typer.BadParameter("expected FILE and --module, or --config alone")
    if config is not None:
        if html is not None or json_file is not None:
            raise typer.BadParameter("--html and --json are for one model; --junit holds several")
        models = list(read_config(config))
    else:
        assert file is not None
        assert module is not None
        models = [Checked(file, module)]
    reads = [config, inputs, *(library or ())]
    for checked in models:
        reads += [
            *with_weights(checked.file),
            checked.options.get("inputs"),
            *(checked.options.get("library") or ()),
        ]
    refuse_overwriting([json_file, html, junit], reads)
    reports: dict[str, parity.Report] = {}
    unchecked: dict[str, str] = {}
    for number, checked in enumerate(models, 1):
        name = str(checked.file)
        name = f"{name} ({number})" if name in reports or name in unchecked else name
        if len(models) > 1:
            say(name, "bold")
        options = {**given, **checked.options}
        try:
            report = _check(checked, options, sweep=sweep, html=html)
        except Exception as error:
            if config is None or not (isinstance(error, OrtOpsError | OSError) or of_runtime(error)):
                raise
            complain(error)
            unchecked[name] = f"{type(error).__name__}: {error}"
            continue
        print_report(report)
        reports[name] = report
        for line in parity.annotate(name, report, allow_reduced_precision=allow_reduced_precision):
            print(line)
    if json_file is not None:
        (report,) = reports.values()
        text = report.to_json(allow_reduced_precision=allow_reduced_precision)
        json_file.write_text(text + "\n", encoding="utf-8")
    if junit is not None:
        text = parity.to_junit(reports, unchecked, allow_reduced_precision=allow_reduced_precision)
        junit.write_text(text + "\n", encoding="utf-8")
    codes = [
        report.exit_code_for(allow_reduced_precision=allow_reduced_precision) for report in reports.values()
    ]
    if unchecked:
        codes.append(parity.ExitCode.COULD_NOT_RUN)
    return int(next(code for code in _WORST if code in codes))


def _check(checked: Checked, options: dict[str, Any], *, sweep: bool, html: Path | None) -> parity.Report:
    arguments = session_arguments(
        kernels=options["kernels"],
        function=options["function"],
        trust=options["trust"],
        library=options["library"],
        range_=options["range"],
        dim=options["dim"],
        prefer=options["prefer"],
    )
    providers = [check_provider(text) for text in options["provider"] or ["cpu"]]
    model, inputs = load_model(checked.module), load_inputs(options["inputs"])
    atol, rtol = options["atol"], options["rtol"]
    with progress(str(checked.file)) as on_step:
        report = parity.check(
            model,
            checked.file,
            inputs,
            providers=_swept(providers) if sweep else providers,
            seeds=options["seeds"],
            levels=parity.LEVELS if sweep else (None,),
            threads=(1, 2, None) if sweep else (None,),
            rule=None if atol is None and rtol is None else (atol or 0.0, rtol or 0.0),
            on_step=on_step,
            **arguments,
        )
    if html is not None:
        located = None
        try:
            seeds = options["seeds"]
            located = parity.locate(model, checked.file, inputs, providers[:1], seeds=seeds, **arguments)
        except ParityError as error:  # there is a report where no session can be made, too
            print(f"no nodes are looked at: {error}", file=sys.stderr)
        html.write_text(report.to_html(checked.file.name, located), encoding="utf-8")
        print(f"wrote {html}", file=sys.stderr)
    return report


def _swept(providers: list[str]) -> list[str]:
    """Return providers with TF32 on and off, where they have it and it isn't said."""
    swept = []
    for text in providers:
        if text.partition(":")[0].lower() in ("cuda", "cudaexecutionprovider") and "use_tf32" not in text:
            separator = "," if ":" in text else ":"
            swept += [f"{text}{separator}use_tf32={value}" for value in (0, 1)]
        else:
            swept.append(text)
    return swept
