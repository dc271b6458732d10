"""The rate limiter at the edge: whose quota, which headers, and the 429.

Headers: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), and the older
`X-RateLimit-*`, whose reset is Unix time.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from src.api.dependencies import state
from src.api.errors import ProblemError, rate_limit_problem
from src.api.middleware.request_context import add_headers
from src.services.admission import Admission

T = TypeVar("T")


async def admit(request: Request, admission: Admission) -> None:
    """Count `request` against its client's quota and have the quota's headers put on the answer.

    Raises:
        ProblemError: 429, the quota is spent.
    """
    services = state(request)
    decision = await admission.decide(services["client_address"].of(request.scope))
    name, policy = _described(admission)
    add_headers(request.scope, (b"ratelimit-policy", policy))
    if decision is None:
        return
    seconds = math.ceil(decision.reset_after)
    resets_at = math.ceil(services["clock"].now() + decision.reset_after)
    add_headers(
        request.scope,
        (b"ratelimit", b'"%s";r=%d;t=%d' % (name, decision.remaining, seconds)),
        (b"x-ratelimit-limit", b"%d" % decision.limit),
        (b"x-ratelimit-remaining", b"%d" % decision.remaining),
        (b"x-ratelimit-reset", b"%d" % resets_at),
    )
    if not decision.allowed:
        raise ProblemError(rate_limit_problem(decision.retry_after))


@lru_cache
def _described(admission: Admission) -> tuple[bytes, bytes]:
    """Return the name and the `RateLimit-Policy` of a quota."""
    name, quota = admission.name, admission.quota
    policy = f'"{name}";q={quota.limit};w={quota.window_seconds:g}'
    return name.encode("ascii"), policy.encode("ascii")


async def admit_alongside(request: Request, admission: Admission, work: Coroutine[Any, Any, T]) -> T:
    """Admit `request` and do `work` at the same time, so that both share a round trip to Redis.

    Returns:
        What `work` returns. It must be harmless: it is begun before the verdict, and dropped if refused.

    Raises:
        ProblemError: 429, the quota is spent.
    """
    task = asyncio.ensure_future(work)
    try:
        await admit(request, admission)
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # or its own failure would be logged as never seen
        raise
    return await task


class ReadRoute(APIRoute):
    """A route whose endpoint admits its requests as reads, and that admits those it never sees.

    FastAPI refuses a request with a wrong parameter before the endpoint is called. Unless it counts too, a
    client may send as many as it likes, and is not told its quota. A dependency would do it, were it not for
    `admit_alongside`: the verdict and what is read along with it have to leave in the same round trip.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's own handler, with the refused admitted."""
        handle = super().get_route_handler()

        async def handle_or_admit(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                await admit(request, state(request)["read_admission"])
                raise

        return handle_or_admit
