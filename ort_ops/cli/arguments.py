"""Arguments that commands share."""

import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import ort_ops
from ort_ops.errors import ModelError, ProviderError, RegistrationError
from ort_ops.model import weight_files
from ort_ops.providers import parse_provider

if TYPE_CHECKING:  # the package loads it when it is first asked for, and torch with it
    import ort_ops.torch_calls

__all__ = [
    "check_provider",
    "import_modules",
    "library_paths",
    "look_here",
    "named_pairs",
    "refuse_overwriting",
    "resolve",
    "resolve_functions",
    "with_weights",
]


def check_provider(text: str) -> str:
    """Return a provider as it was given; raises typer.BadParameter for a malformed one."""
    try:
        parse_provider(text)
    except ProviderError as error:
        raise typer.BadParameter(str(error)) from error
    return text


def named_pairs(texts: Iterable[str], option: str) -> Iterator[tuple[str, str]]:
    """Give name and value of each name=value; raises typer.BadParameter for what is none."""
    for text in texts:
        name, separator, value = text.rpartition("=")
        if not separator or not name or not value:
            raise typer.BadParameter(f"{option}: {text!r} is not of the form name=value")
        yield name, value


def with_weights(file: Path | None) -> list[Path]:
    """Return a model's file and those that its weights are in."""
    if file is None:
        return []
    try:
        return [file, *(file.parent / location for location in weight_files(file))]
    except (OSError, ModelError):  # which is said where the model is needed
        return [file]


def refuse_overwriting(outputs: Sequence[Path | None], inputs: Sequence[Path | str | None]) -> None:
    """Raise typer.BadParameter for a file to be written that is one of those to be read."""
    read = {Path(each).resolve() for each in inputs if each is not None}
    for output in outputs:
        if output is not None and output.resolve() in read:
            raise typer.BadParameter(f"{output} is to be written, and is what is read; expected another file")


def resolve(text: str, option: str) -> Any:
    """Return what pkg.module:name names; raises typer.BadParameter where there is no such thing."""
    module, separator, name = text.partition(":")
    if not separator or not name:
        raise typer.BadParameter(f"{option}: {text!r} is not of the form pkg.module:name")
    import_modules([module], option)
    found: Any = sys.modules[module]
    for part in name.split("."):
        if not hasattr(found, part):
            raise typer.BadParameter(f"{option}: {module} has no {name}")
        found = getattr(found, part)
    return found


def resolve_functions(names: Iterable[str] | None) -> list[type]:
    """Return the Functions that are named; raises typer.BadParameter for what is none."""
    found = []
    for text in names or ():
        function = resolve(text, "--function")
        if not ort_ops.torch_calls.is_function(function):
            raise typer.BadParameter(f"--function: {text} is no torch.autograd.Function")
        found.append(function)
    return found


def import_modules(names: Iterable[str], option: str = "--kernels") -> None:
    """Import modules for the kernels that they register, those in the current folder too.

    option: that names them, for the error. Raises RegistrationError where one can't be imported; nothing else
    in a command imports code by name.
    """
    for name in names:
        look_here()
        try:
            importlib.import_module(name)
        except Exception as error:
            raise RegistrationError(f"{option} {name}: {type(error).__name__}: {error}") from error


def look_here() -> None:
    """Have modules in the current folder found, too."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that a file in it stands for no installed module


def library_paths(given: Iterable[str | os.PathLike[str]] | None) -> list[Path]:
    """Return where libraries are; a name without a folder would be looked for among the system's."""
    return [Path(each).absolute() for each in given or ()]
