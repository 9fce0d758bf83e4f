"""Deciding whether two runtimes computed the same: how far apart they are, and how far they may be.

``check`` asks whether a file is right and whether a runtime computes it, ``locate`` which node is to blame;
``record`` writes golden answers down. They need torch and onnx. ``replay``, which checks a deployment against
golden answers, needs neither, and nor does the rest of this package.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .ci import annotate, to_junit, to_markdown
from .compare import Difference, compare
from .digest import digest
from .report import Report, Row
from .tolerance import Arithmetic, arithmetic_of, dot_error
from .verdict import ExitCode, Verdict, exit_code

if TYPE_CHECKING:
    from .checking import check
    from .golden import Recorded, read_recorded
    from .locating import Located, locate
    from .recording import record
    from .replaying import judge_sample, replay
    from .runs import LEVELS
    from .tensors import to_torch
    from .walks import NodeRow

_LAZY = {
    "LEVELS": "runs",
    "Located": "locating",
    "NodeRow": "walks",
    "Recorded": "golden",
    "judge_sample": "replaying",
    "read_recorded": "golden",
    "record": "recording",
    "replay": "replaying",
    "check": "checking",
    "locate": "locating",
    "to_torch": "tensors",
}

__all__ = [
    "LEVELS",
    "Arithmetic",
    "Difference",
    "ExitCode",
    "Located",
    "NodeRow",
    "Recorded",
    "Report",
    "Row",
    "Verdict",
    "annotate",
    "arithmetic_of",
    "check",
    "compare",
    "digest",
    "dot_error",
    "exit_code",
    "judge_sample",
    "locate",
    "read_recorded",
    "record",
    "replay",
    "to_junit",
    "to_markdown",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
