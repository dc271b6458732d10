"""Shared tasks (single flight): all callers of a key wait for the same task while it is running.

A cancellation of a caller does not cancel the task: it continues for the other callers, and to its end.
"""

import asyncio
from collections.abc import Coroutine, Hashable
from contextvars import Context
from typing import Generic, NamedTuple, TypeVar

from ..clock import Clock

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SharedTask(NamedTuple, Generic[T]):
    """A task and the time of its beginning.

    Attributes:
        task: The task.
        began_at: The start of the task, in seconds of the clock's monotonic time.
    """

    task: "asyncio.Task[T]"
    began_at: float

    async def result(self) -> T:
        """Wait for the task and return its result. Unlike `await`, a cancelled caller does not cancel it."""
        await asyncio.wait((self.task,))
        return self.task.result()


class SharedTasks(Generic[K, T]):
    """The shared tasks by key. They run on one event loop at a time.

    Args:
        clock: The clock for the beginning of a task.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shared: dict[K, SharedTask[T]] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    def get(self, key: K) -> SharedTask[T] | None:
        """Return the running task of `key`, or None if there is none.

        Raises:
            RuntimeError: The task runs on another event loop, which is not closed.
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
        """Begin a task that the callers of `key` share until it ends.

        Args:
            key: The key of the task.
            work: The coroutine that the task runs.
            context: The context variables of the task. None: a copy of the caller's.
        """
        task = asyncio.create_task(work, context=context)
        shared = self._shared[key] = SharedTask(task, self._clock.monotonic())
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._end(key, shared))
        return shared

    def forget(self, key: K) -> None:
        """Remove the task of `key`, so that `get` does not return it.

        Callers that wait still get its result.
        """
        self._shared.pop(key, None)

    async def aclose(self) -> None:
        """Cancel every task. The callers that wait for a task are cancelled too."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end(self, key: K, shared: SharedTask[T]) -> None:
        self._tasks.discard(shared.task)
        if self._shared.get(key) is shared:  # after `forget`, the key may have a newer task
            del self._shared[key]
        if not shared.task.cancelled():
            shared.task.exception()  # asyncio then logs no "exception was never retrieved"
