"""The command ``mylinear``: demo, train, export, verify; one file a command.

Exit codes: 0 equal or done, 1 wrong, 2 cannot say, 3 could not run, 4 wrong usage.
"""

import sys

import typer

from mylinear.errors import MyLinearError
from ort_ops.cli.running import run
from ort_ops.errors import OrtOpsError

from . import demo, export, train, verify

__all__ = ["main"]

app = typer.Typer(
    name="mylinear",
    help="MYLINEAR, Y = X·Wᵀ + B: train it in PyTorch, export it, run it in ONNX Runtime, compare.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a bug shows Python's own traceback
)
for command in (demo.demo, train.train, export.export, verify.verify):
    app.command()(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(app, "mylinear", arguments, [MyLinearError, OrtOpsError]))
