"""Group commit: what several callers want stored in one tick of the event loop is stored in one step.

Each caller waits until its own is stored, and is told so or why not, as if it had asked alone; only the work
is shared. Databases do so with their logs. (DeWitt et al., "Implementation Techniques for Main Memory
Database Systems", SIGMOD 1984.)
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")


class GroupCommit(Generic[T]):
    """Gathers items.

    Args:
        commit: Stores a tick's items, in the order they came, all or none.
    """

    def __init__(self, commit: Callable[[list[T]], Awaitable[object]]) -> None:
        self._commit = commit
        self._items: list[T] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._commits: set[asyncio.Task[None]] = set()

    def add(self, item: T) -> "asyncio.Future[None]":
        """Return a future that is done once `item` is stored, and that raises what `commit` raises.

        Who stops waiting for it does not take the item back.
        """
        loop = asyncio.get_running_loop()
        if not self._items:
            # The commit belongs to none of its callers: a clean context.
            loop.call_soon(self._begin, context=Context())
        future: asyncio.Future[None] = loop.create_future()
        self._items.append(item)
        self._waiting.append(future)
        return future

    def _begin(self) -> None:
        items, self._items = self._items, []
        waiting, self._waiting = self._waiting, []
        task = asyncio.create_task(self._run(items, waiting))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)

    async def _run(self, items: list[T], waiting: "list[asyncio.Future[None]]") -> None:
        error: BaseException | None = None
        try:
            await self._commit(items)
        except BaseException as raised:  # noqa: BLE001 -- its callers' affair
            error = raised
        for future in waiting:
            if future.done():  # its caller has gone
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
