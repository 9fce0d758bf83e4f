"""What a comparison can say, and the exit code that says it."""

import enum
from collections.abc import Iterable

__all__ = ["ExitCode", "Verdict", "exit_code"]


class Verdict(enum.StrEnum):
    """What was found about one output.

    ``EQUAL``: the two differ by no more than their arithmetic explains. ``LESS_PRECISE``: within the bound of
    the arithmetic, but with an error well above PyTorch's own. ``REDUCED_PRECISION``: as far apart as a
    narrower arithmetic (TF32) explains. ``EXPORT_WRONG``: the file computes something else than the model.
    ``RUNTIME_WRONG``: the runtime does not compute the file. ``CANNOT_SAY``: nothing was compared.
    """

    EQUAL = "equal"
    LESS_PRECISE = "less_precise"
    REDUCED_PRECISION = "reduced_precision"
    EXPORT_WRONG = "export_wrong"
    RUNTIME_WRONG = "runtime_wrong"
    CANNOT_SAY = "cannot_say"


class ExitCode(enum.IntEnum):
    """What a command that compares exits with; CRASHED is EX_SOFTWARE of sysexits.h."""

    EQUAL = 0
    WRONG = 1
    CANNOT_SAY = 2
    COULD_NOT_RUN = 3
    WRONG_USAGE = 4
    CRASHED = 70


_GOOD = frozenset({Verdict.EQUAL, Verdict.LESS_PRECISE})


def exit_code(verdicts: Iterable[Verdict]) -> ExitCode:
    """Return the exit code of several verdicts: wrong before cannot say; nothing compared is cannot say."""
    found = set(verdicts)
    if not found:
        return ExitCode.CANNOT_SAY
    if found <= _GOOD:
        return ExitCode.EQUAL
    return ExitCode.CANNOT_SAY if found - _GOOD == {Verdict.CANNOT_SAY} else ExitCode.WRONG
