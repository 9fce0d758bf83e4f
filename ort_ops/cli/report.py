"""A report as the commands print it."""

from ort_ops.parity import Report, Row, Verdict
from ort_ops.parity.report import GOOD

from .console import cell, console, say, table

__all__ = ["print_report"]

_COLOURS = {
    Verdict.EQUAL: "green",
    Verdict.LESS_PRECISE: "yellow",
    Verdict.REDUCED_PRECISION: "yellow",
    Verdict.CANNOT_SAY: "yellow",
}


def print_report(report: Report) -> None:
    """Print a line a row, and below the table what there is to be known besides."""
    made = table("question", "output", "verdict")
    for name in ("difference", "tolerance", "x PyTorch's", "smallest fault"):
        made.add_column(name, justify="right")
    for row in report.rows:
        question = row.question if not row.provider else f"{row.question} {row.provider}"
        verdict = cell(row.verdict.value.replace("_", " "), _COLOURS.get(row.verdict, "red"))
        made.add_row(cell(question), cell(row.output), verdict, *_numbers(row))
    console.print(made)
    for row in report.rows:
        if row.verdict is not Verdict.EQUAL:
            say(f"{row.question} {row.output}: {row.reason}{_where(row)}")
    if report.verdict is Verdict.CANNOT_SAY and all(row.verdict in GOOD for row in report.rows):
        say("no element was compared: the outputs are empty")
    for each in report.envelopes():
        if each.runs > 1:
            broken = f"; broken by {', '.join(each.broken)}" if each.broken else "; no setting breaks it"
            say(f"{each.output}: off by {each.least:.1e} to {each.most:.1e} in {each.runs} runs{broken}")
    for ran in dict.fromkeys(row.ran for row in report.rows if row.question == "runtime"):
        say(f"ran: {ran}")
    for note in report.notes:
        say(f"note: {note}")
    say(f"verdict: {report.verdict.value.replace('_', ' ')}", _COLOURS.get(report.verdict, "red"))


def _numbers(row: Row) -> list[str]:
    if not row.elements:
        return ["", "", "", ""]
    ratio = f"{row.ratio:.2g}" if row.ratio is not None else ""
    fault = f"{row.smallest_fault:.1e}" if row.smallest_fault is not None else "none"
    return [f"{row.max_abs:.1e}", f"{row.tolerance:.1e}", ratio, fault]


def _where(row: Row) -> str:
    """Say which element is worst, and what it is."""
    silent = row.verdict in (Verdict.LESS_PRECISE, Verdict.REDUCED_PRECISION) or not row.worst
    return "" if silent else f"; {row.worst}"
