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

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from src.resilience.clock import Clock
from src.resilience.errors import RateLimitedError
from src.resilience.events import Listener, Rejected, Waited, ignore, notify
from src.resilience.permits import Permits
from src.resilience.policy import Call, require_async

T = TypeVar("T")
S = TypeVar("S")

Algorithm: TypeAlias = Literal[
    "sliding_window_log", "sliding_window_counter", "fixed_window", "token_bucket", "leaky_bucket"
]

_US = 1_000_000
_TICK_SECONDS = 1 / _US

MAX_WINDOW_SECONDS = 1e8
"""The longest window, some three years: every figure of a quota is then exact in the scripts too."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How much in how long.

    Attributes:
        limit: Units that fit into one window, at least 1 and at most one a microsecond. It is also how many
            a bucket lets through at once.
        window_seconds: Length of the window; above 0 and at most `MAX_WINDOW_SECONDS`.

    Raises:
        ValueError: One of them is out of range.
    """

    limit: int
    window_seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.window_seconds <= MAX_WINDOW_SECONDS:
            longest = f"{MAX_WINDOW_SECONDS:g}"
            raise ValueError(
                f"window_seconds must be above 0 and at most {longest}, not {self.window_seconds}"
            )
        if self.limit % 1 or not 1 <= self.limit <= self.window_us:
            raise ValueError(
                f"limit must be whole, at least 1 and at most one a microsecond, not {self.limit}"
            )

    @property
    def window_us(self) -> int:
        """The window in whole microseconds."""
        return round(self.window_seconds * _US)

    def share(self, workers: int) -> "Quota":
        """Return the quota of each of `workers` that cannot agree: together they keep to this one.

        Only where they are more than the limit they let more through, one each.
        """
        return replace(self, limit=max(1, self.limit // workers))

    def check(self, cost: int) -> None:
        """Raise ValueError when `cost` is below 1, or above the limit and so would never be let through."""
        if not 1 <= cost <= self.limit:
            raise ValueError(f"cost must be between 1 and the limit of {self.limit}, not {cost}")


class Decision(NamedTuple):
    """What a rate limiter says.

    Attributes:
        allowed: Whether there is room for what was asked.
        limit: The quota's.
        remaining: Units for which there is room now.
        retry_after: Seconds after which the same request, nothing else changed, would be let through; 0 when
            it is allowed.
        reset_after: Seconds after which, nothing else changed, the whole limit is free again.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after: float
    reset_after: float


class RateLimiter(Protocol):
    """Counts against one quota, for each key apart.

    One that asks a store raises that store's error when it is away.
    """

    @property
    def quota(self) -> Quota:
        """The quota that it keeps."""
        ...

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take `cost` units of the quota of `key`, all or none: a refused hit takes nothing.

        Raises:
            ValueError: `cost` is below 1 or above the limit.
        """
        ...

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Say what a hit of `cost` would be told, and take nothing. Raises as `hit` does."""
        ...

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Return what a hit would be told that is known to be refused, without asking; None of any other.

        Nobody has to wait for it, so it is the cheapest way to turn a flood away. Raises ValueError as `hit`
        does.
        """
        ...

    async def reset(self, key: str) -> None:
        """Forget `key`: its whole limit is free."""
        ...


@dataclass(frozen=True, slots=True)
class RateLimitOptions:
    """How a `RateLimit` waits.

    Attributes:
        key: Whose quota its calls take from.
        max_wait_seconds: The longest a call waits for its unit; finite, at least 0, which is not to wait.
        max_waiting: Calls that may wait for their units, at least 1.
    """

    key: str
    max_wait_seconds: float = 1.0
    max_waiting: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.max_wait_seconds < math.inf:
            raise ValueError(f"max_wait_seconds must be finite and at least 0, not {self.max_wait_seconds}")
        if not self.max_waiting >= 1:
            raise ValueError(f"max_waiting must be at least 1, not {self.max_waiting}")


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
