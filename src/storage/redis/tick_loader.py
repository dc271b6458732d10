"""TickLoader: joins the requests of one tick of the event loop into one call.

Each caller gets the result of its own request. If the call fails, each caller gets the error. Databases write
their logs in the same way: group commit (DeWitt et al., "Implementation Techniques for Main Memory Database
Systems", SIGMOD 1984).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")
A = TypeVar("A")


class TickLoader(Generic[T, A]):
    """Collects requests during a tick, and loads them together.

    Args:
        load: Called with the requests of a tick. It returns one result for each request, in the same order.
    """

    def __init__(self, load: Callable[[list[T]], Awaitable[Sequence[A]]]) -> None:
        self._load = load
        self._requests: list[T] = []
        self._waiting: list[asyncio.Future[A]] = []
        self._tasks: dict[asyncio.Task[None], tuple[list[T], list[asyncio.Future[A]]]] = {}

    def add(self, request: T) -> "asyncio.Future[A]":
        """Add `request` to those of this tick.

        Returns:
            A future of its result. It raises the error of `load`. The caller need not await it, and the
            request is loaded even if the caller stops waiting.
        """
        if self._waiting:
            loop = self._waiting[0].get_loop()  # get_running_loop is a system call up to Python 3.11
        else:
            loop = asyncio.get_running_loop()
            # The task serves several callers: it must not inherit the context variables of one of them.
            task = loop.create_task(self._run(), context=Context())
            self._tasks[task] = self._requests, self._waiting
            task.add_done_callback(self._tasks.pop)
        future: asyncio.Future[A] = loop.create_future()
        self._requests.append(request)
        self._waiting.append(future)
        return future

    def resolve(self, find: Callable[[T], A | None]) -> None:
        """Finish requests early, before `load` returns. The other requests wait for `load`.

        Args:
            find: Called for every pending request, in order, including finished ones. It returns the result
                of the request, or None if the request must wait.
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
                if not future.done():  # a future that is done was cancelled, or finished by `resolve`
                    future.set_result(result)
        except BaseException as error:  # noqa: BLE001 -- every caller gets the error
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # asyncio then logs no "exception was never retrieved"
            del waiting, future  # break the reference cycle: future, error, traceback, this frame
