"""Retry: the waits of each backoff, the effect of jitter, the ends of a retry, and the effect of a budget.

Run it from the checkout: `python examples/retry_patterns.py`, or `python -m examples.retry_patterns`.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, which has `examples` and `src`

from examples.stage import SimulatedClock, Timeline, console, play, table
from src.resilience import Exponential, Fixed, FullJitter, RateLimitedError, Retry, RetryOptions
from src.resilience.clock import SystemRandomizer
from src.resilience.retry import IMMEDIATE, Backoff, DecorrelatedJitter, EqualJitter, Linear, RetryBudget

EXPONENTIAL = Exponential(base_seconds=0.1, cap_seconds=2.0)
BACKOFFS: dict[str, Backoff] = {
    "immediate": IMMEDIATE,
    "fixed": Fixed(0.5),
    "linear": Linear(step_seconds=0.2, cap_seconds=2.0),
    "exponential": EXPONENTIAL,
    "full jitter": FullJitter(EXPONENTIAL),
    "equal jitter": EqualJitter(EXPONENTIAL),
    "decorrelated jitter": DecorrelatedJitter(base_seconds=0.1, cap_seconds=2.0),
}
CLIENTS = 1000


class ServiceDownError(Exception):
    """The error of the service in these examples."""


class Service:
    """A service whose first `failures` calls fail. It counts all calls."""

    def __init__(self, failures: int, error: Callable[[], Exception] = ServiceDownError) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    async def call(self) -> str:
        """Return an answer, or raise the error of the service."""
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error()
        return "answer"


async def show_backoffs() -> None:
    """Show the waits of each backoff, and how many clients that failed together retry at the same time."""
    shown = table(
        f"Waits in seconds after each failure; and when {CLIENTS} clients fail together, the busiest 10 ms",
        "backoff",
        *(f"{attempt}." for attempt in range(1, 6)),
        "calls in it",
    )
    for name, backoff in BACKOFFS.items():
        waits = waits_of(backoff, SystemRandomizer(seed=1))
        busiest = max(Counter(return_slots(backoff)).values())
        shown.add_row(name, *(f"{wait:.2f}" for wait in waits), str(busiest))
    console.print(shown)


def waits_of(backoff: Backoff, randomizer: SystemRandomizer) -> list[float]:
    """Return the waits after the first five failures."""
    waits: list[float] = []
    for attempt in range(1, 6):
        waits.append(backoff.delay(attempt, waits[-1] if waits else 0.0, randomizer))
    return waits


def return_slots(backoff: Backoff) -> list[int]:
    """Return the hundredths of a second into which all retries of all clients fall."""
    slots = []
    randomizer = SystemRandomizer(seed=2)
    for _ in range(CLIENTS):
        second = 0.0
        for wait in waits_of(backoff, randomizer):
            second += wait
            slots.append(int(second * 100))
    return slots


async def show_what_ends_a_retry() -> None:
    """Show a success, the last attempt, an error that is not retried, Retry-After, and the time limit."""
    clock = SimulatedClock()
    timeline = Timeline("What ends a retry", clock)
    four_attempts = RetryOptions(attempts=4, backoff=Fixed(0.5))
    without_value_errors = RetryOptions(attempts=4, abort_on=ValueError)
    two_seconds = RetryOptions(attempts=100, total_seconds=2.0, backoff=Fixed(0.7))
    stories = (
        ("two failures", four_attempts, Service(2)),
        ("permanent", four_attempts, Service(99)),
        ("caller's error", without_value_errors, Service(99, lambda: ValueError("no such account"))),
        ("Retry-After", four_attempts, Service(1, lambda: RateLimitedError("bank", "busy", retry_after=3.0))),
        ("2 s in all", two_seconds, Service(99)),
    )
    for name, options, service in stories:
        retry = Retry(options, clock, SystemRandomizer(seed=3), name=name, listener=timeline)
        try:
            timeline.note(name, f"{await retry.run(service.call)} after {service.calls} calls", style="green")
        except Exception as error:  # noqa: BLE001 -- the example shows every error
            timeline.note(name, f"raised {error!r} after {service.calls} calls", style="red")
    timeline.show()


async def show_the_budget() -> None:
    """Show the load of retries on a service that is down, with and without a budget."""
    shown = table(
        f"{CLIENTS} calls of a service that is down, up to 4 attempts each",
        "retry budget",
        "calls that reach it",
        "load",
    )
    for name, budget in (
        ("none", None),
        ("10 % of calls, 10 in reserve", RetryBudget(share=0.1, reserve=10)),
    ):
        service = Service(failures=10 * CLIENTS)
        retry = Retry(
            RetryOptions(attempts=4, backoff=FullJitter(EXPONENTIAL)),
            SimulatedClock(),
            SystemRandomizer(seed=4),
            budget=budget,
        )
        calls = (retry.run(service.call) for _ in range(CLIENTS))
        await asyncio.gather(*calls, return_exceptions=True)
        shown.add_row(name, str(service.calls), f"{service.calls / CLIENTS:.2f} times")
    console.print(shown)


if __name__ == "__main__":
    for scene in (show_backoffs, show_what_ends_a_retry, show_the_budget):
        play(scene())
