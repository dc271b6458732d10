"""Rate limits at the HTTP edge: the 429 answer, and the quota headers of every limited answer."""

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

AdmissionKey: TypeAlias = Literal["ingest_admission", "read_admission", "page_admission"]
"""The key of an `Admission` in the lifespan state. Each admission decides on requests by one quota."""


async def admit(request: Request, admission: Admission) -> None:
    """Count `request` against its client's quota, and add the quota's headers to the answer.

    Raises:
        ProblemError: 429 if the quota is used up.
        StorageUnavailableError: The limiter cannot decide, and the outage policy is "closed".
    """
    _apply_decision(request, admission, await admission.decide(_client(request)))


async def admit_with_command(
    request: Request, admission: Admission, hit: HitWithCommand[R]
) -> R | StorageUnavailableError:
    """Admit `request` like `admit`, and run another command in the same step.

    Args:
        request: The request.
        admission: Decides on the request.
        hit: Takes one unit of the quota, and runs the other command.

    Returns:
        The result of the other command. If `hit` failed but the request is admitted, the error of `hit`.

    Raises:
        ProblemError: 429 if the quota is used up.
        StorageUnavailableError: The limiter cannot decide, and the outage policy is "closed".
    """
    decision, result = await admission.decide_with(_client(request), hit)
    _apply_decision(request, admission, decision)
    return result


def _client(request: Request) -> str:
    return state(request)["client_address"].client(request.scope)


def _apply_decision(request: Request, admission: Admission, decision: Decision | None) -> None:
    """Add the quota headers to the answer; raise a `ProblemError` (429) if `decision` rejects the request."""
    services = state(request)
    if decision is None:
        add_headers(request.scope, _quota_headers(admission).policy)
    elif decision.allowed:
        add_headers(request.scope, *_quota_headers(admission).of_decision(decision, services["clock"].now()))
    else:
        raise ProblemError(_rejection_problem(request.scope, services, admission, decision))


def known_rejection(scope: Scope, admission_key: AdmissionKey | None) -> Problem | None:
    """Return the 429 for a request if its client is already known to be over its quota.

    In this case the function also adds the quota headers to the answer.

    Args:
        scope: The scope of the request.
        admission_key: The key of the admission that counts the request; None if no quota applies.

    Returns:
        The problem; None if the limiter must decide, or if no quota applies.
    """
    if admission_key is None:
        return None
    services = scope_state(scope)
    admission = services[admission_key]
    rejection = admission.known_rejection(services["client_address"].client(scope))
    return _rejection_problem(scope, services, admission, rejection) if rejection else None


def _rejection_problem(scope: Scope, services: State, admission: Admission, rejection: Decision) -> Problem:
    """Add the quota headers to the answer, and return its 429."""
    problem, headers = _problem_and_headers(
        admission, math.ceil(rejection.retry_after), *figures(rejection, services["clock"].now())
    )
    add_headers(scope, *headers)
    return problem


@lru_cache  # during a flood of requests, the arguments change only once a second
def _problem_and_headers(
    admission: Admission, retry_seconds: int, remaining: int, reset_seconds: int, resets_at: int
) -> tuple[Problem, Headers]:
    problem = replace(RATE_LIMIT_EXCEEDED, retry_after=retry_seconds)
    return problem, _quota_headers(admission).of_figures(remaining, reset_seconds, resets_at)


@lru_cache
def _quota_headers(admission: Admission) -> QuotaHeaders:
    return QuotaHeaders(admission.name, admission.quota)


class ReadRoute(APIRoute):
    """A route that counts requests with an invalid parameter as reads. The endpoint counts all others.

    FastAPI rejects a request with an invalid parameter before it calls the endpoint. Without this route, a
    client could send any number of invalid requests, and their answers would lack the quota headers.
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
