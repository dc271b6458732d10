"""The rate limiter at the edge: whose quota, which headers, and the 429.

Headers: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), and the older
`X-RateLimit-*`, whose reset is Unix time.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias, TypeVar

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from src.api.dependencies import state, state_of
from src.api.errors import CONTENT_TYPE, RATE_LIMIT_EXCEEDED, ProblemError, document, retry_after
from src.api.ready_response import ReadyResponse
from src.api.request_context import add_headers
from src.resilience.rate_limiter import Decision
from src.services.access.admission import Admission, AskLimiter

T = TypeVar("T")

AdmissionName: TypeAlias = Literal["ingest_admission", "read_admission"]
"""One of the services that admit."""


async def admit(request: Request, admission: Admission, hit: AskLimiter | None = None) -> None:
    """Count `request` against its client's quota and have the quota's headers put on the answer.

    Args:
        request: What is to be admitted.
        admission: Which one it goes through.
        hit: Asks the limiter along with something else; without it, the limiter is asked by itself.

    Raises:
        ProblemError: 429, the quota is spent.
    """
    services = state(request)
    decision = await admission.decide(services["client_address"].of(request.scope), hit)
    if decision is None:
        add_headers(request.scope, (b"ratelimit-policy", _described(admission)[1]))
        return
    add_headers(request.scope, *_quota_headers(admission, *_told(decision, services["clock"].now())))
    if not decision.allowed:
        raise ProblemError(replace(RATE_LIMIT_EXCEEDED, retry_after=decision.retry_after))


def known_refusal(scope: Scope, name: AdmissionName | None) -> Coroutine[Any, Any, Response] | None:
    """Refuse a request whose client is known to be over its quota; None where it has to be admitted.

    Args:
        scope: Of the request.
        name: Of the admission that it would go through, if any.

    Returns:
        The 429, to be awaited, with the quota's headers put on it.
    """
    if name is None:
        return None
    services = state_of(scope)
    admission = services[name]
    refusal = admission.refusal(services["client_address"].of(scope))
    return _refuse(scope, admission, refusal, services["clock"].now()) if refusal else None


async def _refuse(scope: Scope, admission: Admission, refusal: Decision, now: float) -> Response:
    headers = _refusal_headers(admission, math.ceil(refusal.retry_after), *_told(refusal, now))
    body = document(RATE_LIMIT_EXCEEDED, scope["request_id"], now)
    return ReadyResponse(body, RATE_LIMIT_EXCEEDED.status, CONTENT_TYPE, headers)


def _told(decision: Decision, now: float) -> tuple[int, int, int]:
    """Return what the headers tell: units left, seconds until all are free, and the Unix time of that."""
    return decision.remaining, math.ceil(decision.reset_after), math.ceil(now + decision.reset_after)


def _quota_headers(
    admission: Admission, remaining: int, seconds: int, resets_at: int
) -> tuple[tuple[bytes, bytes], ...]:
    name, policy = _described(admission)
    return (
        (b"ratelimit-policy", policy),
        (b"ratelimit", b'"%s";r=%d;t=%d' % (name, remaining, seconds)),
        (b"x-ratelimit-limit", b"%d" % admission.quota.limit),
        (b"x-ratelimit-remaining", b"%d" % remaining),
        (b"x-ratelimit-reset", b"%d" % resets_at),
    )


@lru_cache  # who floods us is told the same for a second
def _refusal_headers(
    admission: Admission, retry_seconds: int, remaining: int, seconds: int, resets_at: int
) -> tuple[tuple[bytes, bytes], ...]:
    return *_quota_headers(admission, remaining, seconds, resets_at), retry_after(retry_seconds)


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
