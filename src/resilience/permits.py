"""A number of permits, and the queue of callers that wait for one: first come, first served.

This is `asyncio.Semaphore` with a queue that can be examined, a number of permits that can change, and no
permit lost when a waiting caller ends, whether it is cancelled or its coroutine is closed.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress


class Permits:
    """Permits of one event loop at a time.

    A permit is handed over on one event loop only, so callers of a second one are rejected while callers of
    the first hold permits or wait for them. When the first event loop is closed, the second one takes over.

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
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """Return the number of callers that wait."""
        return len(self._queue)

    def resize(self, total: int) -> None:
        """Set the number of permits. New permits go to waiting callers at once; fewer take none back."""
        self.total = total
        self._hand_out()

    def try_take(self) -> bool:
        """Take a permit and return True, or return False where the caller has to wait.

        While callers wait, every permit is in use, so no caller is overtaken.

        Raises:
            RuntimeError: Callers of another event loop hold permits or wait for them.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        if self.in_use >= self.total:
            return False
        self.in_use += 1
        return True

    async def wait(self, check: Callable[[], Awaitable[object]] | None = None) -> None:
        """Return with a permit taken, after `try_take` returned False. A caller that ends before takes none.

        Args:
            check: Awaited first, while the caller is in the queue already; the caller leaves if it raises.

        Raises:
            BaseException: The error of `check`.
        """
        place = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            if check is not None:
                await check()
            await place
        except BaseException:
            if place.done() and not place.cancelled():  # the permit came in the same tick
                self.give_back()
            else:
                with suppress(ValueError):  # it was passed over when it came to the front
                    self._queue.remove(place)
            raise

    def give_back(self) -> None:
        """Give a permit back; the caller that has waited longest takes it."""
        self.in_use -= 1
        if self._queue:
            self._hand_out()

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        other = self._loop
        if other is not None and (self.in_use or self._queue) and not other.is_closed():
            raise RuntimeError("callers of another event loop hold permits or wait for one")
        self._loop = loop

    def _hand_out(self) -> None:
        while self._queue and self.in_use < self.total:
            place = self._queue.popleft()
            if not place.done() and not place.get_loop().is_closed():
                self.in_use += 1
                place.set_result(None)
