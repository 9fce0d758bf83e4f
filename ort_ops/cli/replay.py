"""``ort-ops replay``: a deployment beside golden answers."""

from pathlib import Path
from typing import Annotated

import typer

from ort_ops import parity

from .arguments import import_modules
from .options import AllowReducedPrecision, File, Json, Kernels, Libraries, Providers
from .report import print_report

__all__ = ["replay"]


def replay(
    golden: Annotated[Path, typer.Argument(help="What ort-ops record wrote.")],
    file: File,
    provider: Providers = None,
    library: Libraries = None,
    kernels: Kernels = None,
    allow_reduced_precision: AllowReducedPrecision = False,
    json_file: Json = None,
) -> int:
    """Check a deployment against golden answers, by NumPy and onnxruntime alone."""
    import_modules(kernels or ())
    report = parity.replay(golden, file, provider or ["cpu"], libraries=library or ())
    print_report(report)
    if json_file is not None:
        json_file.write_text(report.to_json() + "\n")
    return int(report.exit_code_for(allow_reduced_precision=allow_reduced_precision))
