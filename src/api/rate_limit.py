"""The rate limiter at the HTTP edge: the headers of a quota on every limited answer, and the 429."""

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
from src.resilience.rate_limiter.headers import Headers, QuotaHeaders, figures
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
        add_headers(request.scope, _headers(admission).policy)
    elif decision.allowed:
        add_headers(request.scope, *_headers(admission).of_decision(decision, services["clock"].now()))
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
    problem, headers = _problem_and_headers(
        admission, math.ceil(rejection.retry_after), *figures(rejection, services["clock"].now())
    )
    add_headers(scope, *headers)
    return problem


@lru_cache  # during a flood of requests the figures change only once a second
def _problem_and_headers(
    admission: Admission, retry_seconds: int, remaining: int, seconds: int, resets_at: int
) -> tuple[Problem, Headers]:
    problem = replace(RATE_LIMIT_EXCEEDED, retry_after=retry_seconds)
    return problem, _headers(admission).of_figures(remaining, seconds, resets_at)


@lru_cache
def _headers(admission: Admission) -> QuotaHeaders:
    return QuotaHeaders(admission.name, admission.quota)


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
