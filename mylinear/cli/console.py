"""What the commands print: progress on a terminal, plain lines elsewhere, and the table of a comparison."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["console", "say", "training_progress"]

# A pipe has no width; 100 columns hold the table.
console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)


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
