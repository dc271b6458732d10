"""What the examples are played on: simulated time, and a timeline of what happens in it.

Every pattern of `src.resilience` takes its `Clock` from outside. Here that pays: the clock is an event loop's
that, when everybody sleeps, does not wait but moves its time on to the first who is to wake. So an example
that tells of a minute takes no time, and tells exactly the same every time.
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
    """Waits for nothing but files; of the time it should have waited it only keeps count."""

    elapsed_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout and 0)
        if timeout and not ready:
            self.elapsed_seconds += timeout
        return ready


class _SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._selector_of_time = _UnwaitingSelector()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        return self._selector_of_time.elapsed_seconds


class SimulatedClock:
    """A `Clock` that shows the time of the running loop, from 0 on."""

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return self.monotonic()

    def monotonic(self) -> float:
        """Return the seconds since the beginning."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Sleep, in the loop's time."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Return `asyncio.timeout(seconds)`, which goes by the loop's time."""
        return asyncio.timeout(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Leave it to the running event loop, and to its time."""
        return asyncio.get_running_loop().call_later(seconds, callback)


def play(story: Coroutine[object, object, T]) -> T:
    """Run `story` in simulated time."""
    with asyncio.Runner(loop_factory=_SimulatedLoop) as runner:
        return runner.run(story)


class Timeline:
    """A table that grows by a line for each thing that happens. It is a `Listener`, so policies can write it.

    Args:
        title: Printed above it.
        clock: Says when things happened.
    """

    def __init__(self, title: str, clock: Clock) -> None:
        self._clock = clock
        self._table = table(title, "second", "who", "what")
        self._table.columns[0].justify = "right"

    def __call__(self, event: Event) -> None:
        """Note what a policy decided. How each call ended is up to the story to tell."""
        if isinstance(event, CallFinished):
            return
        told = event.details()
        del told["policy"]
        details = " ".join(f"{name}={_plain(value)}" for name, value in told.items())
        self.note(event.policy, f"{type(event).__name__} {details}", style="cyan")

    def note(self, who: str, what: str, *, style: str = "") -> None:
        """Write a line with the present time."""
        self._table.add_row(f"{self._clock.monotonic():.2f}", who, what, style=style)

    def show(self) -> None:
        """Print it."""
        console.print(self._table)


def table(title: str, *columns: str) -> Table:
    """Return an empty table in the style of all examples."""
    made = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    for number, column in enumerate(columns):
        made.add_column(column, no_wrap=number == 0, overflow="fold")  # what is too long goes on below
    return made


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return repr(value) if isinstance(value, BaseException) else str(value)
