"""What the commands print: progress on a terminal, plain lines elsewhere, and the table of a comparison."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from mylinear.verify import Report, Row

__all__ = ["console", "print_report", "say", "training_progress"]

# A pipe has no width; 100 columns hold the table.
console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)

_COLOURS = {"equal": "green", "less_precise": "yellow", "reduced_precision": "yellow"}


def say(text: str) -> None:
    """Print a line as it is: no markup, and a terminal wraps it, not we."""
    console.print(text, markup=False, soft_wrap=True)


@contextlib.contextmanager
def training_progress(title: str) -> Iterator[Callable[[int, int, float], None]]:
    """Give a function for ``train``'s on_step: a bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=None)

        def on_step(step: int, steps: int, loss: float) -> None:
            progress.update(bar, completed=step, total=steps, description=f"{title}, loss {loss:.3g}")

        yield on_step


def print_report(report: "Report") -> None:
    """Print one line a comparison, and below the table the reason of each tolerance."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("compared", "batch", "dtype", "ran by"):
        table.add_column(name)
    for name in ("max error", "ULP", "tolerance"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in report.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for reason in dict.fromkeys(row.reason for row in report.rows):
        say(f"tolerance: {reason}")


def _cells(row: "Row") -> list[str]:
    compared = "file with model" if row.question == "file" else "ORT with PyTorch"
    cells = [compared, str(row.batch), row.dtype, row.ran]
    found = row.difference
    if found.elements:
        cells += [f"{found.max_abs:.1e}", str(found.max_ulp), f"{found.allowed:.1e}"]
    else:
        cells += ["-", "-", "shape only"]
    colour = _COLOURS.get(row.verdict, "red")
    return [*cells, f"[{colour}]{row.verdict}[/]"]
