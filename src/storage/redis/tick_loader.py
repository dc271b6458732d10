"""TickLoader: what several callers ask in one tick of the event loop is asked in one step.

Each caller waits for its own answer, or is told why there is none, as if it had asked alone; only the work
is shared. Databases so write their logs, and call it group commit. (DeWitt et al., "Implementation
Techniques for Main Memory Database Systems", SIGMOD 1984.)
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")
A = TypeVar("A")


class TickLoader(Generic[T, A]):
    """Gathers what is asked.

    Args:
        ask: Answers a tick's questions, in the order they came: as many answers, in the same order.
    """

    def __init__(self, ask: Callable[[list[T]], Awaitable[Sequence[A]]]) -> None:
        self._ask = ask
        self._questions: list[T] = []
        self._waiting: list[asyncio.Future[A]] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._under_way: dict[int, tuple[list[T], list[asyncio.Future[A]]]] = {}

    def add(self, question: T) -> "asyncio.Future[A]":
        """Return a future of the answer to `question`, which raises what asking raised.

        Who stops waiting for it does not take the question back, and it need not be awaited.
        """
        if self._waiting:
            loop = self._waiting[0].get_loop()  # to ask which one runs is a system call, up to Python 3.11
        else:
            loop = asyncio.get_running_loop()
            # What is asked belongs to none of the callers: a clean context.
            task = loop.create_task(self._run(), context=Context())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        future: asyncio.Future[A] = loop.create_future()
        self._questions.append(question)
        self._waiting.append(future)
        return future

    def resolve(self, answer: Callable[[T], A | None]) -> None:
        """Finish the requests under way that `answer` has an answer to; the others go on waiting.

        Args:
            answer: Called for every request under way, in order, those that are finished included.
        """
        for questions, waiting in self._under_way.values():
            for question, future in zip(questions, waiting, strict=True):
                found = answer(question)
                if found is not None and not future.done():
                    future.set_result(found)

    async def finish(self) -> None:
        """Wait until everything that was added has its answer."""
        while self._asking:
            await asyncio.wait(self._asking)

    async def _run(self) -> None:
        questions, self._questions = self._questions, []
        waiting, self._waiting = self._waiting, []
        self._under_way[id(waiting)] = questions, waiting
        try:
            for future, answer in zip(waiting, await self._ask(questions), strict=True):
                if not future.done():  # else its caller has gone
                    future.set_result(answer)
        except BaseException as error:  # noqa: BLE001 -- its callers' affair
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # counts as seen, though its caller may not want it any more
            del future  # it holds the error, whose traceback holds this frame
        finally:
            del self._under_way[id(waiting)], waiting
