"""``ort-ops check``: a model beside its file, and ONNX Runtime beside the file."""

from typing import Annotated

import typer

from ort_ops import parity

from .options import (
    Dims,
    File,
    Functions,
    Inputs,
    Json,
    Kernels,
    Libraries,
    Module,
    Providers,
    Ranges,
    Trust,
    load_inputs,
    load_model,
    session_arguments,
)
from .report import print_report

__all__ = ["check"]


def check(
    file: File,
    module: Module,
    provider: Providers = None,
    inputs: Inputs = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many inputs are made up, if none are given.")] = 3,
    range_: Ranges = None,
    dim: Dims = None,
    library: Libraries = None,
    kernels: Kernels = None,
    function: Functions = None,
    trust: Trust = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Run at every optimisation level, by one and more threads.")
    ] = False,
    atol: Annotated[float | None, typer.Option(min=0, help="Judge runs by a plain rule.")] = None,
    rtol: Annotated[float | None, typer.Option(min=0, help="Judge runs by a plain rule.")] = None,
    allow_reduced_precision: Annotated[
        bool,
        typer.Option(
            "--allow-reduced-precision",
            help="Exit with 0 where TF32 or a 16-bit arithmetic explains the difference.",
        ),
    ] = False,
    json_file: Json = None,
) -> int:
    """Say whether a file computes what its model computes, and whether ONNX Runtime computes the file."""
    arguments = session_arguments(kernels, function, trust, library, range_, dim)
    report = parity.check(
        load_model(module),
        file,
        load_inputs(inputs),
        providers=provider or ["cpu"],
        seeds=seeds,
        levels=parity.LEVELS if sweep else (None,),
        threads=(1, 2, None) if sweep else (None,),
        rule=None if atol is None and rtol is None else (atol or 0.0, rtol or 0.0),
        **arguments,
    )
    print_report(report)
    if json_file is not None:
        json_file.write_text(report.to_json() + "\n")
    return int(report.exit_code_for(allow_reduced_precision=allow_reduced_precision))
