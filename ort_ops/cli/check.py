"""``ort-ops check``: a model beside its file, and ONNX Runtime beside the file."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ort_ops import parity
from ort_ops.errors import ParityError

from .arguments import check_provider, import_modules, named_pairs, resolve
from .report import print_report

__all__ = ["check"]


def check(
    file: Annotated[Path, typer.Argument(help="An ONNX file.")],
    module: Annotated[
        str, typer.Option(help="pkg.module:name of the torch model, or of a function that returns it.")
    ],
    provider: Annotated[
        list[str] | None,
        typer.Option(help="cpu, cuda, cuda:use_tf32=0; may be given again.", parser=check_provider),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            help="An .npz by the file's inputs, or pkg.module:name of a function that gives inputs."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many inputs are made up, if none are given.")] = 3,
    range_: Annotated[
        list[str] | None,
        typer.Option("--range", help="input=LOW:HIGH of values made up; may be given again."),
    ] = None,
    dim: Annotated[
        list[str] | None, typer.Option(help="name=SIZE of a symbolic dimension; may be given again.")
    ] = None,
    library: Annotated[
        list[Path] | None, typer.Option(help="A custom operator library; may be given again.")
    ] = None,
    kernels: Annotated[
        list[str] | None, typer.Option(help="A Python module that registers kernels; may be given again.")
    ] = None,
    function: Annotated[
        list[str] | None,
        typer.Option(help="pkg.module:Function that the file may name for a node; may be given again."),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(help="A package that the file may name Functions of; may be given again."),
    ] = None,
    sweep: Annotated[
        bool, typer.Option(help="Run at every optimisation level, by one and more threads.")
    ] = False,
    atol: Annotated[float | None, typer.Option(min=0, help="Judge runs by a plain rule.")] = None,
    rtol: Annotated[float | None, typer.Option(min=0, help="Judge runs by a plain rule.")] = None,
    allow_reduced_precision: Annotated[
        bool, typer.Option(help="Exit with 0 where TF32 or a 16-bit arithmetic explains the difference.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything there, too.")] = None,
) -> int:
    """Say whether a file computes what its model computes, and whether ONNX Runtime computes the file."""
    import_modules(kernels or ())
    found: Any = resolve(module, "--module")
    rule = None if atol is None and rtol is None else (atol or 0.0, rtol or 0.0)
    report = parity.check(
        found if hasattr(found, "state_dict") and not isinstance(found, type) else found(),
        file,
        None if inputs is None else _inputs(inputs),
        providers=provider or ["cpu"],
        seeds=seeds,
        functions=[resolve(name, "--function") for name in function] if function else None,
        trust=trust or (),
        libraries=library or (),
        levels=parity.LEVELS if sweep else (None,),
        threads=(1, 2, None) if sweep else (None,),
        ranges={name: _range(text) for name, text in named_pairs(range_ or (), "--range")},
        dims={name: int(text) for name, text in named_pairs(dim or (), "--dim")},
        rule=rule,
    )
    print_report(report)
    if json_file is not None:
        json_file.write_text(report.to_json() + "\n")
    return int(report.exit_code_for(allow_reduced_precision=allow_reduced_precision))


def _inputs(text: str) -> Any:
    """Return what a file holds, or a function gives."""
    if not text.endswith(".npz"):
        return resolve(text, "--inputs")()
    try:
        with np.load(text, allow_pickle=False) as arrays:
            return {name: parity.to_torch(arrays[name]) for name in arrays.files}
    except ValueError as error:
        raise ParityError(f"{text}: {error}") from error


def _range(text: str) -> tuple[float, float]:
    low, separator, high = text.partition(":")
    try:
        if separator:
            return float(low), float(high)
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is no range; expected LOW:HIGH")
