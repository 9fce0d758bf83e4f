"""Arguments that commands share."""

import importlib
import os
import sys
from collections.abc import Iterable

import typer

from ort_ops.errors import ProviderError, RegistrationError
from ort_ops.providers import parse_provider

__all__ = ["check_provider", "import_modules"]


def check_provider(text: str) -> str:
    """Return a provider as it was given; raises typer.BadParameter for a malformed one."""
    try:
        parse_provider(text)
    except ProviderError as error:
        raise typer.BadParameter(str(error)) from error
    return text


def import_modules(names: Iterable[str]) -> None:
    """Import modules for the kernels that they register, those in the current folder too.

    Raises RegistrationError where one can't be imported; nothing else in a command imports code by name.
    """
    sys.path.append(os.getcwd())  # last, so that a file in it stands for no installed module
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise RegistrationError(f"--module {name}: {type(error).__name__}: {error}") from error
