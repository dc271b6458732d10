"""Rate limiters: how many units a key may use in a window of time, and a policy that waits for its units.

Five algorithms keep one contract (`RateLimiter`), with up to three quotas for each key. With a limit of N in
a window of W seconds:

======================== ============================= ===================
algorithm                units allowed in any window   stored for each key
======================== ============================= ===================
`sliding_window_log`     N at most, exactly            a time for each hit
`sliding_window_counter` 2N - 2 at most, N on average  three numbers
`fixed_window`           2N - 1 at most                two numbers
`token_bucket`           2N - 1 at most: N at once,    three numbers
                         then one every W/N
`leaky_bucket`           the same as `token_bucket`    two numbers
======================== ============================= ===================

A window is half-open: a hit at t counts from t on and no longer counts at exactly t + W. Times are whole
microseconds, here as in the scripts that do the same in Redis, so rounding errors do not add up.
"""

from functools import partial
from typing import Self, TypeVar

from ..building_blocks.outcomes import report_outcomes
from ..building_blocks.permit import BlockPolicy
from ..building_blocks.permits import Permits
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import RateLimitedError
from ..events import Listener, Rejected, Waited, ignore, notify
from ..policy import Call, override, require_async
from .foresight import seconds_until
from .options import _TICK_SECONDS, RateLimitOptions, check_cost
from .store import RateLimiter

T = TypeVar("T")


class RateLimit(BlockPolicy):
    """A policy that takes units of the quotas for each call, and delays the call until it has them.

    Calls wait in order of arrival. A call whose units cannot come within `max_wait_seconds`, because of the
    calls that wait before it, is rejected when it arrives and does not wait. The first call in the queue hits
    the limiter; if it is rejected, it sleeps until there is room.

    If a call arrives while the limiter decides on the first call in the queue, the policy assumes that the
    first call is allowed. If it is rejected, or if other processes use the same quota, a call may wait and
    still be rejected. No call waits longer than `max_wait_seconds` plus the time of the limiter's decision.

    If a call is cancelled while the limiter decides on it, its units may stay used.

    If the limiter has several quotas, a call may be expected to get its units too early (see `foresight`). If
    the quotas are changed to a limit below the cost, `run` raises ValueError.

    Args:
        limiter: Keeps the quotas.
        options: The units that each call takes, and how long it waits for them.
        clock: Measures the waiting time, and sleeps.
        name: The policy's name in events and errors.
        listener: Receives an event for each call that was rejected or had to wait.

    Raises:
        ValueError: The cost is above a limit of the limiter.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        options: RateLimitOptions,
        clock: Clock = SYSTEM_CLOCK,
        *,
        name: str = "rate-limiter",
        listener: Listener = ignore,
    ) -> None:
        check_cost(limiter.quotas, options.cost)
        self.name = name
        self._limiter = limiter
        self._options = options
        self._clock = clock
        self._listener = listener
        self._queue = _Queue()
        report_outcomes(self, clock, listener)

    def with_options(
        self,
        *,
        key: str | None = None,
        cost: int | None = None,
        max_wait_seconds: float | None = None,
        max_waiting: int | None = None,
    ) -> Self:
        """Return a policy with the same limiter and with other options.

        It shares the queue of this policy, unless its key differs.

        Raises:
            ValueError: A value is out of its range.
        """
        options = override(
            self._options, key=key, cost=cost, max_wait_seconds=max_wait_seconds, max_waiting=max_waiting
        )
        check_cost(self._limiter.quotas, options.cost)
        queue = self._queue if options.key == self._options.key else _Queue()
        return self._derive(_options=options, _queue=queue)

    async def run(self, call: Call[T]) -> T:
        """Run `call` as soon as it has its units.

        Raises:
            RateLimitedError: The units do not come within `max_wait_seconds`, or `max_waiting` calls wait
                already. Nothing was taken.
            TypeError: `call` is a plain function; it is not run.
            RuntimeError: Calls of another event loop wait for their units.
            BaseException: The error of the limiter or of the call.
        """
        require_async(call)
        options = self._options
        if self._queue.in_use or not self._limiter.try_hit(options.key, options.cost):
            await self._wait_for_units()
        return await call()

    async def _wait_for_units(self) -> None:
        arrived = self._clock.monotonic()
        deadline = arrived + self._options.max_wait_seconds
        has_waited = not self._queue.try_take()
        if has_waited:
            await self._wait_for_first_place()
        try:
            while not (decision := await self._limiter.hit(self._options.key, self._options.cost)).allowed:
                has_waited = True
                await self._sleep(decision.retry_after, deadline)
        finally:
            self._queue.give_back()
        if has_waited:
            notify(self._listener, Waited(policy=self.name, seconds=self._clock.monotonic() - arrived))

    async def _sleep(self, seconds: float, deadline: float) -> None:
        if self._clock.monotonic() + seconds > deadline + _TICK_SECONDS:
            raise self._rejection("the quota is spent", seconds)
        self._queue.sleeping_units = self._options.cost
        try:
            await self._clock.sleep(seconds)
        finally:
            self._queue.sleeping_units = 0

    async def _wait_for_first_place(self) -> None:
        queue, cost = self._queue, self._options.cost
        units = queue.sleeping_units + queue.waiting_units + cost
        if queue.waiting + bool(queue.sleeping_units) >= self._options.max_waiting:
            raise self._rejection("too many calls wait for the quota", await self._seconds_until(units))
        queue.waiting_units += cost
        try:
            await queue.wait(partial(self._reject_if_in_vain, units))
        finally:
            queue.waiting_units -= cost

    async def _reject_if_in_vain(self, units: int) -> None:
        seconds = await self._seconds_until(units)
        if seconds > self._options.max_wait_seconds + _TICK_SECONDS:
            raise self._rejection("the calls that wait take all of the quota", seconds)

    async def _seconds_until(self, units: int) -> float:
        return await seconds_until(self._limiter, self._options.key, units)

    def _rejection(self, reason: str, retry_after: float) -> RateLimitedError:
        notify(self._listener, Rejected(policy=self.name, retry_after=retry_after))
        return RateLimitedError(self.name, reason, retry_after)


class _Queue(Permits):
    """The one permit to hit the limiter, and the calls that wait for it.

    Attributes:
        sleeping_units: The units for which the first call sleeps; 0 while no call sleeps.
        waiting_units: The units of the calls behind the first.
    """

    def __init__(self) -> None:
        super().__init__(1)
        self.sleeping_units = 0
        self.waiting_units = 0
