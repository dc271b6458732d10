"""A number of permits, and the queue of callers that wait for one: first come, first served.

What `asyncio.Semaphore` is, with a queue that can be looked at, a number of permits that can change, and no
permit lost when a waiting caller ends: not by a cancellation, and not by the closing of its coroutine.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress


class Permits:
    """Permits of one event loop at a time.

    Args:
        total: How many permits there are, at least 1.

    Attributes:
        total: Set by `resize`.
        in_use: How many permits are taken; above `total` for a while after that was reduced.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.in_use = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Return how many callers wait."""
        return len(self._queue)

    def resize(self, total: int) -> None:
        """Set the number of permits. More are handed to waiting callers at once; fewer take none back."""
        self.total = total
        self._hand_out()

    def try_take(self) -> bool:
        """Take a permit and return True, or return False where a caller would have to wait.

        While anyone waits every permit is in use, so nobody is overtaken.
        """
        if self.in_use >= self.total:
            return False
        self.in_use += 1
        return True

    async def wait(self, check: Callable[[], Awaitable[object]] | None = None) -> None:
        """Return with a permit taken. A caller that ends before, for whatever reason, takes none.

        Args:
            check: Awaited first, with the caller's place in the queue taken; the caller leaves if it raises.

        Raises:
            RuntimeError: Callers of another event loop wait. Permits are handed over on one loop only.
            BaseException: Whatever `check` raised.
        """
        loop = asyncio.get_running_loop()
        if self._queue and (other := self._queue[0].get_loop()) is not loop and not other.is_closed():
            raise RuntimeError("callers of another event loop wait for a permit")
        turn = loop.create_future()
        self._queue.append(turn)
        try:
            if check is not None:
                await check()
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # the permit came in the same tick
                self.give_back()
            else:
                with suppress(ValueError):  # it was passed over when it came to the front
                    self._queue.remove(turn)
            raise

    def give_back(self) -> None:
        """Give a permit back; the caller that has waited longest takes it."""
        self.in_use -= 1
        if self._queue:
            self._hand_out()

    def _hand_out(self) -> None:
        while self._queue and self.in_use < self.total:
            turn = self._queue.popleft()
            if not turn.done() and not turn.get_loop().is_closed():
                self.in_use += 1
                turn.set_result(None)
