"""The command ``ort-ops``; one file a command.

Exit codes: 0 equal or done, 1 wrong, 2 cannot say, 3 could not run, 4 wrong usage, 70 crashed,
130 interrupted, 141 its reader is gone.
"""

import sys

try:
    import rich  # noqa: F401, to say at once what is missing
    import typer  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"the commands need typer and rich: pip install 'ort-ops[cli]' ({error})", name=error.name
    ) from None

from ort_ops.errors import OrtOpsError

from .bundle import bundle
from .check import check
from .inspect import inspect
from .locate import locate
from .record import record
from .replay import replay
from .running import make_app, run

__all__ = ["main"]

app = make_app(
    "ort-ops",
    "Check ONNX files against the models that they come of, and look at what is in them.",
    (check, locate, record, replay, bundle, inspect),
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(app, "ort-ops", arguments, [OrtOpsError]))
