"""The resilience lab: calls through the API's own pipeline, manual control of the breaker, load tests.

Every client may run the lab's calls. A run counts against the read quota, has a bounded number of calls, and
keeps few of them in the pipeline at a time. Requests that change state or make load need the admin key.
"""

from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from src.api.access.admin_access import RequireAdmin
from src.api.dependencies import state
from src.api.disconnect import CLIENT_CLOSED_REQUEST, while_client_waits
from src.api.errors import Problem, ProblemError
from src.api.models.circuit_breaker import BreakerOut
from src.api.models.lab import CircuitStateOut, LabRun, StressOut
from src.api.openapi import ADMIN_ERRORS, problems
from src.api.rate_limit import ReadRoute, admit
from src.api.routes import circuit_breaker
from src.services.lab import FAILING, MAX_CALLS, MIXED, SLOW, LabBusyError
from src.services.lab_report import RunReport

T = TypeVar("T")

router = APIRouter(tags=["lab"])
runs = APIRouter(route_class=ReadRoute, tags=["lab"])

Count = Annotated[int, Query(ge=1, le=MAX_CALLS, description="The number of calls")]

_STRESS_BUSY = "Another stress test is running; only one runs at a time"


def _busy_message(count: int) -> str:
    return f"The limit of {MAX_CALLS} concurrent calls leaves no room for count={count}"


_RUN_ERRORS = problems(
    "VALIDATION_ERROR",
    "RATE_LIMIT_EXCEEDED",
    Problem(429, "LAB_BUSY", _busy_message(1)),
)


@runs.get("/invoke", response_model=LabRun, summary="Call the provider", responses=_RUN_ERRORS)
async def invoke(request: Request, count: Count = 1) -> RunReport | Response:
    """Make `count` calls through the pipeline, of `/get`, `/delay/3` and `/status/500` in turn.

    The calls run concurrently, as far as the pipeline allows: fallback, rate limiter, bulkhead, circuit
    breaker, retry, and a timeout of 2 s for each attempt. Every attempt of `/delay/3` therefore times out.
    The answer has the outcome of each call. The lab uses the API's own breaker, and its calls can open that
    breaker. A run ends after 120 s, or when the client disconnects.
    """
    return await _run(request, count, MIXED)


@runs.get(
    "/invoke_delay", response_model=LabRun, summary="Call the provider for slow answers",
    responses=_RUN_ERRORS,
)  # fmt: skip
async def invoke_delay(request: Request, count: Count = 1) -> RunReport | Response:
    """Make `count` calls of `/delay/3`, which takes 3 s. Each attempt times out after 2 s and is retried.

    The rest is the same as for `/invoke`.
    """
    return await _run(request, count, SLOW)


@runs.get(
    "/invoke_error", response_model=LabRun, summary="Call the provider for errors",
    responses=_RUN_ERRORS,
)  # fmt: skip
async def invoke_error(request: Request, count: Count = 1) -> RunReport | Response:
    """Make `count` calls of `/status/500`. Every attempt fails, and the fallback answers.

    The rest is the same as for `/invoke`.
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
        Problem(429, "LAB_BUSY", _STRESS_BUSY),
        "REDIS_UNAVAILABLE",
    ),
)
async def stress(
    request: Request,
    seconds: Annotated[int, Query(ge=1, le=60, description="The duration in seconds")] = 10,
    concurrency: Annotated[int, Query(ge=1, le=200, description="Concurrent calls")] = 20,
) -> object:
    """Call `/get` through the pipeline repeatedly, and return throughput, latency and outcomes.

    Over all workers, one stress test runs at a time. It ends early when the client disconnects.
    """
    work = state(request)["lab"].stress(seconds, concurrency)
    return await _report_or_problem(request, work, _STRESS_BUSY)


@router.get("/circuit_state", summary="Short state of the circuit breaker")
async def circuit_state(request: Request) -> CircuitStateOut:
    """Return the state of the breaker, which all workers share. `/api/circuit-breaker/status` has more."""
    return _circuit_state(await circuit_breaker.status(request))


@router.post(
    "/force_open",
    summary="Force the circuit breaker open",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS),
)
async def force_open(request: Request) -> CircuitStateOut:
    """Open the breaker. It stays open until `/reset_circuit`, even if the provider answers."""
    return _circuit_state(await circuit_breaker.force_open(request))


@router.post(
    "/reset_circuit",
    summary="Close the circuit breaker",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS),
)
async def reset_circuit(request: Request) -> CircuitStateOut:
    """Close the breaker and reset its counts."""
    return _circuit_state(await circuit_breaker.close(request))


async def _run(request: Request, count: int, paths: Sequence[str]) -> RunReport | Response:
    services = state(request)
    await admit(request, services["read_admission"])
    return await _report_or_problem(request, services["lab"].run(count, paths), _busy_message(count))


async def _report_or_problem(
    request: Request, work: Coroutine[Any, Any, T], busy_message: str
) -> T | Response:
    """Return the report of `work`; raise a 429 with `busy_message` if the lab is busy."""
    try:
        report = await while_client_waits(request, work)
    except LabBusyError as error:
        raise ProblemError(Problem(429, "LAB_BUSY", busy_message, retry_after=error.retry_after)) from error
    return report or Response(status_code=CLIENT_CLOSED_REQUEST)


def _circuit_state(status: BreakerOut) -> CircuitStateOut:
    return CircuitStateOut(state=status.state, fail_count=status.failure_count, opened_at=status.opened_at)
