"""Deciding whether two runtimes computed the same: how far apart they are, and how far they may be.

``check`` asks whether a file is right and whether a runtime computes it. It needs torch and onnx; the rest of
this package doesn't, and is loaded without them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .compare import Difference, compare
from .report import Report, Row
from .tolerance import Arithmetic, arithmetic_of, dot_error
from .verdict import ExitCode, Verdict, exit_code

if TYPE_CHECKING:
    from .checking import check
    from .locating import Located, locate
    from .original import to_torch
    from .runs import LEVELS
    from .walks import NodeRow

_WITH_TORCH = {
    "LEVELS": "runs",
    "Located": "locating",
    "NodeRow": "walks",
    "check": "checking",
    "locate": "locating",
    "to_torch": "original",
}

__all__ = [
    "LEVELS",
    "Arithmetic",
    "Difference",
    "ExitCode",
    "Located",
    "NodeRow",
    "Report",
    "Row",
    "Verdict",
    "arithmetic_of",
    "check",
    "compare",
    "dot_error",
    "exit_code",
    "locate",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
