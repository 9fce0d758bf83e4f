"""How the commands print: as wide as the terminal, plain and as wide as a table needs elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

__all__ = ["cell", "complain", "console", "progress", "say", "table"]

# A pipe has no width; 100 columns hold the tables.
console = Console(width=None if sys.stdout is not None and sys.stdout.isatty() else 100, highlight=False)


def say(text: str = "", style: str = "") -> None:
    """Print a line as it is; a terminal wraps it, not we."""
    console.print(cell(text, style), soft_wrap=True)


def cell(text: str, style: str = "", *, keep: str = "") -> Text:
    """Return a text in which nothing is markup, nor an escape sequence: a file's names may hold either."""
    shown = (each if each.isprintable() or each in keep else repr(each)[1:-1] for each in text)
    return Text("".join(shown), style)


def complain(error: BaseException) -> None:
    """Print an error to stderr with its notes, as one line unless its text has several."""
    text = "; ".join([str(error).strip(), *getattr(error, "__notes__", ())])
    print(f"error: {type(error).__name__}: {cell(text, keep=chr(10))}", file=sys.stderr)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Give a function for ``on_step``: a bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        bar = shown.add_task(title, total=None)

        def on_step(done: int, total: int, what: str) -> None:
            shown.update(bar, completed=done, total=total, description=f"{title}: {what}")

        yield on_step


def table(*columns: str) -> Table:
    """Return an empty table without lines, its columns to the left."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name)
    return made
