"""Rate limiters that all workers share: the memory forms' contract, decided in Redis by one script.

The hits of one tick of the event loop, whosever they are, are one run of it; each is decided in turn.
Time is the server's, in whole microseconds, so workers whose clocks differ still agree.

**A key that is over the limit** costs one round trip and not one a call: what Redis refused it is refused
here, by this process's clock, until the time that Redis named. Redis would refuse it as well, since whatever
other workers do meanwhile can only put that time off. So the limit stays exact, with one exception, which is
on the strict side: where Redis is emptied, the key is reset by another process or the server's clock is set
forward, a worker that was told a time goes on refusing until then. So it does while Redis is away.
"""

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from src.resilience.clock import Clock
from src.resilience.rate_limiter.options import Algorithm, Quota
from src.resilience.rate_limiter.store import Decision
from src.storage.redis.connection import Argument, Reply
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import SERVER_TIME, Script, load_script

MAX_REFUSALS = 10_000
"""Keys that a limiter refuses without Redis; beyond that the one that asked longest ago goes back to it."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What Redis said, and what this process's clock read before and after. Times are in whole µs."""

    cost: int
    limit: int
    asked_at_us: int
    told_at_us: int
    remaining: int
    retry_after_us: int
    reset_after_us: int

    def repeated(self, cost: int, now_us: int) -> Decision | None:
        """Return what Redis would say of `cost`; None where it would not refuse it for certain."""
        if cost != self.cost or now_us >= self.asked_at_us + self.retry_after_us:
            return None  # the time it named began after it was asked
        gone_us = now_us - self.told_at_us
        retry_after, reset_after = self.retry_after_us - gone_us, self.reset_after_us - gone_us
        return Decision(False, self.limit, self.remaining, retry_after / 1e6, reset_after / 1e6)


class Hit(NamedTuple):
    """What the limiter's script is asked.

    Attributes:
        key: Whose quota.
        cost: Units of it.
        spend: Whether to take them, or only to look.
    """

    key: str
    cost: int
    spend: bool


Ask: TypeAlias = Callable[[Hit], Awaitable[Reply]]
"""Has the limiter's script decide a hit, and returns what it says of that one."""


class RedisRateLimiter:
    """A `RateLimiter` in Redis.

    A refusal is repeated without Redis for the same key and cost only, as another cost has another time. Its
    times are counted down from when Redis' answer came in, so that nobody who waits for them comes too soon;
    its `remaining` stays. That is what Redis would say where all calls of a key cost the same 1. With larger
    costs there may be more remaining by then, though not enough; and where another worker let a smaller cost
    through meanwhile, the time is later than told.

    Every method raises `StorageUnavailableError` when Redis is away, unless it need not ask.

    Args:
        algorithm: What decides.
        quota: The same for every key.
        link: To Redis.
        clock: Says how much of a refusal's time has gone by in this process.
        answers_early: Whether a hit is let through as soon as Redis has been silent for some 10 ms, if there
            is room for it by what this worker has heard of the quota. Redis still counts the hit.
        prefix: Put before every key. The algorithm is put after it: each keeps another kind of value, and one
            that is newly chosen must not trip over what the last one left.
        time_source: Lua that defines `now_us()`.

    Attributes:
        algorithm: As given.
        quota: As given.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        quota: Quota,
        link: RedisLink,
        clock: Clock,
        *,
        answers_early: bool = False,
        prefix: str = "",
        time_source: str = SERVER_TIME,
    ) -> None:
        self._link = link
        self._clock = clock
        self.algorithm = algorithm
        self._time_source = time_source
        self._script = self.script("hits")
        self.quota = quota
        self._prefix = prefix
        self._hits = link.tick_loader(self._run)
        self._answers_early = answers_early
        self._room: dict[str, Reply] = {}  # what Redis said last, by key
        if answers_early:
            link.on_silence(self._answer_early)
        self._window_us = quota.window_us
        self._refusals: OrderedDict[str, _Refusal] = OrderedDict()
        self._resets = 0

    async def hit(self, key: str, cost: int = 1, ask: Ask | None = None) -> Decision:
        """Take `cost` units of `key`, all or none, in at most one round trip.

        Args:
            key: Whose quota.
            cost: Units of it.
            ask: Has the script decide along with something else; without it, the hits of a tick are one run.
        """
        return self.refusal(key, cost) or await self._decide(Hit(key, cost, spend=True), ask)

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Say what a hit would be told."""
        return self.refusal(key, cost) or await self._decide(Hit(key, cost, spend=False))

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Repeat what Redis refused; None where it has to be asked."""
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
            await self._link.send("DEL", self._name(key))
        finally:  # whether it was carried out is not known: Redis is to be asked
            self._resets += 1
            self._refusals.pop(key, None)
            self._room.pop(key, None)

    def script(self, name: str, *preludes: str) -> Script:
        """Return the script `name`, for which `verdicts`, and what `preludes` are for, are defined."""
        needs = ("now", "quota", self.algorithm, "verdicts", *preludes)
        return load_script(name, *needs, time_source=self._time_source)

    def arguments_of(self, hits: Sequence[Hit]) -> tuple[list[str], list[Argument]]:
        """Return the keys and the arguments by which a script with `verdicts` is told `hits`."""
        arguments: list[Argument] = [self.quota.limit, self._window_us]
        for hit in hits:
            arguments += (hit.cost, int(hit.spend))
        return [self._name(hit.key) for hit in hits], arguments

    async def _decide(self, hit: Hit, ask: Ask | None = None) -> Decision:
        asked_at_us = self._now_us()
        resets = self._resets
        reply = self._link.checked(await (ask or self._hits.add)(hit))
        allowed, remaining, retry_after_us, reset_after_us = reply
        if allowed:  # what was refused before is refused for longer, or not at all
            self._refusals.pop(hit.key, None)
        elif resets == self._resets:  # else this may be from before a reset
            told = (remaining, retry_after_us, reset_after_us)
            limit = self.quota.limit
            self._remember(hit.key, _Refusal(hit.cost, limit, asked_at_us, self._now_us(), *told))
        return Decision(
            bool(allowed), self.quota.limit, remaining, retry_after_us / 1e6, reset_after_us / 1e6
        )

    async def _run(self, hits: list[Hit]) -> list[Reply]:
        keys, arguments = self.arguments_of(hits)
        replies: list[Reply] = await self._link.run(self._script, keys, arguments, short_deadline=True)
        if self._answers_early:
            if len(self._room) > MAX_REFUSALS:
                self._room.clear()
            for hit, reply in zip(hits, replies, strict=True):
                self._room[hit.key] = reply
        return replies

    def _answer_early(self) -> None:
        """Let through the hits under way that are within the quota, as far as this worker knows."""
        taken: Counter[str] = Counter()

        def answer(hit: Hit) -> Reply | None:
            taken[hit.key] += hit.cost
            known = self._room.get(hit.key)
            if type(known) is not list:  # nothing, or an error
                return None
            _, remaining, _, reset_after_us = known  # a time that has begun to run: none longer is named
            left = remaining - taken[hit.key]
            return None if left < 0 else [1, left, 0, reset_after_us]

        self._hits.resolve(answer)

    def _remember(self, key: str, refusal: _Refusal) -> None:
        self._refusals[key] = refusal
        self._refusals.move_to_end(key)
        if len(self._refusals) > MAX_REFUSALS:
            self._refusals.popitem(last=False)

    def _now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)

    def _name(self, key: str) -> str:
        return f"{self._prefix}{key}:{self.algorithm}"
