"""TickLoader: the requests of several callers in one tick of the event loop are loaded in one step.

Each caller waits for its own result or error, as if it had been alone; only the work is shared. Databases
write their logs in this way, and call it group commit. (DeWitt et al., "Implementation Techniques for Main
Memory Database Systems", SIGMOD 1984.)
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")
A = TypeVar("A")


class TickLoader(Generic[T, A]):
    """Gathers requests.

    Args:
        load: Returns the results of a tick's requests: as many, in the same order.
    """

    def __init__(self, load: Callable[[list[T]], Awaitable[Sequence[A]]]) -> None:
        self._load = load
        self._requests: list[T] = []
        self._waiting: list[asyncio.Future[A]] = []
        self._tasks: dict[asyncio.Task[None], tuple[list[T], list[asyncio.Future[A]]]] = {}

    def add(self, request: T) -> "asyncio.Future[A]":
        """Return a future of the result of `request`, which raises what loading raised.

        A caller that stops waiting does not take the request back, and the future need not be awaited.
        """
        if self._waiting:
            loop = self._waiting[0].get_loop()  # get_running_loop is a system call up to Python 3.11
        else:
            loop = asyncio.get_running_loop()
            # The requests belong to no single caller: a clean context.
            task = loop.create_task(self._run(), context=Context())
            self._tasks[task] = self._requests, self._waiting
            task.add_done_callback(self._tasks.pop)
        future: asyncio.Future[A] = loop.create_future()
        self._requests.append(request)
        self._waiting.append(future)
        return future

    def resolve(self, find: Callable[[T], A | None]) -> None:
        """Finish the requests under way that `find` has a result for; the others go on waiting.

        Args:
            find: Called for every request under way, in order, those that are finished included.
        """
        for requests, waiting in self._tasks.values():
            for request, future in zip(requests, waiting, strict=True):
                found = find(request)
                if found is not None and not future.done():
                    future.set_result(found)

    async def finish(self) -> None:
        """Wait until every request that was added is finished."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self) -> None:
        requests, self._requests = self._requests, []
        waiting, self._waiting = self._waiting, []
        try:
            for future, result in zip(waiting, await self._load(requests), strict=True):
                if not future.done():  # else its caller has gone
                    future.set_result(result)
        except BaseException as error:  # noqa: BLE001 -- it reaches every caller
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # counts as seen, though its caller may not want it any more
            del waiting, future  # they hold the error, whose traceback holds this frame
