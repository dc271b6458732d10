"""Hedging: begin a slow call a second time and take whichever answers first.

Only for calls that are idempotent, since several attempts may reach the service, and a cancelled one may
have done its work. It cuts the tail of the latency, where an attempt is slow by bad luck and another would
not be; against a service that is slow altogether it is only more load. With the delay at the 95th percentile
of the call's latency that load is about 5 % more calls. (Dean and Barroso, "The Tail at Scale", CACM 56(2),
2013.)

A failure begins no attempt: hedging is against slowness, and for failures there is the retry, with its
backoff and its budget. In a pipeline hedging belongs inside the retry and around the timeout, so that each
attempt has a time limit of its own.

An attempt must be a task to be raced against others, so every call pays for one, hedged or not: about 20 µs,
where other policies at rest cost around 1.
"""

import asyncio
import contextlib
import math
from dataclasses import dataclass
from typing import TypeVar

from src.resilience.clock import Clock
from src.resilience.events import Hedged, HedgedAttemptFailed, HedgeWon, Listener, ignore, notify
from src.resilience.policy import Call

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HedgingOptions:
    """When to begin another attempt, and how often.

    Attributes:
        delay_seconds: How long to wait for an answer before each further attempt; finite, above 0.
        attempts: How many attempts in all, the first included; at least 2.
    """

    delay_seconds: float
    attempts: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.delay_seconds < math.inf:
            raise ValueError(f"delay_seconds must be finite and above 0, not {self.delay_seconds}")
        if not self.attempts >= 2:
            raise ValueError(f"attempts must be at least 2, not {self.attempts}")


@dataclass(frozen=True, slots=True)
class _Failure:
    """How an attempt ended that raised. As a result, so that it does not end the others."""

    error: Exception


class Hedging:
    """The policy. Attempts are stopped by cancelling them, so the call must let a cancellation through.

    When `run` returns or raises, its caller's cancellation included, no attempt is running any more.

    Args:
        options: When to begin another attempt, and how often.
        clock: Measures the delay.
        name: What events call this policy.
        listener: Told of every attempt but the first, of every failure that another attempt may make good,
            and of every answer that came from another attempt than the first.
    """

    def __init__(
        self, options: HedgingOptions, clock: Clock, *, name: str = "hedging", listener: Listener = ignore
    ) -> None:
        self.name = name
        self._options = options
        self._clock = clock
        self._listener = listener

    async def run(self, call: Call[T]) -> T:
        """Run `call` up to so many times at once, and return the first answer.

        Raises:
            BaseException: The error of the attempt that failed last, as it came, when none is under way any
                more. Errors of attempts that were cancelled since another had answered are dropped.
        """
        running: dict[asyncio.Task[T | _Failure], int] = {}
        async with asyncio.TaskGroup() as group:  # however it is left, it waits for every attempt to end
            number, outcome = await self._race(call, group, running)
            for attempt in running:
                attempt.cancel()
        if isinstance(outcome, _Failure):
            raise outcome.error
        if number > 1:
            notify(self._listener, HedgeWon(policy=self.name, attempt=number))
        return outcome

    async def _race(
        self, call: Call[T], group: asyncio.TaskGroup, running: dict[asyncio.Task[T | _Failure], int]
    ) -> tuple[int, T | _Failure]:
        number = 1
        while True:
            running[group.create_task(_attempt(call))] = number
            is_last = number == self._options.attempts
            with contextlib.suppress(TimeoutError):  # the delay's: attempts raise nothing
                async with self._clock.timeout(None if is_last else self._options.delay_seconds):
                    return await self._first_to_succeed(running)
            number += 1
            notify(self._listener, Hedged(policy=self.name, attempt=number))

    async def _first_to_succeed(
        self, running: dict[asyncio.Task[T | _Failure], int]
    ) -> tuple[int, T | _Failure]:
        """Return number and result of the first attempt to succeed, or of the last one to fail."""
        while True:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for attempt in [attempt for attempt in running if attempt.done()]:
                number, outcome = running.pop(attempt), attempt.result()
                if not isinstance(outcome, _Failure) or not running:
                    return number, outcome
                failed = HedgedAttemptFailed(policy=self.name, attempt=number, error=outcome.error)
                notify(self._listener, failed)


async def _attempt(call: Call[T]) -> T | _Failure:
    try:
        return await call()
    except Exception as error:  # noqa: BLE001 -- raised by `run`, if no other attempt succeeds
        return _Failure(error)
