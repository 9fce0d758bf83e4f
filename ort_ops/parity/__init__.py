"""Deciding whether two runtimes computed the same: how far apart they are, and how far they may be."""

from .compare import Difference, compare
from .tolerance import Arithmetic, arithmetic_of, dot_error
from .verdict import ExitCode, Verdict, exit_code

__all__ = [
    "Arithmetic",
    "Difference",
    "ExitCode",
    "Verdict",
    "arithmetic_of",
    "compare",
    "dot_error",
    "exit_code",
]
