"""Work that is worth doing only while its client waits for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

T = TypeVar("T")

CLIENT_CLOSED_REQUEST = 499
"""The status logged for a client that left, as nginx has it. Nobody is there to read it."""


async def while_client_waits(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Do `work`, and stop it when the client hangs up.

    Args:
        request: One whose body has been read, or that has none.
        work: Cancelled at the latest when this returns.

    Returns:
        What `work` returns; None when the client has gone.

    Raises:
        BaseException: Whatever `work` raised.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
