"""Timeout: stop a call that takes too long."""

import math
from typing import Self, TypeVar

from .building_blocks.outcomes import report_outcomes
from .building_blocks.permit import BlockPolicy
from .clock import SYSTEM_CLOCK, Clock
from .errors import CallTimeoutError
from .events import Listener, TimedOut, ignore, notify
from .policy import Call, require_async

T = TypeVar("T")


class Timeout(BlockPolicy):
    """A policy that limits the duration of a call.

    It stops a call by cancelling it, so the call must not suppress a cancellation.

    Args:
        seconds: The longest time that a call may take; finite, above 0.
        clock: Measures the time.
        name: The policy's name in events.
        listener: Receives `TimedOut` for each call that was stopped.

    Attributes:
        seconds: The longest duration of a call, in seconds.
    """

    def __init__(
        self,
        seconds: float,
        clock: Clock = SYSTEM_CLOCK,
        *,
        name: str = "timeout",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self.seconds = _checked(seconds)
        self._clock = clock
        self._listener = listener
        report_outcomes(self, clock, listener)

    def with_options(self, *, seconds: float) -> Self:
        """Return this policy with another limit.

        Raises:
            ValueError: `seconds` is out of its range.
        """
        return self._derive(seconds=_checked(seconds))

    async def run(self, call: Call[T]) -> T:
        """Run `call`.

        Raises:
            CallTimeoutError: The call took too long.
            TypeError: `call` is a plain function; it is not run.
            BaseException: The error of the call, also if it is a `TimeoutError` or a cancellation.
        """
        require_async(call)
        try:
            async with self._clock.timeout(self.seconds):
                try:
                    return await call()
                except TimeoutError as error:  # the call's own error, kept apart from that of the clock
                    own_error = error
        except TimeoutError as error:
            notify(self._listener, TimedOut(policy=self.name, seconds=self.seconds))
            raise CallTimeoutError(self.seconds) from error
        raise own_error


def _checked(seconds: float) -> float:
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be finite and above 0, not {seconds}")
    return seconds
