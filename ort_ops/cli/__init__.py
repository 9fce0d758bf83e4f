"""The command ``ort-ops``; one file a command.

Exit codes: 0 equal or done, 1 wrong, 2 cannot say, 3 could not run, 4 wrong usage.
"""

import sys
from typing import Any

import typer

from ort_ops.errors import OrtOpsError
from ort_ops.parity import ExitCode

from .console import complain
from .inspect import inspect

__all__ = ["main"]

# typer.BadParameter's base, whichever copy of click this release of typer stands on.
_UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="ort-ops",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a bug shows Python's own traceback
)
for command in (inspect,):
    app.command()(command)


@app.callback()
def _ort_ops() -> None:
    """Look at ONNX files with custom operators, and at what runs them here."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        return int(app(arguments, prog_name="ort-ops", standalone_mode=False) or 0)
    except _UsageError as error:
        error.show()
        return ExitCode.WRONG_USAGE
    except (OrtOpsError, OSError) as error:
        complain(error)
        return ExitCode.COULD_NOT_RUN
    except KeyboardInterrupt:
        return 130  # as a shell says it: 128 and the number of SIGINT
