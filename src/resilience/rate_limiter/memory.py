"""Rate limiters of one process: each of the five algorithms in memory.

The module `policy` describes what each algorithm allows. The Lua scripts in this folder implement the same
rules, and one contract suite tests both.
"""

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ..clock import SYSTEM_CLOCK, Clock
from .options import Algorithm, Quota, check_cost, quotas_in
from .store import Decision, RateLimiter, combine

S = TypeVar("S")

_US = 1_000_000


class _MemoryRateLimiter(ABC, Generic[S]):
    """The shared part of all algorithms: one state for each key, in order of the last allowed hit.

    A subclass calculates with the state of a key at a time in µs. A key whose whole limit is free again needs
    no state and is forgotten, so memory holds only the keys of the last window. Each quota after the first
    has a separate limiter with that one quota.

    Args:
        quotas: The quotas of every key: one, or up to `MAX_QUOTAS`.
        clock: Its monotonic reading counts.

    Raises:
        ValueError: There is no quota, or there are too many.
    """

    _must_convert = False  # whether a state may have been counted by another quota and must be converted

    def __init__(self, quotas: Quota | Sequence[Quota], clock: Clock) -> None:
        self._clock = clock
        self._states: OrderedDict[str, S] = OrderedDict()
        self._further: list[_MemoryRateLimiter[S]] = []
        self.change_quotas(quotas)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of this class."""
        return next(name for name, kind in _IN_MEMORY.items() if kind is type(self))

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The quotas of every key."""
        return self._quotas

    def change_quotas(self, quotas: Quota | Sequence[Quota]) -> None:
        """Decide by other quotas from now on. A quota that is dropped loses its counts."""
        self._quotas = quotas_in(quotas)
        self._quota, *others = self._quotas
        self._limit = self._quota.limit
        self._window = self._quota.window_us
        del self._further[len(others) :]
        for limiter, quota in zip(self._further, others, strict=False):
            limiter.change_quotas(quota)
        self._further += (type(self)(quota, self._clock) for quota in others[len(self._further) :])

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take `cost` units of each quota of `key`, all or none."""
        return (
            self._decide_all(key, cost, spend=True) if self._further else self.decide(key, cost, spend=True)
        )

    def try_hit(self, key: str, cost: int = 1) -> bool:
        """Take `cost` units of each quota of `key`, all or none; return whether they were taken."""
        if self._further:
            return self._decide_all(key, cost, spend=True).allowed
        return self._apply(key, cost, True)[2] <= 0

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Return the decision that a hit would get, and take nothing."""
        return self._decide_all(key, cost, spend=False)

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Return the decision on a hit that would be rejected; None for one that would be allowed."""
        decision = self._decide_all(key, cost, spend=False)
        return None if decision.allowed else decision

    async def reset(self, key: str) -> None:
        """Forget `key`."""
        for limiter in self._limiters():
            limiter.forget(key)

    def forget(self, key: str) -> None:
        """Forget what `key` took of the first quota."""
        self._states.pop(key, None)

    def decide(self, key: str, cost: int, *, spend: bool) -> Decision:
        """Decide a hit by the first quota alone, and take its cost if `spend`."""
        state, now, wait = self._apply(key, cost, spend)
        allowed, remaining = wait <= 0, self._remaining(state, now)
        retry_after = 0.0 if allowed else wait / _US
        return Decision(allowed, self._quota, remaining, retry_after, self._until_free(state, now) / _US)

    def _apply(self, key: str, cost: int, spend: bool) -> tuple[S, int, int]:
        """Decide as `decide` does; return the new state, the time in µs, and what `_wait` returned."""
        if cost != 1:
            self._quota.check(cost)
        now = round(self._clock.monotonic() * _US)
        known = self._states.get(key)
        state = self._as_of(known, now)
        if self._must_convert and known is not None:
            self._states[key] = state
        wait = self._wait(state, now, cost)
        if spend and wait <= 0:
            state = self._states[key] = self._spend(state, now, cost)
            if len(self._states) > 1:
                self._states.move_to_end(key)
                self._forget_idle(now)
        return state, now, wait

    def _limiters(self) -> "list[_MemoryRateLimiter[S]]":
        return [self, *self._further]

    def _decide_all(self, key: str, cost: int, *, spend: bool) -> Decision:
        if not self._further:
            return self.decide(key, cost, spend=spend)
        check_cost(self._quotas, cost)
        limiters = self._limiters()
        decision = combine([limiter.decide(key, cost, spend=False) for limiter in limiters])
        if spend and decision.allowed:  # takes the units only after every quota was found to have room
            decision = combine([limiter.decide(key, cost, spend=True) for limiter in limiters])
        return decision

    def _forget_idle(self, now: int) -> None:
        # Forget up to two idle keys per hit: more than a hit can add, and never many in one hit.
        for _ in range(2):
            longest_idle, state = next(iter(self._states.items()))
            if self._until_free(state, now) > 0:
                break
            del self._states[longest_idle]

    @abstractmethod
    def _as_of(self, state: S | None, now: int) -> S:
        """Return `state` as it is at `now`; None is the state of an unknown key."""

    @abstractmethod
    def _wait(self, state: S, now: int, cost: int) -> int:
        """Return µs until there is room for `cost`; not above 0 where there is room now."""

    @abstractmethod
    def _spend(self, state: S, now: int, cost: int) -> S:
        """Take `cost`, for which there is room."""

    @abstractmethod
    def _remaining(self, state: S, now: int) -> int:
        """Return the units for which there is room."""

    @abstractmethod
    def _until_free(self, state: S, now: int) -> int:
        """Return µs until the whole limit is free; not above 0 for an old state that no longer counts."""


class _HitLog:
    """The hits of one key that count now, oldest first.

    Attributes:
        times: The time of each allowed hit, in µs.
        totals: For each hit, the units allowed up to and including it.
        departed: The units of the hits that have left the window.
    """

    __slots__ = ("departed", "times", "totals")

    def __init__(self) -> None:
        self.times = array("q")
        self.totals = array("q")
        self.departed = 0

    @property
    def total(self) -> int:
        """The number of units allowed so far."""
        return self.totals[-1] if self.totals else self.departed

    def drop(self, hits: int) -> None:
        """Remove the oldest `hits` hits."""
        if hits:
            self.departed = self.totals[hits - 1]
            del self.times[:hits], self.totals[:hits]


class SlidingWindowLog(_MemoryRateLimiter[_HitLog]):
    """Stores the time of each allowed hit, and counts the hits of the last window: exact.

    It never allows more than `limit` units in a half-open window, and never rejects a hit for which there is
    room. It uses 16 bytes for each hit in the window, independent of the cost of the hit. Figma's "An
    alternative approach to rate limiting" (2017) describes the method and its memory use.
    """

    def _as_of(self, state: _HitLog | None, now: int) -> _HitLog:
        if state is None:
            return _HitLog()
        state.drop(bisect_right(state.times, now - self._window))
        return state

    def _wait(self, state: _HitLog, now: int, cost: int) -> int:
        # There is room once the hit that brought the total to `leaving` has left the window.
        leaving = state.total + cost - self._limit
        if leaving <= state.departed:
            return 0
        return state.times[bisect_left(state.totals, leaving)] + self._window - now

    def _spend(self, state: _HitLog, now: int, cost: int) -> _HitLog:
        state.totals.append(state.total + cost)
        state.times.append(now)
        return state

    def _remaining(self, state: _HitLog, _now: int) -> int:
        return max(0, self._limit - state.total + state.departed)

    def _until_free(self, state: _HitLog, now: int) -> int:
        return state.times[-1] + self._window - now if state.times else 0


class SlidingWindowCounter(_MemoryRateLimiter[tuple[int, int, int]]):
    """Counts hits in consecutive windows, and assumes that the hits of the previous window came evenly.

    The estimate is `previous * (share of the previous window that still counts) + current`, from Cloudflare's
    "Counting things, a lot of different things" (2017). There, 0.003 % of 400 million requests were decided
    wrongly. The worst cases are these: if many hits come at the end of a window, the limiter allows at most
    2 * limit - 2 units in the time of one window (1 if the limit is 1). If many hits come at its start, they
    count for up to one window too long.

    The state is (start of the current window, previous count, current count). The first window of a key
    begins with its first hit, so that the windows of different keys do not all end at the same time.
    """

    def _as_of(self, state: tuple[int, int, int] | None, now: int) -> tuple[int, int, int]:
        if state is None or now - state[0] >= 2 * self._window:
            return now, 0, 0
        start, _, current = state
        return state if now - start < self._window else (start + self._window, current, 0)

    def _wait(self, state: tuple[int, int, int], now: int, cost: int) -> int:
        start, previous, current = state
        if cost <= self._free(state, now):
            return 0
        if current + cost <= self._limit:  # there is room once less of the previous window counts
            counting = (self._limit - current - cost) * self._window // previous
            return start + self._window - counting - now
        counting = (self._limit - cost) * self._window // current  # of this window, as the previous one
        return start + 2 * self._window - counting - now

    def _spend(self, state: tuple[int, int, int], _now: int, cost: int) -> tuple[int, int, int]:
        start, previous, current = state
        return start, previous, current + cost

    def _remaining(self, state: tuple[int, int, int], now: int) -> int:
        return max(0, self._free(state, now))

    def _until_free(self, state: tuple[int, int, int], now: int) -> int:
        start, previous, current = state
        windows = 2 if current else 1 if previous else 0
        return start + windows * self._window - now if windows else 0

    def _free(self, state: tuple[int, int, int], now: int) -> int:
        """Return the units for which there is room; negative if the limit was lowered."""
        start, previous, current = state
        return self._limit - current + previous * (now - start - self._window) // self._window


class FixedWindow(_MemoryRateLimiter[tuple[int, int]]):
    """Counts hits in windows. Each window begins with the first hit after the previous window has ended.

    This algorithm is the easiest to explain. A client that waits for the end of a window can use up to
    2 * limit - 1 units in the time of one window.

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
        return max(0, self._limit - state[1])

    def _until_free(self, state: tuple[int, int], now: int) -> int:
        start, count = state
        return start + self._window - now if count else 0


class _Bucket(_MemoryRateLimiter[tuple[int, int]]):
    """The shared part of the two buckets: a unit is an interval of time, and the bucket holds `limit` units.

    An interval that is not a whole number of µs is rounded up, which makes the limit stricter: by up to 1 %
    at 10,000 units a second. The units taken are a debt in µs, which falls by 1 per µs.

    The state is (the time at which the debt is 0, the interval by which it was counted). If the quota has
    changed since, whole units of debt are converted to the new interval. The rest, a part of a unit, becomes
    free at its former time or after one new interval, whichever is earlier.
    """

    def change_quotas(self, quotas: Quota | Sequence[Quota]) -> None:
        """Decide by other quotas from now on. A quota that is dropped loses its counts."""
        super().change_quotas(quotas)
        self._interval = self._quota.unit_us
        self._capacity = self._limit * self._interval
        self._must_convert |= bool(self._states)

    def _as_of(self, state: tuple[int, int] | None, now: int) -> tuple[int, int]:
        if state is None or state[0] <= now:
            return now, self._interval
        return self._converted(state, now) if self._must_convert else state

    def _converted(self, state: tuple[int, int], now: int) -> tuple[int, int]:
        empty_at, interval = state
        debt = empty_at - now
        if interval != self._interval:
            units, rest = divmod(debt, interval)
            debt = units * self._interval + min(rest, self._interval)
        return now + min(debt, self._capacity), self._interval

    def _wait(self, state: tuple[int, int], now: int, cost: int) -> int:
        return state[0] - now + cost * self._interval - self._capacity

    def _spend(self, state: tuple[int, int], _now: int, cost: int) -> tuple[int, int]:
        return state[0] + cost * self._interval, self._interval

    def _remaining(self, state: tuple[int, int], now: int) -> int:
        return (self._capacity - (state[0] - now)) // self._interval

    def _until_free(self, state: tuple[int, int], now: int) -> int:
        return state[0] - now


class TokenBucket(_Bucket):
    """A bucket of `limit` tokens that is full at first. Tokens are added evenly, `limit` per window.

    In any s seconds it allows at most `limit` units, and one more unit per window / limit seconds (RFC 3290,
    appendix A).
    """


class LeakyBucket(_Bucket):
    """The generic cell rate algorithm, GCRA: a leaky bucket as a meter.

    Every unit adds an interval to the level of the bucket, which falls by 1 per µs. A hit that would exceed
    the capacity is rejected. The level is the capacity less the tokens of a token bucket, so both algorithms
    make the same decisions. The time at which the bucket is empty is the theoretical arrival time. The
    sources are ITU-T I.371, annex A, and Brandur Leach, "Rate Limiting, Cells, and GCRA" (2015).
    """


_IN_MEMORY: dict[Algorithm, Callable[[Quota | Sequence[Quota], Clock], RateLimiter]] = {
    "sliding_window_log": SlidingWindowLog,
    "sliding_window_counter": SlidingWindowCounter,
    "fixed_window": FixedWindow,
    "token_bucket": TokenBucket,
    "leaky_bucket": LeakyBucket,
}


def memory_rate_limiter(
    algorithm: Algorithm, quotas: Quota | Sequence[Quota], clock: Clock = SYSTEM_CLOCK
) -> RateLimiter:
    """Return a rate limiter for one process.

    Args:
        algorithm: The algorithm that counts hits.
        quotas: The quotas of every key: one, or up to `MAX_QUOTAS`.
        clock: Its monotonic reading counts.

    Raises:
        ValueError: There is no quota, or there are too many.
    """
    return _IN_MEMORY[algorithm](quotas, clock)
