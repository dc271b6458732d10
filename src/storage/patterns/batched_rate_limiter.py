"""The rate limiter on the link: the hits of one tick of the event loop are one run of the script.

Each hit is decided in turn, whichever request it belongs to.
"""

from collections import Counter
from collections.abc import Sequence

from src.resilience.clock import Clock
from src.resilience.rate_limiter.options import Algorithm, Quota
from src.resilience.rate_limiter.redis import MAX_REFUSALS, Hit, RedisRateLimiter
from src.resilience.redis.port import Reply
from src.resilience.redis.scripts import SERVER_TIME
from src.storage.redis.link import RedisLink


class BatchedRateLimiter(RedisRateLimiter):
    """A `RedisRateLimiter` that batches its hits.

    Args:
        algorithm: The algorithm that counts hits.
        quotas: The quotas of every key: one, or up to `MAX_QUOTAS`.
        link: The connection to Redis.
        clock: Measures the time since a refusal in this process.
        answers_early: Whether a hit is let through as soon as Redis has been silent for some 10 ms, if the
            last answer of Redis about the key leaves room for it. Redis still counts the hit.
        prefix: Put before every key.
        time_source: Lua that defines `now_us()`.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        quotas: Quota | Sequence[Quota],
        link: RedisLink,
        clock: Clock,
        *,
        answers_early: bool = False,
        prefix: str = "",
        time_source: str = SERVER_TIME,
    ) -> None:
        super().__init__(algorithm, quotas, link, clock, prefix=prefix, time_source=time_source)
        self._link = link
        self._hits = link.tick_loader(self._run)
        self._decide_alone = self._hits.add
        self._answers_early = answers_early
        self._last_replies: dict[str, tuple[Hit, Reply]] = {}  # by key
        if answers_early:
            link.on_silence(self._answer_early)

    def _forget(self, key: str) -> None:
        super()._forget(key)
        self._last_replies.pop(key, None)

    async def _run(self, hits: list[Hit]) -> list[Reply]:
        keys, arguments = self.arguments_of(hits)
        replies: list[Reply] = await self._link.run(self._script, keys, arguments, short_deadline=True)
        if self._answers_early:
            if len(self._last_replies) > MAX_REFUSALS:
                self._last_replies.clear()
            for hit, reply in zip(hits, replies, strict=True):
                self._last_replies[hit.key] = hit, reply
        return replies

    def _answer_early(self) -> None:
        """Allow the pending hits for which there is room by the last replies."""
        taken: Counter[str] = Counter()

        def answer(hit: Hit) -> Reply | None:
            taken[hit.key] += hit.cost
            last_hit, known = self._last_replies.get(hit.key, (hit, None))
            if type(known) is not list or last_hit.quotas is not hit.quotas:  # nothing, an error, or outdated
                return None
            reply = [1]
            # The times have begun to run: no time is longer than named here.
            for remaining, reset_after_us in zip(known[1::3], known[3::3], strict=True):
                reply += (remaining - taken[hit.key], 0, reset_after_us)
            return None if min(reply[1::3]) < 0 else reply

        self._hits.resolve(answer)
