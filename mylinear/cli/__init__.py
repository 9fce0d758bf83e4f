"""The command ``mylinear``: demo, train, export, verify; one file a command.

Exit codes: 0 equal or done, 1 wrong, 2 cannot say, 3 could not run, 4 wrong usage, 70 crashed,
130 interrupted, 141 its reader is gone.
"""

import sys

try:
    import torch  # noqa: F401, to say at once what is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"mylinear's commands need torch: pip install 'ort-ops[torch,cli]' ({error})", name=error.name
    ) from None

from mylinear.errors import MyLinearError
from ort_ops.cli.running import make_app, run
from ort_ops.errors import OrtOpsError

from . import demo, export, train, verify

__all__ = ["main"]

app = make_app(
    "mylinear",
    "MYLINEAR, Y = X·Wᵀ + B: train it in PyTorch, export it, run it in ONNX Runtime, compare.",
    (demo.demo, train.train, export.export, verify.verify),
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(app, "mylinear", arguments, [MyLinearError, OrtOpsError]))
