"""What the commands print: progress on a terminal, plain lines elsewhere, and the table of a comparison."""

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ort_ops.cli.console import console, say

__all__ = ["console", "say", "training_progress"]


@contextlib.contextmanager
def training_progress(title: str) -> Iterator[Callable[[int, int, float], None]]:
    """Give a function for ``train``'s on_step: a bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=None)

        def on_step(step: int, steps: int, loss: float) -> None:
            progress.update(bar, completed=step, total=steps, description=f"{title}, loss {loss:.3g}")

        yield on_step
