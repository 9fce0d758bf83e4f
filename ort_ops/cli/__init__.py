"""The command ``ort-ops``; one file a command.

Exit codes: 0 equal or done, 1 wrong, 2 cannot say, 3 could not run, 4 wrong usage, 70 crashed.
"""

import sys

import typer

from ort_ops.errors import OrtOpsError

from .bundle import bundle
from .check import check
from .inspect import inspect
from .locate import locate
from .record import record
from .replay import replay
from .running import run

__all__ = ["main"]

app = typer.Typer(
    name="ort-ops",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a bug shows Python's own traceback
)
for command in (check, locate, record, replay, bundle, inspect):
    app.command()(command)


@app.callback()
def _ort_ops() -> None:
    """Check ONNX files against the models that they come of, and look at what is in them."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(app, "ort-ops", arguments, [OrtOpsError]))
