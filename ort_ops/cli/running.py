"""How a command line is run: what ends it, and with which exit code."""

import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import typer

from ort_ops.parity import ExitCode
from ort_ops.parity.runs import of_runtime

from .console import complain

__all__ = ["make_app", "run"]

# typer.BadParameter's base, whichever copy of click this release of typer stands on.
_UsageError: Any = typer.BadParameter.__mro__[1]


# What the extra ``torch`` brings.
_BY_TORCH = ("torch", "onnx", "onnx_ir", "onnxscript")


def make_app(name: str, help_text: str, commands: Iterable[Callable[..., Any]]) -> typer.Typer:
    """Return a command line of functions, each a command with the function's name."""
    app = typer.Typer(
        name=name,
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,  # a bug shows Python's own traceback
    )
    for command in commands:
        app.command()(command)
    return app


def run(app: typer.Typer, name: str, arguments: list[str] | None, errors: Iterable[type[Exception]]) -> int:
    """Run ``app`` under a name on arguments (None: those of the process); returns the exit code.

    ``errors``, OSError and ONNX Runtime's own are what it may fail with on purpose: they are printed in one
    line.
    """
    expected: tuple[type[Exception], ...] = (*errors, OSError)
    for stream in (sys.stdout, sys.stderr):  # a file's names may have letters that the locale hasn't
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = int(app(given, prog_name=name, standalone_mode=False) or 0)
        if sys.stdout is not None:  # as it is where it was closed before
            sys.stdout.flush()
        return code
    except _UsageError as error:
        error.show()
        return ExitCode.WRONG_USAGE
    except ModuleNotFoundError as error:
        if error.name not in _BY_TORCH:
            traceback.print_exc()
            return ExitCode.CRASHED
        print(f"error: {error}: this command needs pip install 'ort-ops[torch]'", file=sys.stderr)
        return ExitCode.COULD_NOT_RUN
    except BrokenPipeError:
        return _cut_off()
    except expected as error:
        complain(error)
        return ExitCode.COULD_NOT_RUN
    except KeyboardInterrupt:
        return 130  # as a shell says it: 128 and the number of SIGINT
    except (Exception, SystemExit) as error:
        if isinstance(error.__context__, BrokenPipeError):  # over which rich and typer exit
            return _cut_off()
        if of_runtime(error):
            complain(error)
            return ExitCode.COULD_NOT_RUN
        # A bug, or the user's own code's: no verdict, whatever it exits with.
        traceback.print_exc()
        return ExitCode.CRASHED


def _cut_off() -> int:
    """End quietly where who was reading has enough, as ``head`` has."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is written at the exit
    return 141  # as a shell says it: 128 and the number of SIGPIPE
