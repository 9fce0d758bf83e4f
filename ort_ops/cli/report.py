"""A report as the commands print it."""

import itertools
from collections.abc import Sequence

from rich.console import JustifyMethod
from rich.text import Text

from ort_ops.parity import Report, Row, Verdict
from ort_ops.parity.verdict import GOOD

from .console import cell, console, say, table

__all__ = ["print_report"]

_COLUMNS = ("question", "output", "verdict", "difference", "tolerance", "x PyTorch's", "smallest fault")
_WORDS = [max(map(len, name.split())) for name in _COLUMNS]
_GAP = 2  # between columns

_COLOURS = {"good": "green", "warn": "yellow", "bad": "red"}


def print_report(report: Report) -> None:
    """Print a line a row, and below the table what there is to be known besides."""
    _print_rows([_cells(row) for row in report.rows])
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
    say(f"verdict: {report.verdict.value.replace('_', ' ')}", _COLOURS[report.verdict.grade])


def _print_rows(rows: Sequence[list[Text]]) -> None:
    """Print a line a row; where that is too wide, what was run stands above its rows."""
    needed = [max((row[index].cell_len for row in rows), default=0) for index in range(len(_COLUMNS))]
    for names in (map(len, _COLUMNS), _WORDS):  # the names of columns in one line, then in two
        widths = [max(each) for each in zip(needed, names, strict=True)]
        if sum(widths) + _GAP * (len(widths) - 1) <= console.width:
            _print_table(widths, rows)
            return
    _, output, *others = widths
    left = console.width - sum(others) - _GAP * (len(others) + 1)
    widths = [0, max(_WORDS[1], min(output, left)), *others]
    _print_table(widths, [])
    for name, group in itertools.groupby(rows, key=lambda row: row[0].plain):
        say(name)
        _print_table(widths, [[Text(), *cells] for _, *cells in group], header=False)


def _print_table(widths: Sequence[int], rows: Sequence[list[Text]], *, header: bool = True) -> None:
    made = table()
    made.show_header = header
    for name, width in zip(_COLUMNS, widths, strict=True):
        side: JustifyMethod = "left" if name in _COLUMNS[:3] else "right"
        made.add_column(name if width else "", width=width, justify=side, overflow="fold")
    for row in rows:
        made.add_row(*row)
    console.print(made)


def _cells(row: Row) -> list[Text]:
    verdict = cell(row.verdict.value.replace("_", " "), _COLOURS[row.verdict.grade])
    question = f"{row.question} {row.provider}".rstrip()
    return [cell(question), cell(row.output), verdict, *map(cell, _numbers(row))]


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
