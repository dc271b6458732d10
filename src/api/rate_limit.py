"""The rate limiter at the HTTP edge: the headers of a quota, and the 429.

The headers are `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), and the older
`X-RateLimit-*`. The value of `X-RateLimit-Reset` is a Unix time.
"""

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

from src.api.dependencies import State, scope_state, state
from src.api.errors import RATE_LIMIT_EXCEEDED, Problem, ProblemError
from src.api.request_context import add_headers
from src.resilience.rate_limiter.store import Decision
from src.services.access.admission import Admission, HitWithCommand
from src.services.errors import StorageUnavailableError

R = TypeVar("R")

AdmissionName: TypeAlias = Literal["ingest_admission", "read_admission", "page_admission"]
"""The key of an admission in the lifespan state."""


async def admit(request: Request, admission: Admission) -> None:
    """Count `request` against its client's quota, and add the quota's headers to the answer.

    Raises:
        ProblemError: 429 if the quota is used up.
        StorageUnavailableError: There is no decision, and the admission rejects such requests.
    """
    _apply(request, admission, await admission.decide(_client(request)))


async def admit_with(
    request: Request, admission: Admission, hit: HitWithCommand[R]
) -> R | StorageUnavailableError:
    """Admit `request` like `admit`. `hit` takes the unit of the quota together with another command.

    Returns:
        The result of the other command; the error of `hit` in place of the result.
    """
    decision, result = await admission.decide_with(_client(request), hit)
    _apply(request, admission, decision)
    return result


def _client(request: Request) -> str:
    return state(request)["client_address"].client(request.scope)


def _apply(request: Request, admission: Admission, decision: Decision | None) -> None:
    """Add the headers of a decision to the answer, and raise the 429 of a rejection."""
    services = state(request)
    if decision is None:
        add_headers(request.scope, (b"ratelimit-policy", _name_and_policy(admission)[1]))
    elif decision.allowed:
        figures = _header_figures(decision, services["clock"].now())
        add_headers(request.scope, *_quota_headers(admission, *figures))
    else:
        raise ProblemError(_reject(request.scope, services, admission, decision))


def known_rejection(scope: Scope, name: AdmissionName | None) -> Problem | None:
    """Return the 429 of a request whose client is already known to be over its quota.

    The function adds the quota's headers to the answer then.

    Args:
        scope: The scope of the request.
        name: The admission that counts the request; None if no quota applies.

    Returns:
        The problem; None if the limiter must decide.
    """
    if name is None:
        return None
    services = scope_state(scope)
    admission = services[name]
    rejection = admission.known_rejection(services["client_address"].client(scope))
    return _reject(scope, services, admission, rejection) if rejection else None


def _reject(scope: Scope, services: State, admission: Admission, rejection: Decision) -> Problem:
    figures = _header_figures(rejection, services["clock"].now())
    problem, headers = _problem_and_headers(admission, math.ceil(rejection.retry_after), *figures)
    add_headers(scope, *headers)
    return problem


def _header_figures(decision: Decision, now: float) -> tuple[int, int, int]:
    """Return the units that remain, the seconds until all units are available, and the Unix time of that."""
    return decision.remaining, math.ceil(decision.reset_after), math.ceil(now + decision.reset_after)


def _quota_headers(
    admission: Admission, remaining: int, seconds: int, resets_at: int
) -> tuple[tuple[bytes, bytes], ...]:
    name, policy = _name_and_policy(admission)
    return (
        (b"ratelimit-policy", policy),
        (b"ratelimit", b'"%s";r=%d;t=%d' % (name, remaining, seconds)),
        (b"x-ratelimit-limit", b"%d" % admission.quota.limit),
        (b"x-ratelimit-remaining", b"%d" % remaining),
        (b"x-ratelimit-reset", b"%d" % resets_at),
    )


@lru_cache  # during a flood of requests the figures change only once a second
def _problem_and_headers(
    admission: Admission, retry_seconds: int, remaining: int, seconds: int, resets_at: int
) -> tuple[Problem, tuple[tuple[bytes, bytes], ...]]:
    problem = replace(RATE_LIMIT_EXCEEDED, retry_after=retry_seconds)
    return problem, _quota_headers(admission, remaining, seconds, resets_at)


@lru_cache
def _name_and_policy(admission: Admission) -> tuple[bytes, bytes]:
    """Return the name of a quota, and the value of its `RateLimit-Policy` header."""
    name, quota = admission.name, admission.quota
    policy = f'"{name}";q={quota.limit};w={quota.window_seconds:g}'
    return name.encode("ascii"), policy.encode("ascii")


class ReadRoute(APIRoute):
    """A route that counts requests with an invalid parameter as reads; the endpoint counts all others.

    FastAPI rejects a request with an invalid parameter before it calls the endpoint. If such a request did
    not count, a client could send any number of them, and would not get the headers of its quota.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, extended to count invalid requests."""
        handle = super().get_route_handler()

        async def handle_or_admit(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                await admit(request, state(request)["read_admission"])
                raise

        return handle_or_admit
