"""The patterns together: calls of a service with faults, with and without a pipeline.

The same calls are made twice, ten per second. A chaos policy in the service injects the faults. The tables
show that retries hide sporadic failures, that hedging and the timeout shorten the slowest calls, and that the
fallback answers at once during an outage. Meanwhile the service gets few calls, and the breaker closes by
itself after the outage.

Run it from the checkout: `python examples/combined_patterns.py`, or `python -m examples.combined_patterns`.
"""

import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, which has `examples` and `src`

from examples.stage import SimulatedClock, Timeline, console, play, table
from src.resilience import (
    Bulkhead,
    BulkheadOptions,
    Chaos,
    ChaosOptions,
    CircuitBreaker,
    CircuitBreakerOptions,
    Exponential,
    Fallback,
    FullJitter,
    Hedging,
    HedgingOptions,
    MemoryBreakerStore,
    Pipeline,
    Quota,
    RateLimit,
    RateLimitOptions,
    Retry,
    RetryOptions,
    Timeout,
    always,
    memory_rate_limiter,
)
from src.resilience.chaos import Fault, Latency
from src.resilience.clock import Clock, SystemRandomizer
from src.resilience.events import Event, Listener, StateChanged
from src.resilience.policy import Call
from src.resilience.retry import RetryBudget

FRESH, FALLBACK = "fresh price", "yesterday's price"


class ServiceDownError(Exception):
    """The error that chaos injects."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Twenty seconds with given shares of calls that fail, and of calls that take 3 more seconds."""

    name: str
    failing: float = 0.0
    slow: float = 0.0


PHASES = (
    Phase("well"),
    Phase("flaky: 20 % fail", failing=0.2),
    Phase("long tail: 4 % take 3 s", slow=0.04),
    Phase("down: all fail", failing=1.0),
    Phase("well again"),
)
CALLS_IN_A_PHASE = 200
SECONDS_BETWEEN_CALLS = 0.1


@dataclass(slots=True)
class PhaseResult:
    """The results of the calls in a phase."""

    answers: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    attempts: int = 0


class Service:
    """A service that answers in 50 ms, has faults injected by chaos, and counts the attempts."""

    def __init__(self, clock: Clock) -> None:
        self.attempts = 0
        self._clock = clock
        randomizer = SystemRandomizer(seed=5)
        self._failing = Chaos(ChaosOptions(Fault(ServiceDownError), rate=0.0), clock, randomizer)
        self._slow = Chaos(ChaosOptions(Latency(3.0), rate=0.0), clock, randomizer)
        self._chaos = Pipeline(self._failing, self._slow)

    def enter(self, phase: Phase) -> None:
        """Begin `phase`."""
        self._failing.rate = phase.failing
        self._slow.rate = phase.slow

    async def price(self) -> str:
        """Return the price, or raise an injected error."""
        self.attempts += 1
        return await self._chaos.run(self._answer)

    async def _answer(self) -> str:
        await self._clock.sleep(0.05)
        return FRESH


def make_pipeline(clock: Clock, listener: Listener) -> Pipeline:
    """Return the pipeline, outermost first."""
    randomizer = SystemRandomizer(seed=6)
    hundred_a_second = memory_rate_limiter("token_bucket", Quota(limit=100, window_seconds=1.0), clock)
    return Pipeline(
        Fallback(always(FALLBACK), listener=listener),
        RateLimit(hundred_a_second, RateLimitOptions(key="prices"), clock, listener=listener),
        Bulkhead(BulkheadOptions(permits=20, max_waiting=20), clock, listener=listener),
        CircuitBreaker(
            "prices",
            MemoryBreakerStore(clock),
            CircuitBreakerOptions(failure_threshold=5, open_seconds=5.0),
            clock,
            listener=listener,
        ),
        Retry(
            RetryOptions(attempts=4, backoff=FullJitter(Exponential(base_seconds=0.1, cap_seconds=1.0))),
            clock,
            randomizer,
            budget=RetryBudget(share=0.5, reserve=20),
            listener=listener,
        ),
        Hedging(HedgingOptions(delay_seconds=0.1), clock, listener=listener),
        Timeout(1.0, clock, listener=listener),
    )


async def run_phases(
    service: Service, clock: Clock, price: Callable[[], Awaitable[str]]
) -> list[PhaseResult]:
    """Call `price` ten times a second in all phases."""
    results = []
    for phase in PHASES:
        service.enter(phase)
        result, attempts_before = PhaseResult(), service.attempts
        async with asyncio.TaskGroup() as calls:
            for _ in range(CALLS_IN_A_PHASE):
                calls.create_task(call_once(price, clock, result))
                await clock.sleep(SECONDS_BETWEEN_CALLS)
        result.attempts = service.attempts - attempts_before
        results.append(result)
    return results


async def call_once(price: Call[str], clock: Clock, result: PhaseResult) -> None:
    """Make one call, and add its answer and duration to `result`."""
    began = clock.monotonic()
    try:
        result.answers.append(await price())
    except ServiceDownError:
        result.answers.append("error")
    result.seconds.append(clock.monotonic() - began)


async def main() -> None:
    """Run the phases with and without the pipeline, and print both results."""
    clock = SimulatedClock()
    bare_service, guarded_service = Service(clock), Service(clock)
    timeline = Timeline("State changes of the breaker", clock)

    def listener(event: Event) -> None:
        if isinstance(event, StateChanged):  # the others are too many to show
            timeline(event)

    pipeline = make_pipeline(clock, listener)

    @pipeline
    async def guarded_price() -> str:
        return await guarded_service.price()

    bare, guarded = await asyncio.gather(
        run_phases(bare_service, clock, bare_service.price),
        run_phases(guarded_service, clock, guarded_price),
    )
    shown = table(
        f"{CALLS_IN_A_PHASE} calls a phase",
        "phase",
        "called",
        "fresh",
        "fallback",
        "error",
        "p99",
        "tries",
    )
    for phase, *results in zip(PHASES, bare, guarded, strict=True):
        for how, result in zip(("bare", "guarded"), results, strict=True):
            counts = (str(result.answers.count(answer)) for answer in (FRESH, FALLBACK, "error"))
            p99 = statistics.quantiles(result.seconds, n=100)[98]
            shown.add_row(phase.name, how, *counts, f"{p99:.2f} s", str(result.attempts))
        shown.add_section()
    console.print(shown)
    timeline.show()


if __name__ == "__main__":
    play(main())
