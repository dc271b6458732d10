"""Reads, which begin while the limiter decides, so that both share a round trip to Redis."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import Request

from src.api.dependencies import state
from src.api.errors import ProblemError
from src.api.rate_limit import AdmissionName, admit

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Read(Protocol[T_co]):
    """A read that has begun. It must be harmless: it is begun before the limiter has decided."""

    async def result(self) -> T_co:
        """Return what was read."""
        ...

    async def cancel(self) -> None:
        """Stop reading; nobody receives the result."""
        ...


class ReadTask(Generic[T]):
    """A read in a task of its own, which begins in the next turn of the event loop.

    Args:
        work: Reads.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = asyncio.ensure_future(work)

    async def result(self) -> T:
        """Return what was read."""
        return await self._task

    async def cancel(self) -> None:
        """Stop reading."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)  # or asyncio would log its failure


async def admit_and_read(
    request: Request, begin: Callable[[], Read[T]], name: AdmissionName = "read_admission"
) -> T:
    """Admit `request` as a read, and meanwhile begin to read, so that both share a round trip to Redis.

    Args:
        request: The request.
        begin: Begins the read. It may raise a `ProblemError` of what is wrong with the request.
        name: The admission that the request goes through.

    Returns:
        The result of the read.

    Raises:
        ProblemError: 429, the quota is spent; else the one that `begin` raised, which counts as a read.
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
