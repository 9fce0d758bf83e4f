"""What a comparison can say, and the exit code that says it."""

import enum
from collections.abc import Iterable, Set
from typing import Literal

__all__ = ["BY_GRAVITY", "GOOD", "ExitCode", "Verdict", "exit_code", "good_for"]


class Verdict(enum.StrEnum):
    """What was found about one output.

    ``EQUAL``: the two differ by no more than their arithmetic explains. ``LESS_PRECISE``: within the bound of
    the arithmetic, but with an error well above PyTorch's own. ``REDUCED_PRECISION``: as far apart as a
    narrower arithmetic (TF32) explains, or weights that ONNX Runtime quantises. ``EXPORT_WRONG``: the file
    computes something else than the model. ``RUNTIME_WRONG``: the runtime does not compute the file.
    ``CANNOT_SAY``: nothing was compared, or rounding errors decide what the elements are.
    """

    EQUAL = "equal"
    LESS_PRECISE = "less_precise"
    REDUCED_PRECISION = "reduced_precision"
    EXPORT_WRONG = "export_wrong"
    RUNTIME_WRONG = "runtime_wrong"
    CANNOT_SAY = "cannot_say"

    @property
    def grade(self) -> Literal["good", "warn", "bad"]:
        """Return how it is shown: as what is as it should be, is worth a look, or is wrong."""
        if self is Verdict.EQUAL:
            return "good"
        return "bad" if self in (Verdict.EXPORT_WRONG, Verdict.RUNTIME_WRONG) else "warn"


class ExitCode(enum.IntEnum):
    """What a command that compares exits with; CRASHED is EX_SOFTWARE of sysexits.h."""

    EQUAL = 0
    WRONG = 1
    CANNOT_SAY = 2
    COULD_NOT_RUN = 3
    WRONG_USAGE = 4
    CRASHED = 70


BY_GRAVITY = (
    Verdict.EXPORT_WRONG,
    Verdict.RUNTIME_WRONG,
    Verdict.REDUCED_PRECISION,
    Verdict.CANNOT_SAY,
    Verdict.LESS_PRECISE,
    Verdict.EQUAL,
)
"""From what matters most to what matters least."""

GOOD = frozenset({Verdict.EQUAL, Verdict.LESS_PRECISE})
"""The verdicts of what need not be looked at again."""


def good_for(*, allow_reduced_precision: bool) -> frozenset[Verdict]:
    """Return the verdicts that are good for who may say that a narrower arithmetic will do."""
    return GOOD | {Verdict.REDUCED_PRECISION} if allow_reduced_precision else GOOD


def exit_code(verdicts: Iterable[Verdict], good: Set[Verdict] = GOOD) -> ExitCode:
    """Return the exit code of several verdicts: wrong before cannot say; nothing compared is cannot say."""
    found = set(verdicts)
    if not found:
        return ExitCode.CANNOT_SAY
    if found <= good:
        return ExitCode.EQUAL
    return ExitCode.CANNOT_SAY if found - good == {Verdict.CANNOT_SAY} else ExitCode.WRONG
