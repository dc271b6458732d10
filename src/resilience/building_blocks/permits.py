"""A number of permits, and the queue of callers that wait for one: first come, first served.

This is `asyncio.Semaphore` with a queue that can be examined, a number of permits that can change, and no
permit lost when a waiting caller ends, whether it is cancelled or its coroutine is closed.
"""

import asyncio
from asyncio import get_running_loop
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress


class Permits:
    """Permits of one event loop at a time.

    A permit is handed over on one event loop only. So a caller of another loop cannot wait for a permit while
    the last permit, or a place in the queue, belongs to a loop that is not closed.

    Args:
        total: The number of permits, at least 1.

    Attributes:
        total: Set by `resize`.
        in_use: The number of permits taken. It may be above `total` for a while after `total` was reduced.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.in_use = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._loop_of_last: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """Return the number of callers that wait."""
        return len(self._queue)

    def resize(self, total: int) -> None:
        """Set the number of permits. New permits go to waiting callers at once; fewer take none back."""
        self.total = total
        self._hand_out()

    def try_take(self) -> bool:
        """Take a permit and return True, or return False if the caller must wait.

        While callers wait, every permit is in use, so no caller is overtaken.
        """
        if self.in_use >= self.total:
            return False
        self.in_use += 1
        if self.in_use == self.total:
            self._loop_of_last = get_running_loop()  # not for each permit: it costs a system call
        return True

    async def wait(self, check: Callable[[], Awaitable[object]] | None = None) -> None:
        """Return with a permit taken, after `try_take` returned False. A caller that ends before takes none.

        Args:
            check: Awaited first, while the caller is in the queue already; the caller leaves if it raises.

        Raises:
            RuntimeError: A caller of another event loop holds the last permit or waits for one.
            BaseException: The error of `check`.
        """
        loop = get_running_loop()
        other = self._queue[0].get_loop() if self._queue else self._loop_of_last
        if other is not None and other is not loop and not other.is_closed():
            raise RuntimeError("a caller of another event loop holds the last permit or waits for one")
        place = loop.create_future()
        self._queue.append(place)
        try:
            if check is not None:
                await check()
            await place
        except BaseException:
            if place.done() and not place.cancelled():  # the permit came in the same tick
                self.give_back()
            else:
                with suppress(ValueError):  # `give_back` has already removed it
                    self._queue.remove(place)
            raise

    def give_back(self) -> None:
        """Give a permit back; the caller that has waited longest takes it."""
        self.in_use -= 1
        if self._queue:
            self._hand_out()

    def _hand_out(self) -> None:
        while self._queue and self.in_use < self.total:
            place = self._queue.popleft()
            if not place.done() and not (loop := place.get_loop()).is_closed():
                self.in_use += 1
                self._loop_of_last = loop
                place.set_result(None)
