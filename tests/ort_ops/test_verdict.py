import pytest

from ort_ops.parity import ExitCode, Verdict, exit_code
from ort_ops.parity.verdict import BY_GRAVITY, GOOD


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], ExitCode.CANNOT_SAY),
        ([Verdict.EQUAL, Verdict.LESS_PRECISE], ExitCode.EQUAL),
        ([Verdict.EQUAL, Verdict.RUNTIME_WRONG], ExitCode.WRONG),
        ([Verdict.EXPORT_WRONG, Verdict.CANNOT_SAY], ExitCode.WRONG),
        ([Verdict.REDUCED_PRECISION], ExitCode.WRONG),
        ([Verdict.EQUAL, Verdict.CANNOT_SAY], ExitCode.CANNOT_SAY),
    ],
)
def test_the_worst_verdict_makes_the_exit_code(verdicts, code):
    assert exit_code(verdicts) is code


def test_verdicts_are_their_words():
    assert [str(verdict) for verdict in Verdict] == [
        *("equal", "less_precise", "reduced_precision"),
        *("export_wrong", "runtime_wrong", "cannot_say"),
    ]


def test_what_is_graver_is_shown_no_better_and_makes_no_better_exit_code():
    assert sorted(BY_GRAVITY) == sorted(Verdict)
    shown = [("bad", "warn", "good").index(verdict.grade) for verdict in BY_GRAVITY]
    assert shown == sorted(shown)
    assert set(BY_GRAVITY[-len(GOOD) :]) == GOOD
