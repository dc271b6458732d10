"""Reads that begin while the rate limiter decides, so that both share one round trip to Redis."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import Request

from src.api.dependencies import state
from src.api.errors import ProblemError
from src.api.rate_limit import AdmissionKey, admit

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Read(Protocol[T_co]):
    """A read that has begun. It must have no side effects, since the limiter may still reject the request."""

    async def result(self) -> T_co:
        """Return the result of the read."""
        ...

    async def cancel(self) -> None:
        """Stop reading. The result is not used."""
        ...


class ReadTask(Generic[T]):
    """A read in its own task, which starts in the next iteration of the event loop.

    Args:
        work: The coroutine that reads.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = asyncio.ensure_future(work)

    async def result(self) -> T:
        """Return the result of the read."""
        return await self._task

    async def cancel(self) -> None:
        """Stop reading."""
        self._task.cancel()
        await asyncio.gather(
            self._task, return_exceptions=True
        )  # otherwise asyncio logs a failure of the read


async def admit_and_read(
    request: Request, begin: Callable[[], Read[T]], name: AdmissionKey = "read_admission"
) -> T:
    """Begin a read, admit `request` at the same time, and return the result of the read.

    Args:
        request: The request.
        begin: Begins the read. It raises a `ProblemError` if the request is invalid. An invalid request uses
            up the quota too.
        name: The admission that counts the request.

    Raises:
        ProblemError: 429 if the quota is used up; otherwise the error that `begin` raised.
    """
    admission = state(request)[name]
    try:
        read = begin()
    except ProblemError:
        await admit(request, admission)
        raise
    try:
        await admit(request, admission)
    except BaseException:
        await read.cancel()
        raise
    return await read.result()
