"""The progress bar of an export or import."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TimeRemainingColumn


@contextmanager
def running_progress(console: Console, amount: ProgressColumn) -> Iterator[Progress]:
    """Give a progress bar, which is shown only if `console` is a terminal.

    Args:
        console: Shows it.
        amount: The column that shows the amount done.
    """
    columns = (BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress
