"""Simulated time for the examples, and a timeline that shows the events.

Every pattern of `src.resilience` accepts a `Clock`. The examples run on an event loop with simulated time:
when all tasks sleep, the loop does not wait but advances its time to the next wake-up. An example of a minute
therefore ends at once, and always prints the same.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from src.resilience.clock import Clock
from src.resilience.events import CallFinished, Event

T = TypeVar("T")

console = Console(highlight=False)


class _UnwaitingSelector(selectors.DefaultSelector):
    """A selector that does not wait. It adds the time that it should have waited to `elapsed_seconds`."""

    elapsed_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout and 0)
        if timeout and not ready:
            self.elapsed_seconds += timeout
        return ready


class _SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._counting_selector = _UnwaitingSelector()
        super().__init__(self._counting_selector)

    def time(self) -> float:
        return self._counting_selector.elapsed_seconds


class SimulatedClock:
    """A `Clock` with the time of the running event loop, which begins at 0."""

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return self.monotonic()

    def monotonic(self) -> float:
        """Return the seconds since the beginning."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds` of the loop's time."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Return `asyncio.timeout(seconds)`, which uses the loop's time."""
        return asyncio.timeout(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Schedule `callback` on the running event loop."""
        return asyncio.get_running_loop().call_later(seconds, callback)


def play(story: Coroutine[object, object, T]) -> T:
    """Run `story` in simulated time."""
    with asyncio.Runner(loop_factory=_SimulatedLoop) as runner:
        return runner.run(story)


class Timeline:
    """A table with a row for each event. It is a `Listener`, so that policies can add rows.

    Args:
        title: The title of the table.
        clock: The clock for the times of the rows.
    """

    def __init__(self, title: str, clock: Clock) -> None:
        self._clock = clock
        self._table = table(title, "second", "who", "what")
        self._table.columns[0].justify = "right"

    def __call__(self, event: Event) -> None:
        """Add a row for an event of a policy, except `CallFinished`: the examples show the outcomes."""
        if isinstance(event, CallFinished):
            return
        attributes = event.details()
        del attributes["policy"]
        details = " ".join(f"{name}={_format(value)}" for name, value in attributes.items())
        self.note(event.policy, f"{type(event).__name__} {details}", style="cyan")

    def note(self, who: str, what: str, *, style: str = "") -> None:
        """Add a row with the current time."""
        self._table.add_row(f"{self._clock.monotonic():.2f}", who, what, style=style)

    def show(self) -> None:
        """Print the table."""
        console.print(self._table)


def table(title: str, *columns: str) -> Table:
    """Return an empty table in the style of all examples."""
    new_table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    for number, column in enumerate(columns):
        new_table.add_column(column, no_wrap=number == 0, overflow="fold")  # wraps a text that is too long
    return new_table


def _format(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return repr(value) if isinstance(value, BaseException) else str(value)
