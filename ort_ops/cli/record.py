"""``ort-ops record``: golden answers for a deployment to be checked against."""

from pathlib import Path
from typing import Annotated

import typer

from ort_ops import parity

from .arguments import refuse_overwriting, with_weights
from .console import say
from .options import (
    Dims,
    File,
    Functions,
    Inputs,
    Kernels,
    Libraries,
    Module,
    Prefer,
    Ranges,
    Seeds,
    Trust,
    load_inputs,
    load_model,
    session_arguments,
)

__all__ = ["record"]


def record(
    file: File,
    module: Module,
    out: Annotated[Path, typer.Option("--out", "-o", help="What to write.")] = Path("golden.safetensors"),
    inputs: Inputs = None,
    seeds: Seeds = 3,
    range_: Ranges = None,
    dim: Dims = None,
    library: Libraries = None,
    kernels: Kernels = None,
    function: Functions = None,
    trust: Trust = None,
    prefer: Prefer = "kernel",
) -> None:
    """Write down what a right run of a file gives, for ort-ops replay, which needs no torch."""
    refuse_overwriting([out], [*with_weights(file), inputs, *(library or ())])
    arguments = session_arguments(
        kernels=kernels,
        function=function,
        trust=trust,
        library=library,
        range_=range_,
        dim=dim,
        prefer=prefer,
    )
    report = parity.record(load_model(module), file, out, load_inputs(inputs), seeds=seeds, **arguments)
    elements = sum(row.elements for row in report.rows)
    outputs = f"{len(report.rows)} output{'s' if len(report.rows) != 1 else ''}"
    say(f"wrote {out}: {outputs}, {elements} elements, {out.stat().st_size} bytes")
