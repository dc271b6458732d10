"""Tasks that several callers wait for: each begun once for all who name the same key meanwhile.

A task belongs to none of its callers: one that is cancelled harms no other, and the task goes on to its end.
"""

import asyncio
from collections.abc import Coroutine, Hashable
from contextvars import Context
from typing import Generic, NamedTuple, TypeVar

from .clock import Clock

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SharedTask(NamedTuple, Generic[T]):
    """A task under way.

    Attributes:
        task: The task.
        began_at: When it began, by the clock's monotonic reading in seconds.
    """

    task: "asyncio.Task[T]"
    began_at: float


class SharedTasks(Generic[K, T]):
    """The tasks of one event loop at a time, by key.

    Args:
        clock: Says when a task began.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shared: dict[K, SharedTask[T]] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    def get(self, key: K) -> SharedTask[T] | None:
        """Return the task of `key`, if there is one under way.

        Raises:
            RuntimeError: It runs on another event loop that is not over.
        """
        shared = self._shared.get(key)
        if shared is None or (loop := shared.task.get_loop()) is asyncio.get_running_loop():
            return shared
        if not (shared.task.done() or loop.is_closed()):
            raise RuntimeError(f"{key!r} is being computed on another event loop")
        del self._shared[key]
        return None

    def begin(
        self, key: K, work: Coroutine[object, object, T], context: Context | None = None
    ) -> SharedTask[T]:
        """Begin a task for all who name `key` until it ends.

        Args:
            key: Names the task.
            work: What it does.
            context: Its context variables; None: those of the caller.
        """
        task = asyncio.create_task(work, context=context)
        shared = self._shared[key] = SharedTask(task, self._clock.monotonic())
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._end(key, shared))
        return shared

    def forget(self, key: K) -> None:
        """Let nobody else join the task of `key`; those who wait for it still get its result."""
        self._shared.pop(key, None)

    async def aclose(self) -> None:
        """Cancel every task and every caller that waits for one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end(self, key: K, shared: SharedTask[T]) -> None:
        self._tasks.discard(shared.task)
        if self._shared.get(key) is shared:  # and not its successor
            del self._shared[key]
        if not shared.task.cancelled():
            shared.task.exception()  # counts as seen, though every caller may have gone
