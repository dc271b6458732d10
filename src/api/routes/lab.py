"""The resilience lab: calls through the API's own pipeline, manual control of the breaker, load tests.

Every client that may read may make the lab's calls: they use the read quota, a run is bounded, and few of its
calls are in the pipeline at a time. Requests that change state or make load need the admin key.
"""

from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from src.api.admin_access import RequireAdmin
from src.api.dependencies import state
from src.api.disconnect import CLIENT_CLOSED_REQUEST, while_client_waits
from src.api.errors import Problem, ProblemError
from src.api.models.lab import CircuitStateOut, LabRun, StressOut
from src.api.openapi import ADMIN_ERRORS, problems
from src.api.rate_limit import ReadRoute, admit
from src.api.routes.circuit_breaker import breaker_out
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.services.lab import FAILING, MAX_CALLS, MIXED, SLOW, LabBusyError
from src.services.lab_report import RunReport

T = TypeVar("T")

router = APIRouter(tags=["lab"])
runs = APIRouter(route_class=ReadRoute, tags=["lab"])

Count = Annotated[int, Query(ge=1, le=MAX_CALLS, description="How many calls")]

_RUN_ERRORS = problems(
    "VALIDATION_ERROR",
    "RATE_LIMIT_EXCEEDED",
    Problem(429, "LAB_BUSY", f"The calls under way leave no room for 1 more; there may be {MAX_CALLS}"),
)


@runs.get("/invoke", response_model=LabRun, summary="Call the provider", responses=_RUN_ERRORS)
async def invoke(request: Request, count: Count = 1) -> RunReport | Response:
    """Make `count` calls through the pipeline, calling `/get`, `/delay/3` and `/status/500` in turn.

    They run at the same time, as far as the pipeline allows: fallback, rate limiter, bulkhead, circuit
    breaker, retry, and a timeout of 2 s for each attempt, so `/delay/3` times out. The answer has the outcome
    of each call. The breaker is the API's own: when the lab's calls open it, it is open. A run ends after
    120 s, and when the client disconnects.
    """
    return await _run(request, count, MIXED)


@runs.get(
    "/invoke_delay", response_model=LabRun, summary="Call the provider for slow answers",
    responses=_RUN_ERRORS,
)  # fmt: skip
async def invoke_delay(request: Request, count: Count = 1) -> RunReport | Response:
    """Make `count` calls of `/delay/3`, which takes 3 s: each attempt times out after 2 s, and is retried.

    Otherwise as `/invoke`.
    """
    return await _run(request, count, SLOW)


@runs.get(
    "/invoke_error", response_model=LabRun, summary="Call the provider for errors",
    responses=_RUN_ERRORS,
)  # fmt: skip
async def invoke_error(request: Request, count: Count = 1) -> RunReport | Response:
    """Make `count` calls that fail (`/status/500`): every retry fails, and the fallback answers.

    Otherwise as `/invoke`.
    """
    return await _run(request, count, FAILING)


@router.post(
    "/stress",
    response_model=StressOut,
    summary="Put the pipeline under load",
    dependencies=[RequireAdmin],
    responses=problems(
        *ADMIN_ERRORS,
        "VALIDATION_ERROR",
        Problem(429, "LAB_BUSY", "Another stress test is under way; there is one at a time"),
        "REDIS_UNAVAILABLE",
    ),
)
async def stress(
    request: Request,
    seconds: Annotated[int, Query(ge=1, le=60, description="For how long")] = 10,
    concurrency: Annotated[int, Query(ge=1, le=200, description="Calls under way at any time")] = 20,
) -> object:
    """Call `/get` through the pipeline repeatedly, and return throughput, latency and outcomes.

    One stress test runs at a time, over all workers. It ends early when the client disconnects.
    """
    work = state(request)["lab"].stress(seconds, concurrency)
    busy = "Another stress test is under way; there is one at a time"
    return await _unless_busy(request, work, busy)


@router.get("/circuit_state", summary="State of the circuit breaker, in short")
async def circuit_state(request: Request) -> CircuitStateOut:
    """Show the breaker as the whole fleet sees it. More of it: `/api/circuit-breaker/status`."""
    return await _circuit_state(state(request)["breaker"])


@router.post(
    "/force_open",
    summary="Force the circuit breaker open",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS),
)
async def force_open(request: Request) -> CircuitStateOut:
    """Open the breaker. It stays open until `/reset_circuit`, even if the provider answers."""
    breaker = state(request)["breaker"]
    await breaker.force_open()
    return await _circuit_state(breaker)


@router.post(
    "/reset_circuit",
    summary="Close the circuit breaker",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS),
)
async def reset_circuit(request: Request) -> CircuitStateOut:
    """Close the breaker and reset its counts."""
    breaker = state(request)["breaker"]
    await breaker.close()
    return await _circuit_state(breaker)


async def _run(request: Request, count: int, paths: Sequence[str]) -> RunReport | Response:
    services = state(request)
    await admit(request, services["read_admission"])
    busy = f"The calls under way leave no room for {count} more; there may be {MAX_CALLS}"
    return await _unless_busy(request, services["lab"].run(count, paths), busy)


async def _unless_busy(request: Request, work: Coroutine[Any, Any, T], busy: str) -> T | Response:
    try:
        report = await while_client_waits(request, work)
    except LabBusyError as error:
        raise ProblemError(Problem(429, "LAB_BUSY", busy, retry_after=error.retry_after)) from error
    return report or Response(status_code=CLIENT_CLOSED_REQUEST)


async def _circuit_state(breaker: CircuitBreaker) -> CircuitStateOut:
    shown = await breaker_out(breaker)
    return CircuitStateOut(state=shown.state, fail_count=shown.failure_count, opened_at=shown.opened_at)
