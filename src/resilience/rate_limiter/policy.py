"""Rate limiters: how much of something a key may do in a window of time, and a policy that waits its turn.

Five algorithms keep one contract (`RateLimiter`). With a limit of N in a window of W seconds:

======================== ============================= =================
algorithm                lets through in any window    remembers a key by
======================== ============================= =================
`sliding_window_log`     N at most, exactly            a time for each hit
`sliding_window_counter` 2N - 2 at most, N on average  three numbers
`fixed_window`           2N - 1 at most                two numbers
`token_bucket`           2N - 1 at most: N at once,    two numbers
                         then one every W/N
`leaky_bucket`           the same, unit for unit       one number
======================== ============================= =================

A window is half-open: what is let through at t counts from t on and has left at exactly t + W. Time is
reckoned in whole microseconds, here as in the scripts that do the same in Redis, so nothing drifts.
"""

from functools import partial
from typing import TypeVar

from ..clock import Clock
from ..errors import RateLimitedError
from ..events import Listener, Rejected, Waited, ignore, notify
from ..permits import Permits
from ..policy import Call, require_async
from .options import _TICK_SECONDS, RateLimitOptions
from .store import RateLimiter

T = TypeVar("T")
S = TypeVar("S")


class RateLimit:
    """The policy: each call takes a unit of a quota before it begins, and waits for it.

    Calls wait in order of arrival. A call whose unit cannot come within `max_wait_seconds`, since so many
    wait before it, is rejected when it arrives and does not wait. The first in the queue asks the limiter
    and, refused, sleeps until there is room.

    When a call arrives while the limiter is being asked for the first in the queue, that one is expected to
    be let through. If it is not, or if others take from the same quota, a call may wait and still be
    rejected. No call waits longer than `max_wait_seconds`, but for what the limiter takes to answer.

    A call that is cancelled while it waits has taken nothing, and the next one moves up. One cancelled during
    the very round trip that decides may have taken its unit: the quota errs on the strict side.

    Args:
        limiter: Keeps the quota.
        options: Whose quota, and how long to wait.
        clock: To sleep by.
        name: What events and errors call this policy.
        listener: Receives an event for each call that was rejected or had to wait.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        options: RateLimitOptions,
        clock: Clock,
        *,
        name: str = "rate-limiter",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._limiter = limiter
        self._options = options
        self._clock = clock
        self._listener = listener
        self._first_place = Permits(1)
        self._is_asleep = False

    async def run(self, call: Call[T]) -> T:
        """Run `call` once it has its unit.

        Raises:
            RateLimitedError: There is none to be had within `max_wait_seconds`, or `max_waiting` calls wait
                already. Nothing was taken.
            TypeError: `call` is a plain function; it is not run.
            RuntimeError: Callers of another event loop wait for their units.
            BaseException: Whatever the limiter or the call raised.
        """
        require_async(call)
        arrived = self._clock.monotonic()
        deadline = arrived + self._options.max_wait_seconds
        has_waited = not self._first_place.try_take()
        if has_waited:
            await self._wait_for_first_place()
        try:
            while not (decision := await self._limiter.hit(self._options.key)).allowed:
                has_waited = True
                await self._sleep(decision.retry_after, deadline)
        finally:
            self._first_place.give_back()
        if has_waited:
            notify(self._listener, Waited(policy=self.name, seconds=self._clock.monotonic() - arrived))
        return await call()

    async def _sleep(self, seconds: float, deadline: float) -> None:
        if self._clock.monotonic() + seconds > deadline + _TICK_SECONDS:
            raise self._rejection("the quota is spent", seconds)
        self._is_asleep = True
        try:
            await self._clock.sleep(seconds)
        finally:
            self._is_asleep = False

    async def _wait_for_first_place(self) -> None:
        waiting = self._first_place.waiting + self._is_asleep
        units = waiting + 1  # those that wait take theirs first
        if waiting >= self._options.max_waiting:
            raise self._rejection("too many calls wait for the quota", await self._seconds_until(units))
        await self._first_place.wait(partial(self._reject_if_in_vain, units))

    async def _reject_if_in_vain(self, units: int) -> None:
        seconds = await self._seconds_until(units)
        if seconds > self._options.max_wait_seconds:
            raise self._rejection("the calls that wait take all of the quota", seconds)

    async def _seconds_until(self, units: int) -> float:
        """Return when the last of so many units comes, if each is taken as soon as it can be."""
        quota = self._limiter.quota
        windows, others = divmod(units - 1, quota.limit)
        decision = await self._limiter.peek(self._options.key, others + 1)
        return windows * quota.window_seconds + decision.retry_after

    def _rejection(self, reason: str, retry_after: float) -> RateLimitedError:
        notify(self._listener, Rejected(policy=self.name, retry_after=retry_after))
        return RateLimitedError(self.name, reason, retry_after)
