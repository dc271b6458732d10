"""Rate limiters that all workers share. One script in Redis decides hits by the contract of `RateLimiter`.

The script uses the clock of the Redis server, in whole microseconds, so that workers with different clocks
agree. One run of the script decides all quotas of a key. While a change of the quotas reaches the workers one
by one, each worker decides by its own quotas on the same counts.

**A key that is over the limit** costs one round trip to Redis, not one per call. A worker repeats a refusal
of Redis, by its own clock, until the retry time in Redis' reply. Redis would refuse the hit as well, since
hits of other workers can only delay the retry time. So the limit stays exact, with one exception that makes
it stricter: if Redis loses its data, another process resets the key or the server's clock is set forward, a
worker still repeats the refusal until the retry time. A worker also does so while Redis is unavailable.
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
from .options import MAX_QUOTAS, Algorithm, Quota, check_cost, quotas_in
from .store import Decision, combine

MAX_REFUSALS = 10_000
"""The most keys that a limiter refuses without Redis. For another key, it forgets the least recently used."""

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A refusal of Redis, with the times of the request and of the reply. Times are in whole µs."""

    cost: int
    quotas: tuple[Quota, ...]
    asked_at_us: int
    answered_at_us: int
    retry_after_us: int
    figures: Sequence[int]

    def repeated(self, cost: int, now_us: int) -> Decision | None:
        """Return the decision of Redis on a hit of `cost`; None if Redis might allow the hit."""
        if cost != self.cost or now_us >= self.asked_at_us + self.retry_after_us:
            return None  # Redis' retry time began after the script was sent
        return _decision(self.quotas, self.figures, now_us - self.answered_at_us)


def _decision(quotas: tuple[Quota, ...], figures: Sequence[int], gone_us: int = 0) -> Decision:
    """Return the decision in a reply of the script, with its times reduced by the time since the reply.

    Args:
        quotas: The quotas by which the script decided.
        figures: The reply without its first number: three numbers for each quota.
        gone_us: The time since the reply.
    """
    if len(quotas) == 1:  # the usual case: a flood of rejected hits must cost few instructions
        remaining, wait, reset = figures
        return Decision(not wait, quotas[0], remaining, (wait - gone_us) / 1e6, (reset - gone_us) / 1e6)
    parts = []
    for index, quota in enumerate(quotas):
        remaining, wait, reset = figures[3 * index : 3 * index + 3]
        wait, reset = max(0, wait - gone_us), max(0, reset - gone_us)
        parts.append(Decision(wait == 0, quota, remaining, wait / 1e6, reset / 1e6))
    return combine(parts)


class Hit(NamedTuple):
    """A hit that the limiter's script decides.

    Attributes:
        key: The key of the quotas.
        cost: Units of each quota.
        spend: Whether to take them, or only to look.
        quotas: The quotas by which the hit is decided.
    """

    key: str
    cost: int
    spend: bool
    quotas: tuple[Quota, ...]


DecideHit: TypeAlias = Callable[[Hit], Awaitable[Reply]]
"""Runs the limiter's script for a hit, and returns the script's decision, or an error as a value."""


class RedisRateLimiter:
    """A `RateLimiter` in Redis.

    A refusal is repeated without Redis only for the same key and cost, since another cost has another retry
    time. Its times count down from the arrival of Redis' reply, so that a client that waits for them does not
    come too early; its `remaining` does not change. If all hits of a key cost 1, Redis would decide the same.
    With larger costs, more units may remain by then, but not enough for the hit. If another worker has spent
    a smaller cost since, the retry time in Redis is later than the repeated one.

    Every method that needs Redis raises `StoreUnavailableError` while Redis is unavailable.

    Args:
        algorithm: The algorithm that counts hits.
        quotas: The quotas of every key: one, or up to `MAX_QUOTAS`.
        redis: A client of `redis.asyncio`, or another `ScriptRunner`.
        clock: Measures the time since a refusal in this process.
        prefix: The beginning of every key name in Redis. The names of one key share a hash tag:
            `{algorithm:key}`, `{algorithm:key}:2`, … They contain the algorithm because each algorithm
            stores another kind of value. So a changed algorithm does not read values of the former one.
        time_source: Lua that defines `now_us()`.

    Attributes:
        algorithm: The algorithm that counts hits.
        time_source: Lua that defines `now_us()`.
        algorithm_file: The Lua file that defines `limiter`, for a script that includes decide_hits.lua.

    Raises:
        ValueError: There is no quota, or there are too many.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        quotas: Quota | Sequence[Quota],
        redis: ScriptRunner | Client,
        clock: Clock = SYSTEM_CLOCK,
        *,
        prefix: str = "",
        time_source: str = SERVER_TIME,
    ) -> None:
        self._runner = script_runner(redis)
        self._clock = clock
        self.algorithm = algorithm
        self._quotas = quotas_in(quotas)
        self.time_source = time_source
        self.algorithm_file = _FOLDER / f"{algorithm}.lua"
        self._script = load_script(_FOLDER / "hits.lua", after=self.algorithm_file, time_source=time_source)
        self._decide_alone: DecideHit = self._run_alone
        self._prefix = prefix
        self._refusals: OrderedDict[str, _Refusal] = OrderedDict()
        self._epoch = 0  # is increased when Redis may decide otherwise than in its earlier replies

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The quotas of every key."""
        return self._quotas

    def change_quotas(self, quotas: Quota | Sequence[Quota]) -> None:
        """Decide by other quotas from now on. Call this in every worker."""
        self._quotas = quotas_in(quotas)
        self._epoch += 1
        self._refusals.clear()

    async def hit(self, key: str, cost: int = 1, decide: DecideHit | None = None) -> Decision:
        """Take `cost` units of `key`, all or none, in at most one round trip.

        Args:
            key: The key of the quotas.
            cost: Units of each quota.
            decide: Runs the script together with other commands; None to run the script by itself.
        """
        return self.refusal(key, cost) or await self._decide(Hit(key, cost, True, self._quotas), decide)

    def try_hit(self, key: str, cost: int = 1) -> bool:  # noqa: ARG002 -- Redis knows the keys
        """Return False, whatever the key: only Redis can allow a hit."""
        check_cost(self._quotas, cost)
        return False

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Return the decision that a hit would get, and take nothing."""
        return self.refusal(key, cost) or await self._decide(Hit(key, cost, False, self._quotas))

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Return a repeated refusal of Redis; None if Redis has to decide."""
        refusal = self._refusals.get(key)
        repeated = refusal.repeated(cost, self._now_us()) if refusal is not None else None
        if repeated is None:
            check_cost(self._quotas, cost)
            return None
        self._refusals.move_to_end(key)
        return repeated

    async def reset(self, key: str) -> None:
        """Forget `key`."""
        try:
            await self._runner.run(COMMAND, self._names(key, MAX_QUOTAS), ["DEL"])
        finally:  # after an error the key may be forgotten or not, so Redis decides the next hit
            self._forget(key)

    def arguments_of(self, hits: Sequence[Hit]) -> tuple[list[str], list[Argument]]:
        """Return the keys and the arguments with which decide_hits.lua decides `hits`."""
        keys: list[str] = []
        arguments: list[Argument] = []
        lists: list[Argument] = []
        # The distance of each list of quotas from the first argument, by the identity of the list.
        distances: dict[int, int] = {}
        for key, cost, spend, quotas in hits:
            distance = distances.get(id(quotas))
            if distance is None:
                distance = distances[id(quotas)] = 2 * len(hits) + len(lists)
                lists.append(len(quotas))
                for quota in quotas:
                    lists += (quota.limit, quota.window_us)
            keys += self._names(key, len(quotas))
            arguments += (cost if spend else -cost, distance)
        return keys, arguments + lists

    def _forget(self, key: str) -> None:
        self._epoch += 1
        self._refusals.pop(key, None)

    async def _decide(self, hit: Hit, decide: DecideHit | None = None) -> Decision:
        asked_at_us = self._now_us()
        epoch = self._epoch
        allowed, *figures = self._runner.checked(await (decide or self._decide_alone)(hit))
        decision = _decision(hit.quotas, figures)
        if allowed:  # an earlier refusal no longer holds: its retry time is later now, or it has ended
            self._refusals.pop(hit.key, None)
        elif epoch == self._epoch:
            retry_after_us = max(figures[1::3])
            times = (asked_at_us, self._now_us(), retry_after_us)
            self._remember(hit.key, _Refusal(hit.cost, hit.quotas, *times, figures))
        return decision

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

    def _names(self, key: str, count: int) -> list[str]:
        """Return the names of the counts of `key`, one for each quota, all in one slot."""
        name = f"{self._prefix}{{{self.algorithm}:{key}}}"
        return [name] if count == 1 else [name, *(f"{name}:{number}" for number in range(2, count + 1))]
