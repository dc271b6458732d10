"""The rate limiter at the edge: the quota's headers on every limited answer, and the 429."""

import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from src.api.dependencies import State, state, state_of
from src.api.errors import RATE_LIMIT_EXCEEDED, Problem, ProblemError
from src.api.request_context import add_headers
from src.resilience.rate_limiter.headers import Headers, QuotaHeaders, figures
from src.resilience.rate_limiter.store import Decision
from src.services.access.admission import Admission, AskLimiter

AdmissionName: TypeAlias = Literal["ingest_admission", "read_admission", "page_admission"]
"""One of the services that admit."""


async def admit(request: Request, admission: Admission, hit: AskLimiter | None = None) -> None:
    """Count `request` against its client's quota, and put the quota's headers on the answer.

    Args:
        request: The request.
        admission: The admission that the request goes through.
        hit: Calls the limiter along with something else; without it, the limiter is called by itself.

    Raises:
        ProblemError: 429, the quota is spent.
    """
    services = state(request)
    decision = await admission.decide(services["client_address"].of(request.scope), hit)
    if decision is None:
        add_headers(request.scope, _headers(admission).policy)
    elif decision.allowed:
        add_headers(request.scope, *_headers(admission).of_decision(decision, services["clock"].now()))
    else:
        raise ProblemError(_refuse(request.scope, services, admission, decision))


def known_refusal(scope: Scope, name: AdmissionName | None) -> Problem | None:
    """Refuse a request whose client is known to be over its quota; return None where it has to be admitted.

    Args:
        scope: The scope of the request.
        name: The admission that the request would go through, if any.

    Returns:
        The 429. The quota's headers are put on the answer.
    """
    if name is None:
        return None
    services = state_of(scope)
    admission = services[name]
    refusal = admission.refusal(services["client_address"].of(scope))
    return _refuse(scope, services, admission, refusal) if refusal else None


def _refuse(scope: Scope, services: State, admission: Admission, refusal: Decision) -> Problem:
    problem, headers = _refusal(
        admission, math.ceil(refusal.retry_after), *figures(refusal, services["clock"].now())
    )
    add_headers(scope, *headers)
    return problem


@lru_cache  # a flood of requests gets the same refusal for a second
def _refusal(
    admission: Admission, retry_seconds: int, remaining: int, seconds: int, resets_at: int
) -> tuple[Problem, Headers]:
    problem = replace(RATE_LIMIT_EXCEEDED, retry_after=retry_seconds)
    return problem, _headers(admission).of_figures(remaining, seconds, resets_at)


@lru_cache
def _headers(admission: Admission) -> QuotaHeaders:
    return QuotaHeaders(admission.name, admission.quota)


class ReadRoute(APIRoute):
    """A route whose endpoint admits its requests as reads, and that admits requests with a wrong parameter.

    FastAPI refuses a request with a wrong parameter before the endpoint is called. Unless it counts too, a
    client may send as many as it likes, and does not learn its quota.
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
