"""The resilience lab: calls through the API's own pipeline, with a report of each call.

The lab's policies are the policies around the API's own calls. The lab therefore opens and closes the real
breaker, and its calls share the rate limit and the permits of the API's calls. Only the time limit of each
attempt is the lab's own. A run keeps few calls in the pipeline at a time, so that the API's calls wait
little; the other calls of the run wait outside. A stress test keeps as many calls there as requested.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from src.resilience.clock import Clock
from src.resilience.errors import ResilienceError
from src.resilience.events import Listener
from src.resilience.fallback import Fallback
from src.resilience.pipeline import Pipeline
from src.resilience.policy import Call, Policy
from src.services.errors import ServiceError
from src.services.external_service import ExternalServiceError, ExternalServiceRefusedError
from src.services.lab_report import (
    CallReport,
    RunReport,
    StressReport,
    call_outcome,
    milliseconds,
    rejecting_policy,
    run_report,
    stress_report,
)

T = TypeVar("T")

MIXED: Final = ("/get", "/delay/3", "/status/500")
SLOW: Final = ("/delay/3",)
FAILING: Final = ("/status/500",)
"""Paths of the provider that a run calls in turn."""

ATTEMPT_SECONDS = 2.0
"""The time limit of each attempt, shorter than the 3 s of `/delay/3`: every call of that path times out."""

MAX_CALLS = 500
"""The largest number of outstanding calls of all runs of one worker, and so of the calls of one run."""

MAX_RUN_SECONDS = 120.0
"""The longest duration of a run. Open calls are cancelled then."""

_LEASE_MARGIN_SECONDS = 5.0

_REJECTED_PAUSE_SECONDS = 0.1
"""Pause of a stress test's caller after a rejection by the limiter, so that the loop is not busy."""


class LabBusyError(ServiceError):
    """The lab cannot start another run now. A run may start after `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the lab is busy")
        self.retry_after = retry_after


class StressLease(Protocol):
    """The lease of the only stress test that may run at a time, over all workers."""

    async def take(self, token: str, seconds: float) -> float:
        """Take the lease for `seconds`, with `token` as its holder.

        Returns:
            0 if the lease was taken; else the seconds, above 0, until the current lease expires.

        Raises:
            StorageUnavailableError: The store of the lease does not answer.
        """
        ...

    async def release(self, token: str) -> None:
        """End the lease if `token` still holds it. This method never fails."""
        ...


@dataclass(frozen=True, slots=True)
class LabPolicies:
    """The policies around a call of the lab, outermost first, inside the lab's own fallback.

    Attributes:
        rate_limit: The API's rate limiter; the lab measures the wait for it.
        bulkhead: The API's bulkhead; the lab measures the wait for it.
        protection: The API's other policies: circuit breaker, retry, and those around each attempt.
        attempt_limit: The lab's own time limit of each attempt.
    """

    rate_limit: Policy
    bulkhead: Policy
    protection: Policy
    attempt_limit: Policy


class Lab:
    """Makes calls through the pipeline.

    Args:
        attempt: Calls the provider with a path once, and raises the errors that the breaker classifies.
        policies: The policies around each call.
        lease: The lease of the one stress test.
        clock: Measures durations.
        at_once: The largest number of concurrent calls of all runs of one worker, at least 1.
        name: The name of the fallback in events.
        listener: Receives an event for each fallback; the other policies have their own listeners.
        count_call: Called once for each finished call.
    """

    def __init__(
        self,
        attempt: Callable[[str], Awaitable[object]],
        policies: LabPolicies,
        lease: StressLease,
        clock: Clock,
        *,
        at_once: int,
        name: str,
        listener: Listener,
        count_call: Callable[[], object],
    ) -> None:
        self._attempt = attempt
        self._policies = policies
        self._lease = lease
        self._clock = clock
        self._gate = asyncio.Semaphore(at_once)
        self._name = name
        self._listener = listener
        self._count_call = count_call
        self._outstanding = 0
        self._last_run_ends = 0.0

    async def run(self, count: int, paths: Sequence[str]) -> RunReport:
        """Make `count` calls (1 to `MAX_CALLS`) with `paths` in turn.

        A cancelled run leaves no call running.

        Raises:
            LabBusyError: With the calls of the current runs, there would be more than `MAX_CALLS`.
        """
        began = self._clock.monotonic()
        if self._outstanding + count > MAX_CALLS:
            raise LabBusyError(self._last_run_ends - began)
        self._outstanding += count
        self._last_run_ends = began + MAX_RUN_SECONDS
        calls: list[CallReport] = []

        async def make(number: int) -> None:
            async with self._gate:
                calls.append(await self._call(number, paths[(number - 1) % len(paths)]))

        try:
            with suppress(TimeoutError):
                async with self._clock.timeout(MAX_RUN_SECONDS), asyncio.TaskGroup() as tasks:
                    for number in range(1, count + 1):
                        tasks.create_task(make(number))
        finally:
            self._outstanding -= count
        return run_report(calls, count=count, seconds=self._clock.monotonic() - began)

    async def stress(self, seconds: float, concurrency: int) -> StressReport:
        """Call `/get` for `seconds`, with `concurrency` concurrent calls.

        The rate limiter sets the pace, so an open breaker does not make the test a busy loop; a caller that
        the limiter itself rejects pauses. Calls that are still open at the end are stopped. A cancelled test
        leaves no call running.

        Raises:
            LabBusyError: Another stress test is running, in this or another worker.
            StorageUnavailableError: The store of the lease does not answer.
        """
        calls: list[CallReport] = []
        started = 0

        async def call_repeatedly() -> None:
            nonlocal started
            while True:
                started += 1
                report = await self._call(started, "/get")
                calls.append(report)
                if report.rejected_by == "rate_limiter":
                    await self._clock.sleep(_REJECTED_PAUSE_SECONDS)

        async with self._hold_lease(seconds + _LEASE_MARGIN_SECONDS):
            began = self._clock.monotonic()
            with suppress(TimeoutError):
                async with self._clock.timeout(seconds), asyncio.TaskGroup() as tasks:
                    for _ in range(concurrency):
                        tasks.create_task(call_repeatedly())
            duration = self._clock.monotonic() - began
        return stress_report(calls, started=started, concurrency=concurrency, seconds=duration)

    @asynccontextmanager
    async def _hold_lease(self, seconds: float) -> AsyncIterator[None]:
        """Hold the lease of the stress test, for `seconds` at most."""
        token = uuid.uuid4().hex
        take_task = asyncio.ensure_future(self._lease.take(token, seconds))
        try:
            if expires_in := await asyncio.shield(take_task):
                raise LabBusyError(expires_in)
            yield
        finally:
            await asyncio.wait((take_task,))  # otherwise the lease could be taken after it was released
            await self._lease.release(token)

    async def _call(self, number: int, path: str) -> CallReport:
        errors: list[Exception] = []
        after_limiter, after_bulkhead, attempts = (_PassRecorder(self._clock) for _ in range(3))
        fallback = Fallback(
            errors.append,  # returns None as the answer, since the report does not contain answers
            handles=(ExternalServiceError, ExternalServiceRefusedError, ResilienceError),
            name=self._name,
            listener=self._listener,
        )
        policies = self._policies
        pipeline = Pipeline(
            fallback, policies.rate_limit, after_limiter, policies.bulkhead, after_bulkhead,
            policies.protection, attempts, policies.attempt_limit,
        )  # fmt: skip
        arrived = self._clock.monotonic()
        await pipeline.run(lambda: self._attempt(path))
        ended = self._clock.monotonic()
        self._count_call()
        admitted_at = ended if after_limiter.first_at is None else after_limiter.first_at
        started_at = ended if after_bulkhead.first_at is None else after_bulkhead.first_at
        error = errors[0] if errors else None
        return CallReport(
            number=number,
            path=path,
            outcome=call_outcome(error, attempts.count),
            attempts=attempts.count,
            rejected_by=rejecting_policy(error),
            error=None if error is None else str(error),
            limiter_wait_ms=milliseconds(admitted_at - arrived),
            bulkhead_wait_ms=milliseconds(started_at - admitted_at),
            duration_ms=milliseconds(ended - arrived),
        )


class _PassRecorder:
    """A policy that changes nothing, and records the number of calls and the time of the first call."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.first_at: float | None = None
        self.count = 0

    async def run(self, call: Call[T]) -> T:
        """Run `call`."""
        if self.first_at is None:
            self.first_at = self._clock.monotonic()
        self.count += 1
        return await call()
