"""Rate limiters of one process: each of the five algorithms in memory.

What each lets through is told in `rate_limiter`. The scripts in this folder keep the same rules, and
one contract suite holds both to them.
"""

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from ..clock import SYSTEM_CLOCK, Clock
from .options import Algorithm, Quota
from .store import Decision, RateLimiter

S = TypeVar("S")

_US = 1_000_000


class _MemoryRateLimiter(ABC, Generic[S]):
    """The part that all algorithms share: one state for each key, in order of the last hit let through.

    An algorithm is arithmetic on a state at a time in µs and no more. A key whose whole limit is free again
    is as good as unknown, so it is forgotten: memory holds the keys of the last window, not of all time.

    Args:
        quota: The same for every key.
        clock: Whose monotonic reading counts.
    """

    def __init__(self, quota: Quota, clock: Clock) -> None:
        self._quota = quota
        self._limit = quota.limit
        self._window = quota.window_us
        self._clock = clock
        self._states: OrderedDict[str, S] = OrderedDict()

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of this class."""
        return next(name for name, kind in _IN_MEMORY.items() if kind is type(self))

    @property
    def quota(self) -> Quota:
        """The quota of every key."""
        return self._quota

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take `cost` units of `key`, all or none."""
        return self._decide(key, cost, spend=True)

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Say what a hit would be told."""
        return self._decide(key, cost, spend=False)

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Return what a hit that is refused would be told; None of one that is let through."""
        decision = self._decide(key, cost, spend=False)
        return None if decision.allowed else decision

    async def reset(self, key: str) -> None:
        """Forget `key`."""
        self._states.pop(key, None)

    def _decide(self, key: str, cost: int, *, spend: bool) -> Decision:
        if cost != 1:
            self._quota.check(cost)
        now = round(self._clock.monotonic() * _US)
        state = self._as_of(self._states.get(key), now)
        wait = self._wait(state, now, cost)
        if spend and not wait:
            state = self._states[key] = self._spend(state, now, cost)
            if len(self._states) > 1:
                self._states.move_to_end(key)
                self._forget_idle(now)
        return Decision(
            not wait, self._limit, self._remaining(state, now), wait / _US, self._until_free(state, now) / _US
        )

    def _forget_idle(self, now: int) -> None:
        # Two for each one that comes: they go faster than they came, and no caller pays for a whole crowd.
        for _ in range(2):
            longest_idle, state = next(iter(self._states.items()))
            if self._until_free(self._as_of(state, now), now):
                break
            del self._states[longest_idle]

    @abstractmethod
    def _as_of(self, state: S | None, now: int) -> S:
        """Bring `state` forward to `now`; None is a key never seen."""

    @abstractmethod
    def _wait(self, state: S, now: int, cost: int) -> int:
        """Return µs until there is room for `cost`."""

    @abstractmethod
    def _spend(self, state: S, now: int, cost: int) -> S:
        """Take `cost`, for which there is room."""

    @abstractmethod
    def _remaining(self, state: S, now: int) -> int:
        """Return the units for which there is room."""

    @abstractmethod
    def _until_free(self, state: S, now: int) -> int:
        """Return µs until the whole limit is free."""


class _HitLog:
    """The hits of one key that count now, oldest first.

    Attributes:
        times: When each hit was let through, in µs.
        totals: The units let through up to and including each hit.
        departed: The units of the hits that have left the window.
    """

    __slots__ = ("departed", "times", "totals")

    def __init__(self) -> None:
        self.times = array("q")
        self.totals = array("q")
        self.departed = 0

    @property
    def total(self) -> int:
        """The units ever let through."""
        return self.totals[-1] if self.totals else self.departed

    def drop(self, hits: int) -> None:
        """Remove the oldest `hits` hits."""
        if hits:
            self.departed = self.totals[hits - 1]
            del self.times[:hits], self.totals[:hits]


class SlidingWindowLog(_MemoryRateLimiter[_HitLog]):
    """Remembers when each hit was let through, and counts those of the last window: exact.

    Never more than `limit` units in any half-open window, and never a refusal while there are fewer. It costs
    16 bytes for each hit in the window, whatever the hit's cost. Figma's "An alternative approach to rate
    limiting" (2017) describes the method and its price.
    """

    def _as_of(self, state: _HitLog | None, now: int) -> _HitLog:
        if state is None:
            return _HitLog()
        state.drop(bisect_right(state.times, now - self._window))
        return state

    def _wait(self, state: _HitLog, now: int, cost: int) -> int:
        # There is room once the hit that brought the total to this has left.
        leaving = state.total + cost - self._limit
        if leaving <= state.departed:
            return 0
        return state.times[bisect_left(state.totals, leaving)] + self._window - now

    def _spend(self, state: _HitLog, now: int, cost: int) -> _HitLog:
        state.totals.append(state.total + cost)
        state.times.append(now)
        return state

    def _remaining(self, state: _HitLog, _now: int) -> int:
        return self._limit - (state.total - state.departed)

    def _until_free(self, state: _HitLog, now: int) -> int:
        return state.times[-1] + self._window - now if state.times else 0


class SlidingWindowCounter(_MemoryRateLimiter[tuple[int, int, int]]):
    """Counts by windows in a row, and reckons that the previous one's hits were spread evenly.

    The estimate is `previous * (share of the previous window still in sight) + current`, from Cloudflare's
    "Counting things, a lot of different things" (2017), where 0.003 % of 400 million requests were judged
    wrongly. Against traffic that knows the method: hits that crowd at the end of one window let at most
    2 * limit - 2 through in a window's time (1 when the limit is 1), and hits that crowd at its start are
    held against a caller for up to one window too long.

    The state is (start of the current window, previous count, current count). A key's first window begins
    with its first hit, so that not all keys turn over at the same moment.
    """

    def _as_of(self, state: tuple[int, int, int] | None, now: int) -> tuple[int, int, int]:
        if state is None or now - state[0] >= 2 * self._window:
            return now, 0, 0
        start, _, current = state
        return state if now - start < self._window else (start + self._window, current, 0)

    def _wait(self, state: tuple[int, int, int], now: int, cost: int) -> int:
        start, previous, current = state
        if cost <= self._remaining(state, now):
            return 0
        if current + cost <= self._limit:  # once enough of the previous window is out of sight
            in_sight = (self._limit - current - cost) * self._window // previous
            return start + self._window - in_sight - now
        in_sight = (self._limit - cost) * self._window // current  # the current one, then the previous
        return start + 2 * self._window - in_sight - now

    def _spend(self, state: tuple[int, int, int], _now: int, cost: int) -> tuple[int, int, int]:
        start, previous, current = state
        return start, previous, current + cost

    def _remaining(self, state: tuple[int, int, int], now: int) -> int:
        start, previous, current = state
        return self._limit - current + previous * (now - start - self._window) // self._window

    def _until_free(self, state: tuple[int, int, int], now: int) -> int:
        start, previous, current = state
        windows = 2 if current else 1 if previous else 0
        return start + windows * self._window - now if windows else 0


class FixedWindow(_MemoryRateLimiter[tuple[int, int]]):
    """Counts by windows, each of which begins with the first hit after the one before has ended.

    The cheapest to explain. A caller that waits for the end of one window can have up to 2 * limit - 1
    through in a window's time.

    The state is (start of the window, count).
    """

    def _as_of(self, state: tuple[int, int] | None, now: int) -> tuple[int, int]:
        return (now, 0) if state is None or now - state[0] >= self._window else state

    def _wait(self, state: tuple[int, int], now: int, cost: int) -> int:
        start, count = state
        return start + self._window - now if count + cost > self._limit else 0

    def _spend(self, state: tuple[int, int], _now: int, cost: int) -> tuple[int, int]:
        start, count = state
        return start, count + cost

    def _remaining(self, state: tuple[int, int], _now: int) -> int:
        return self._limit - state[1]

    def _until_free(self, state: tuple[int, int], now: int) -> int:
        start, count = state
        return start + self._window - now if count else 0


class _Bucket(_MemoryRateLimiter[S]):
    """What the two buckets share: a unit is worth an interval of time, the bucket `limit` of them.

    An interval that is no whole number of µs is rounded up, to the strict side: by up to 1 % at 10,000 units
    a second.
    """

    def __init__(self, quota: Quota, clock: Clock) -> None:
        super().__init__(quota, clock)
        self._interval = quota.unit_us
        self._capacity = self._limit * self._interval


class TokenBucket(_Bucket[tuple[int, int]]):
    """A bucket of `limit` tokens, full at first, refilled evenly at `limit` a window.

    In any s seconds it lets `limit` and one more for every window / limit seconds through, at most
    (RFC 3290, appendix A).

    The state is (credit in µs, when it was reckoned). Credit grows by one a µs; a token costs an interval.
    """

    def _as_of(self, state: tuple[int, int] | None, now: int) -> tuple[int, int]:
        if state is None:
            return self._capacity, now
        credit, at = state
        return min(self._capacity, credit + now - at), now

    def _wait(self, state: tuple[int, int], _now: int, cost: int) -> int:
        return max(0, cost * self._interval - state[0])

    def _spend(self, state: tuple[int, int], now: int, cost: int) -> tuple[int, int]:
        return state[0] - cost * self._interval, now

    def _remaining(self, state: tuple[int, int], _now: int) -> int:
        return state[0] // self._interval

    def _until_free(self, state: tuple[int, int], _now: int) -> int:
        return self._capacity - state[0]


class LeakyBucket(_Bucket[int]):
    """The generic cell rate algorithm, GCRA: a leaky bucket as a meter, without a drip process.

    Every unit pours an interval into a bucket that drains by one a µs; what would overflow is refused. That
    is the token bucket seen from its empty half, and decides alike, but needs only one number: the
    theoretical arrival time, when the bucket will have drained. From ITU-T I.371, annex A, and Brandur Leach,
    "Rate Limiting, Cells, and GCRA" (2015).
    """

    def _as_of(self, state: int | None, now: int) -> int:
        return now if state is None else max(state, now)

    def _wait(self, state: int, now: int, cost: int) -> int:
        return max(0, state + cost * self._interval - self._capacity - now)

    def _spend(self, state: int, _now: int, cost: int) -> int:
        return state + cost * self._interval

    def _remaining(self, state: int, now: int) -> int:
        return (self._capacity - (state - now)) // self._interval

    def _until_free(self, state: int, now: int) -> int:
        return state - now


_IN_MEMORY: dict[Algorithm, Callable[[Quota, Clock], RateLimiter]] = {
    "sliding_window_log": SlidingWindowLog,
    "sliding_window_counter": SlidingWindowCounter,
    "fixed_window": FixedWindow,
    "token_bucket": TokenBucket,
    "leaky_bucket": LeakyBucket,
}


def memory_rate_limiter(algorithm: Algorithm, quota: Quota, clock: Clock = SYSTEM_CLOCK) -> RateLimiter:
    """Return a rate limiter for one process."""
    return _IN_MEMORY[algorithm](quota, clock)
