"""How a command line is run: what ends it, and with which exit code."""

import sys
import traceback
from collections.abc import Iterable
from typing import Any

import typer

from ort_ops.parity import ExitCode

from .console import complain

__all__ = ["run"]

# typer.BadParameter's base, whichever copy of click this release of typer stands on.
_UsageError: Any = typer.BadParameter.__mro__[1]


def run(app: typer.Typer, name: str, arguments: list[str] | None, errors: Iterable[type[Exception]]) -> int:
    """Run ``app`` under a name on arguments (None: those of the process); returns the exit code.

    ``errors``, and OSError, are what it may fail with on purpose: they are printed in one line.
    """
    expected: tuple[type[Exception], ...] = (*errors, OSError)
    try:
        given = sys.argv[1:] if arguments is None else arguments
        return int(app(given, prog_name=name, standalone_mode=False) or 0)
    except _UsageError as error:
        error.show()
        return ExitCode.WRONG_USAGE
    except expected as error:
        complain(error)
        return ExitCode.COULD_NOT_RUN
    except KeyboardInterrupt:
        return 130  # as a shell says it: 128 and the number of SIGINT
    except (
        Exception
    ):  # a bug, or what the user's own code raises: no verdict, though Python would exit with 1
        traceback.print_exc()
        return ExitCode.CRASHED
