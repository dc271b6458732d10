"""Work that stops when its client disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

T = TypeVar("T")

CLIENT_CLOSED_REQUEST = 499
"""The status that is logged when the client disconnects before the answer. nginx uses the same number."""


async def while_client_waits(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Run `work`, and cancel it when the client disconnects.

    Args:
        request: A request without a body, or whose body has been read.
        work: The coroutine to run. It has always ended when this function returns.

    Returns:
        The result of `work`; None if the client disconnected first.

    Raises:
        BaseException: Any error of `work`.
    """
    work_task = asyncio.create_task(work)
    disconnect_task = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait((work_task, disconnect_task), return_when=asyncio.FIRST_COMPLETED)
        return work_task.result() if work_task.done() else None
    finally:
        work_task.cancel()
        disconnect_task.cancel()
        await asyncio.gather(work_task, disconnect_task, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
