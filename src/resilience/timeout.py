"""Timeout: stop a call that takes too long."""

import math
from typing import TypeVar

from .clock import Clock
from .errors import CallTimeoutError
from .events import Listener, TimedOut, ignore, notify
from .policy import Call, require_async

T = TypeVar("T")


class Timeout:
    """The policy. The call is stopped by cancelling it, so it must let a cancellation through.

    Args:
        seconds: The longest a call may take; finite, above 0.
        clock: Measures.
        name: What events call this policy.
        listener: Told of every call that was stopped.
    """

    def __init__(
        self, seconds: float, clock: Clock, *, name: str = "timeout", listener: Listener = ignore
    ) -> None:
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds must be finite and above 0, not {seconds}")
        self.name = name
        self.seconds = seconds
        self._clock = clock
        self._listener = listener

    async def run(self, call: Call[T]) -> T:
        """Run `call`.

        Raises:
            CallTimeoutError: It took too long.
            TypeError: `call` is a plain function; it is not run.
            BaseException: Whatever it raised, a `TimeoutError` of its own and a cancellation included.
        """
        require_async(call)
        try:
            async with self._clock.timeout(self.seconds):
                try:
                    return await call()
                except TimeoutError as error:  # its own: carried past the limit's, which looks the same
                    own_error = error
        except TimeoutError as error:
            notify(self._listener, TimedOut(policy=self.name, seconds=self.seconds))
            raise CallTimeoutError(self.seconds) from error
        raise own_error
