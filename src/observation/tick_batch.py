"""What happens in one tick of the event loop, told together at its end.

Whoever counts or logs what every request does has a little to do once, and little for each: under load there
are many to a tick, and then it is the each that counts.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")


class TickBatch(Generic[T]):
    """Gathers what happens.

    Args:
        tell: Told what happened in a tick, in order; never of nothing. What it raises goes to the loop's
            exception handler, and harms nobody whose doing it was.
    """

    def __init__(self, tell: Callable[[list[T]], object]) -> None:
        self._tell = tell
        self._happened: list[T] = []

    def add(self, happened: T, /) -> None:
        """Have this told at the end of the tick. Costs next to nothing."""
        if not self._happened:
            # What is told belongs to no single request: a clean context.
            asyncio.get_running_loop().call_soon(self._end, context=Context())
        self._happened.append(happened)

    def _end(self) -> None:
        happened, self._happened = self._happened, []
        self._tell(happened)
