"""The resilience lab: calls through the API's own pipeline, each with an account of what became of it.

The policies are the very ones that stand around the API's calls, so what the lab does to the breaker is done
to the breaker, and the lab's calls wait with all the others. So that the others do not wait long, a run has
few calls in the pipeline at a time; the rest of it waits outside. A stress test has as many as it was told.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeVar, get_args

from src.analytics.sketch import LogBinSketch
from src.resilience.clock import Clock
from src.resilience.errors import (
    BulkheadFullError,
    CircuitOpenError,
    RateLimitedError,
    RejectedError,
    ResilienceError,
)
from src.resilience.events import Listener
from src.resilience.fallback import Fallback
from src.resilience.pipeline import Pipeline
from src.resilience.policy import Call
from src.services.errors import ServiceError
from src.services.external_service import ExternalServiceError, ExternalServiceRefusedError

T = TypeVar("T")

Outcome = Literal["succeeded", "recovered", "fallback", "rejected"]
"""What became of a call, exactly one of:

- succeeded: the first attempt was answered.
- recovered: a later attempt was.
- fallback: the service was asked, no attempt was answered, and the fallback stood in.
- rejected: the limiter, the bulkhead or the breaker refused, so the service was not asked; the fallback stood
  in here as well.
"""

Rejecter = Literal["rate_limiter", "bulkhead", "circuit_breaker"]

MIXED: Final = ("/get", "/delay/3", "/status/500")
SLOW: Final = ("/delay/3",)
FAILING: Final = ("/status/500",)
"""What is asked of the provider, in turn."""

MAX_CALLS = 500
"""Calls that the runs of one worker may have outstanding together, and so the most of one run."""

MAX_RUN_SECONDS = 120.0
"""When a run ends, whatever is still open."""

_LEASE_MARGIN_SECONDS = 5.0

_REJECTERS: Final[dict[type[object], Rejecter]] = {
    RateLimitedError: "rate_limiter",
    BulkheadFullError: "bulkhead",
    CircuitOpenError: "circuit_breaker",
}


class LabBusyError(ServiceError):
    """There is no room for another run; `retry_after` is in seconds, until there is for certain."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the lab is busy")
        self.retry_after = retry_after


class StressLease(Protocol):
    """The right to run the one stress test that may be under way, over all workers."""

    async def take(self, token: str, seconds: float) -> float:
        """Take the lease for `seconds` in the name of `token`.

        Returns:
            0 if it was taken; else the seconds, above 0, until another's runs out at the latest.

        Raises:
            StorageUnavailableError: Nobody can tell.
        """
        ...

    async def release(self, token: str) -> None:
        """Give the lease back, if it is still the token's. Never fails."""
        ...


@dataclass(frozen=True, slots=True)
class CallReport:
    """What became of one call.

    Attributes:
        number: Its place in the run, from 1.
        path: What it asked for.
        outcome: See `Outcome`.
        attempts: How often the service was asked.
        rejected_by: With "rejected", by which policy.
        error: With "fallback" and "rejected", why, in words.
        limiter_wait_ms: Time spent waiting for the rate limiter.
        bulkhead_wait_ms: Time spent waiting for the bulkhead.
        duration_ms: Time it took in all, waits included.
    """

    number: int
    path: str
    outcome: Outcome
    attempts: int
    rejected_by: Rejecter | None
    error: str | None
    limiter_wait_ms: float
    bulkhead_wait_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many calls came to which `Outcome`; those still open when the time was up are `unfinished`."""

    succeeded: int
    recovered: int
    fallback: int
    rejected: int
    unfinished: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport(Tally):
    """What became of a run of `count` calls. `calls` has those that ended, in order."""

    count: int
    duration_ms: float
    calls: Sequence[CallReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class StressReport(Tally):
    """What a stress test showed.

    Attributes:
        concurrency: Calls under way at any time.
        duration_ms: How long it went on.
        count: How many calls ended.
        throughput_per_second: How many ended a second.
        p50_ms: Latency, waits included, that half of them did not exceed, within 1 %; None without calls.
        p95_ms: Likewise, 95 %.
        p99_ms: Likewise, 99 %.
    """

    concurrency: int
    duration_ms: float
    count: int
    throughput_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Lab:
    """Runs calls through the pipeline.

    Args:
        attempt: Asks the provider for a path once, and raises what the breaker judges.
        pipeline: The API's own, outermost first: rate limiter, bulkhead, then what else there is.
        lease: Of the one stress test.
        clock: Measures.
        at_once: Calls of runs that one worker has in the pipeline at a time, at least 1.
        name: What events call the fallback.
        listener: Told of every fallback; the other policies have their own.
    """

    def __init__(
        self,
        attempt: Callable[[str], Awaitable[object]],
        pipeline: Pipeline,
        lease: StressLease,
        clock: Clock,
        *,
        at_once: int,
        name: str,
        listener: Listener,
    ) -> None:
        self._attempt = attempt
        self._limiter, self._bulkhead, *self._rest = pipeline.policies
        self._lease = lease
        self._clock = clock
        self._gate = asyncio.Semaphore(at_once)
        self._name = name
        self._listener = listener
        self._outstanding = 0
        self._last_run_ends = 0.0

    async def run(self, count: int, paths: Sequence[str]) -> RunReport:
        """Make `count` calls (1 to `MAX_CALLS`), asking for `paths` in turn.

        A caller that is cancelled leaves nothing running.

        Raises:
            LabBusyError: The runs under way leave no room for so many.
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
        return RunReport(
            **_tally(calls, count),
            count=count,
            duration_ms=_ms(self._clock.monotonic() - began),
            calls=sorted(calls, key=lambda call: call.number),
        )

    async def stress(self, seconds: float, concurrency: int) -> StressReport:
        """Ask for `/get` for `seconds`, with `concurrency` calls under way at any time.

        The rate limiter sets the pace, so a breaker that is open does not make it a busy loop. Calls that are
        under way when the time is up are dropped. A caller that is cancelled leaves nothing running.

        Raises:
            LabBusyError: Another is under way, here or in another worker.
            StorageUnavailableError: Nobody can tell whether one is.
        """
        calls: list[CallReport] = []
        begun = 0

        async def make_one_after_another() -> None:
            nonlocal begun
            while True:
                begun += 1
                calls.append(await self._call(begun, "/get"))

        async with self._only_one(seconds + _LEASE_MARGIN_SECONDS):
            began = self._clock.monotonic()
            with suppress(TimeoutError):
                async with self._clock.timeout(seconds), asyncio.TaskGroup() as tasks:
                    for _ in range(concurrency):
                        tasks.create_task(make_one_after_another())
            duration = self._clock.monotonic() - began
        latencies = LogBinSketch.of(call.duration_ms for call in calls)
        return StressReport(
            **_tally(calls, begun),
            concurrency=concurrency,
            duration_ms=_ms(duration),
            count=len(calls),
            throughput_per_second=round(len(calls) / duration, 1),
            p50_ms=_rounded(latencies.quantile(0.50)),
            p95_ms=_rounded(latencies.quantile(0.95)),
            p99_ms=_rounded(latencies.quantile(0.99)),
        )

    @asynccontextmanager
    async def _only_one(self, seconds: float) -> AsyncIterator[None]:
        """Hold the lease of the stress test, for `seconds` at most."""
        token = uuid.uuid4().hex
        taking = asyncio.ensure_future(self._lease.take(token, seconds))
        try:
            if held_for := await asyncio.shield(taking):
                raise LabBusyError(held_for)
            yield
        finally:
            await asyncio.wait((taking,))  # or it could be taken after it was given back
            await self._lease.release(token)

    async def _call(self, number: int, path: str) -> CallReport:
        errors: list[Exception] = []
        admitted, begun, attempted = (_Passage(self._clock) for _ in range(3))
        fallback = Fallback(
            errors.append,  # whose answer is None: of an answer, only that there was one matters here
            handles=(ExternalServiceError, ExternalServiceRefusedError, ResilienceError),
            name=self._name,
            listener=self._listener,
        )
        pipeline = Pipeline(fallback, self._limiter, admitted, self._bulkhead, begun, *self._rest, attempted)
        arrived = self._clock.monotonic()
        await pipeline.run(lambda: self._attempt(path))
        ended = self._clock.monotonic()
        admitted_at = ended if admitted.first is None else admitted.first
        begun_at = ended if begun.first is None else begun.first
        error = errors[0] if errors else None
        return CallReport(
            number=number,
            path=path,
            outcome=_outcome(error, attempted.count),
            attempts=attempted.count,
            rejected_by=_REJECTERS.get(type(error)),
            error=None if error is None else str(error),
            limiter_wait_ms=_ms(admitted_at - arrived),
            bulkhead_wait_ms=_ms(begun_at - admitted_at),
            duration_ms=_ms(ended - arrived),
        )


class _Passage:
    """A policy that lets everything through, and notes when a call first came by and how often."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.first: float | None = None
        self.count = 0

    async def run(self, call: Call[T]) -> T:
        """Run `call`."""
        if self.first is None:
            self.first = self._clock.monotonic()
        self.count += 1
        return await call()


def _outcome(error: Exception | None, attempts: int) -> Outcome:
    if isinstance(error, RejectedError):
        return "rejected"
    if error is not None:
        return "fallback"
    return "succeeded" if attempts == 1 else "recovered"


def _tally(calls: Sequence[CallReport], begun: int) -> dict[str, int]:
    outcomes = Counter(call.outcome for call in calls)
    return {outcome: outcomes[outcome] for outcome in get_args(Outcome)} | {"unfinished": begun - len(calls)}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 2)
