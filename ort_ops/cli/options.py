"""The options that commands share which compare a model with its file."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from ort_ops import parity
from ort_ops.errors import ParityError
from ort_ops.libraries import open_libraries

from .arguments import check_provider, import_modules, library_paths, named_pairs, resolve, resolve_functions

__all__ = [
    "AllowReducedPrecision",
    "Dims",
    "File",
    "Functions",
    "Inputs",
    "Json",
    "Kernels",
    "Libraries",
    "Module",
    "Prefer",
    "Providers",
    "Ranges",
    "Seeds",
    "Trust",
    "load_inputs",
    "load_model",
    "session_arguments",
]

File = Annotated[Path, typer.Argument(help="An ONNX file.")]
Module = Annotated[
    str, typer.Option(help="pkg.module:name of the torch model, or of a function that returns it.")
]
Providers = Annotated[
    list[str] | None,
    typer.Option(help="cpu, cuda, cuda:use_tf32=0; may be given again.", parser=check_provider),
]
Inputs = Annotated[
    str | None,
    typer.Option(
        help="An .npz by the file's inputs, or pkg.module:name of inputs, or of a function that gives them."
    ),
]
Ranges = Annotated[
    list[str] | None,
    typer.Option("--range", help="input=LOW:HIGH of values made up; may be given again."),
]
Dims = Annotated[
    list[str] | None, typer.Option(help="name=SIZE of a symbolic dimension; may be given again.")
]
Libraries = Annotated[list[Path] | None, typer.Option(help="A custom operator library; may be given again.")]
Kernels = Annotated[
    list[str] | None, typer.Option(help="A Python module that registers kernels; may be given again.")
]
Functions = Annotated[
    list[str] | None,
    typer.Option(help="pkg.module:Function that the file may name for a node; may be given again."),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(help="A package that the file may name Functions of; may be given again."),
]
Prefer = Annotated[Literal["kernel", "body"], typer.Option(help="Who is to run an operator where both can.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many inputs are made up, if none are given.")]
AllowReducedPrecision = Annotated[
    bool,
    typer.Option(
        "--allow-reduced-precision",
        help="Exit with 0 where TF32, 16 bits or quantised weights explain it.",
    ),
]
Json = Annotated[Path | None, typer.Option("--json", help="Write everything there, too.")]


def load_model(text: str) -> Any:
    """Return the model that pkg.module:name names or gives; raises typer.BadParameter where it is none."""
    found = resolve(text, "--module")
    is_model = hasattr(found, "state_dict") and not isinstance(found, type)
    model = found() if callable(found) and not is_model else found
    if not hasattr(model, "state_dict"):
        raise typer.BadParameter(
            f"--module: {text} gives a {type(model).__name__}; expected a torch.nn.Module"
        )
    return model


def load_inputs(text: str | None) -> Any:
    """Return the inputs that a file holds, a module has or a function gives; None where none are given."""
    if text is None:
        return None
    if not text.endswith(".npz"):
        found = resolve(text, "--inputs")
        given = found() if callable(found) else found
        if given is None:
            raise typer.BadParameter(f"--inputs: {text} gives None; expected the model's arguments")
        return given
    try:
        # By the class, since np.load takes for a single array, or for a pickle, what is no archive.
        with Path(text).open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            return {name: parity.to_torch(arrays[name]) for name in arrays.files}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ParityError(f"{text}: {error}; expected an .npz of numbers, one array an input") from error


def session_arguments(
    *,
    kernels: Sequence[str] | None,
    function: Sequence[str] | None,
    trust: Sequence[str] | None,
    library: Sequence[Path] | None,
    range_: Sequence[str] | None,
    dim: Sequence[str] | None,
    prefer: str,
) -> dict[str, Any]:
    """Return what ``check``, ``locate`` and ``record`` are given of these options.

    Raises RegistrationError for a module that can't be imported, or a library that doesn't load.
    """
    import_modules(kernels or ())
    open_libraries(paths := library_paths(library), ())
    return {
        "functions": resolve_functions(function) or None,
        "trust": trust or (),
        "libraries": paths,
        "prefer": prefer,
        "ranges": {name: _range(text) for name, text in named_pairs(range_ or (), "--range")},
        "dims": {name: _size(text) for name, text in named_pairs(dim or (), "--dim")},
    }


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise typer.BadParameter(f"--range: {text!r} is no range; expected LOW:HIGH") from None


def _size(text: str) -> int:
    if not text.isdecimal():
        raise typer.BadParameter(f"--dim: {text!r} is no size")
    return int(text)
