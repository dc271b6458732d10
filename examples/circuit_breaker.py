"""The circuit breaker: an outage and its end, a slow service, and states that are forced by hand.

Run it from the checkout: `python examples/circuit_breaker.py`, or `python -m examples.circuit_breaker`.
"""

import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, which has `examples` and `src`

from examples.stage import SimulatedClock, Timeline, console, play, table
from src.resilience import CircuitBreaker, CircuitBreakerOptions, CircuitOpenError, MemoryBreakerStore
from src.resilience.clock import Clock
from src.resilience.events import Rejected


class ServiceDownError(Exception):
    """The error of the service in this example."""


class Service:
    """A service that answers in 0.1 s, or in 2 s while it is `slow`, fails while `down`, and counts calls."""

    def __init__(self, clock: Clock) -> None:
        self.down = False
        self.slow = False
        self.calls = 0
        self._clock = clock

    async def call(self) -> str:
        """Return an answer, or raise the error of the service."""
        self.calls += 1
        await self._clock.sleep(2.0 if self.slow else 0.1)
        if self.down:
            raise ServiceDownError
        return "answer"


async def show_an_outage() -> None:
    """Show an outage of 40 seconds, with a call every second."""
    clock = SimulatedClock()
    timeline = Timeline("Down from second 3 to 43; opens at 3 failures in a row, for 5, 10, 20 s", clock)
    service = Service(clock)
    breaker = CircuitBreaker(
        "bank",
        MemoryBreakerStore(clock),
        CircuitBreakerOptions(
            failure_threshold=3, open_seconds=5.0, open_seconds_factor=2.0, open_seconds_max=60.0
        ),
        clock,
        listener=lambda event: None if isinstance(event, Rejected) else timeline(event),  # too many to show
    )
    outcomes = {"answered": 0, "failed": 0, "rejected at once": 0}
    for second in range(60):
        await clock.sleep(second - clock.monotonic())
        service.down = 3 <= second < 43
        outcomes[await outcome_of(breaker, service)] += 1
    timeline.show()
    shown = table("60 calls", "outcome", "calls")
    for outcome, calls in (outcomes | {"calls that reached the service": service.calls}).items():
        shown.add_row(outcome, str(calls))
    console.print(shown)


async def outcome_of(breaker: CircuitBreaker, service: Service) -> str:
    """Make one call, and return its outcome in words."""
    try:
        await breaker.run(service.call)
    except CircuitOpenError:
        return "rejected at once"
    except ServiceDownError:
        return "failed"
    return "answered"


async def show_a_slow_service() -> None:
    """Show that slow calls open the breaker, although they succeed."""
    clock = SimulatedClock()
    timeline = Timeline("Slow from second 5; opens when half the calls of 30 s take over 1 s", clock)
    service = Service(clock)
    breaker = CircuitBreaker(
        "search",
        MemoryBreakerStore(clock),
        CircuitBreakerOptions(
            failure_threshold=None,
            slow_call_rate_threshold=0.5,
            slow_call_seconds=1.0,
            window_seconds=30.0,
            minimum_calls=6,
        ),
        clock,
        listener=timeline,
    )
    with suppress(CircuitOpenError):
        for _ in range(20):
            service.slow = clock.monotonic() >= 5
            await breaker.run(service.call)
            await clock.sleep(0.9)
    timeline.show()


async def show_manual_states() -> None:
    """Show the states that can be set by hand, and the status of a breaker."""
    clock = SimulatedClock()
    service = Service(clock)
    breaker = CircuitBreaker(
        "mail", MemoryBreakerStore(clock), CircuitBreakerOptions(failure_threshold=1), clock
    )
    shown = table("States set by hand", "method", "state", "next call", "last reason")
    for name, method, down in (
        ("force_open", breaker.force_open, False),
        ("force_closed, down", breaker.force_closed, True),
        ("close, down", breaker.close, True),
        ("close, up", breaker.close, False),
    ):
        service.down = down
        await method()
        before = await breaker.status()
        outcome = await outcome_of(breaker, service)
        after = await breaker.status()
        states = before.state if before.state is after.state else f"{before.state} -> {after.state}"
        shown.add_row(name, states, outcome, after.transitions[-1].reason)
    console.print(shown)


if __name__ == "__main__":
    for scene in (show_an_outage, show_a_slow_service, show_manual_states):
        play(scene())
