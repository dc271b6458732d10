"""Rate limiters that all workers share: the memory forms' contract, decided in Redis by one script.

Time is the server's, in whole microseconds, so that workers with different clocks agree.

**A key that is over the limit** costs one round trip, and not one a call: this worker repeats a refusal of
Redis, by its own clock, until the time that Redis named. Redis would refuse the hit as well, since the hits
of other workers can only postpone that time. So the limit stays exact, with one exception on the strict side:
if Redis is emptied, the key is reset by another process or the server's clock is set forward, a worker
repeats the refusal until the time that Redis named. The same holds while Redis is unavailable.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ..clock import SYSTEM_CLOCK, Clock
from ..redis.client_runner import Client, script_runner
from ..redis.port import Argument, Reply, ScriptRunner
from ..redis.scripts import COMMAND, SERVER_TIME, load_script
from .options import Algorithm, Quota
from .store import Decision

MAX_REFUSALS = 10_000
"""Keys that a limiter refuses without Redis. Beyond that, Redis decides the least recently used one again."""

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A refusal of Redis, and this process's clock before and after it. Times are in whole µs."""

    cost: int
    limit: int
    asked_at_us: int
    answered_at_us: int
    remaining: int
    retry_after_us: int
    reset_after_us: int

    def repeated(self, cost: int, now_us: int) -> Decision | None:
        """Return what Redis would decide for `cost`; None where Redis might allow it."""
        if cost != self.cost or now_us >= self.asked_at_us + self.retry_after_us:
            return None  # the time that Redis named began after it was asked
        gone_us = now_us - self.answered_at_us
        retry_after, reset_after = self.retry_after_us - gone_us, self.reset_after_us - gone_us
        return Decision(False, self.limit, self.remaining, retry_after / 1e6, reset_after / 1e6)


class Hit(NamedTuple):
    """A hit that the limiter's script decides.

    Attributes:
        key: The key of the quota.
        cost: Units of the quota.
        spend: Whether to take them, or only to look.
    """

    key: str
    cost: int
    spend: bool


DecideHit: TypeAlias = Callable[[Hit], Awaitable[Reply]]
"""Has the limiter's script decide a hit, and returns the decision, or an error in its place."""


class RedisRateLimiter:
    """A `RateLimiter` in Redis.

    A refusal is repeated without Redis for the same key and cost only, as another cost has another time. Its
    times are counted down from when Redis' answer came in, so that nobody who waits for them comes too soon;
    its `remaining` stays. Redis would decide the same where all hits of a key cost 1. With larger costs there
    may be more remaining by then, though not enough. If another worker spent a smaller cost meanwhile, the
    time is later than the one repeated.

    Every method raises `StoreUnavailableError` if Redis is unavailable, unless no answer of Redis is needed.

    Args:
        algorithm: How hits are counted.
        quota: The same for every key.
        redis: A client of `redis.asyncio`, or what else runs scripts.
        clock: Measures in this process how much of a refusal's time has gone by.
        prefix: Put before every key. The algorithm is put after it: each keeps another kind of value, so that
            a change of the algorithm finds no foreign value.
        time_source: Lua that defines `now_us()`.

    Attributes:
        algorithm: As given.
        quota: As given.
        time_source: As given.
        algorithm_file: The Lua file that defines `hit`, for a script that includes decide_hits.lua.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        quota: Quota,
        redis: ScriptRunner | Client,
        clock: Clock = SYSTEM_CLOCK,
        *,
        prefix: str = "",
        time_source: str = SERVER_TIME,
    ) -> None:
        self._runner = script_runner(redis)
        self._clock = clock
        self.algorithm = algorithm
        self.quota = quota
        self.time_source = time_source
        self.algorithm_file = _FOLDER / f"{algorithm}.lua"
        self._script = load_script(_FOLDER / "hits.lua", after=self.algorithm_file, time_source=time_source)
        self._decide_alone: DecideHit = self._run_alone
        self._prefix = prefix
        self._window_us = quota.window_us
        self._refusals: OrderedDict[str, _Refusal] = OrderedDict()
        self._resets = 0

    async def hit(self, key: str, cost: int = 1, decide: DecideHit | None = None) -> Decision:
        """Take `cost` units of `key`, all or none, in at most one round trip.

        Args:
            key: The key of the quota.
            cost: Units of the quota.
            decide: Has the script decide the hit together with something else; None: by itself.
        """
        return self.refusal(key, cost) or await self._decide(Hit(key, cost, spend=True), decide)

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Return the decision that a hit would get, and take nothing."""
        return self.refusal(key, cost) or await self._decide(Hit(key, cost, spend=False))

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Repeat a refusal of Redis; None where Redis has to decide."""
        refusal = self._refusals.get(key)
        repeated = refusal.repeated(cost, self._now_us()) if refusal is not None else None
        if repeated is None:
            self.quota.check(cost)
            return None
        self._refusals.move_to_end(key)
        return repeated

    async def reset(self, key: str) -> None:
        """Forget `key`."""
        try:
            await self._runner.run(COMMAND, [self._name(key)], ["DEL"])
        finally:  # whether Redis has forgotten it is not known: Redis decides the next hit
            self._forget(key)

    def arguments_of(self, hits: Sequence[Hit]) -> tuple[list[str], list[Argument]]:
        """Return the keys and the arguments with which decide_hits.lua decides `hits`."""
        arguments: list[Argument] = [self.quota.limit, self._window_us]
        for hit in hits:
            arguments += (hit.cost, int(hit.spend))
        return [self._name(hit.key) for hit in hits], arguments

    def _forget(self, key: str) -> None:
        self._resets += 1
        self._refusals.pop(key, None)

    async def _decide(self, hit: Hit, decide: DecideHit | None = None) -> Decision:
        asked_at_us = self._now_us()
        resets = self._resets
        reply = self._runner.checked(await (decide or self._decide_alone)(hit))
        allowed, remaining, retry_after_us, reset_after_us = reply
        if allowed:  # what was refused before is refused for longer, or not at all
            self._refusals.pop(hit.key, None)
        elif resets == self._resets:  # else this may be from before a reset
            decided = (remaining, retry_after_us, reset_after_us)
            limit = self.quota.limit
            self._remember(hit.key, _Refusal(hit.cost, limit, asked_at_us, self._now_us(), *decided))
        return Decision(
            bool(allowed), self.quota.limit, remaining, retry_after_us / 1e6, reset_after_us / 1e6
        )

    async def _run_alone(self, hit: Hit) -> Reply:
        (decision,) = await self._runner.run(self._script, *self.arguments_of([hit]))
        return decision

    def _remember(self, key: str, refusal: _Refusal) -> None:
        self._refusals[key] = refusal
        self._refusals.move_to_end(key)
        if len(self._refusals) > MAX_REFUSALS:
            self._refusals.popitem(last=False)

    def _now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)

    def _name(self, key: str) -> str:
        return f"{self._prefix}{key}:{self.algorithm}"
