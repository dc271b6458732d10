"""The retention rules in Redis, the same for every worker."""

import uuid
from collections.abc import Mapping

from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

_RULES = "retention"
_TURN = "retention:turn"
_SET = storage_script("metrics/lifecycle/retention_set")
_TAKE = storage_script("metrics/lifecycle/deletion_take")


class RedisRetention:
    """A `RetentionStore` in Redis.

    Args:
        link: The link to Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def rules(self) -> Mapping[str, int]:
        """Return the seconds of each pattern."""
        reply = await self._link.send("HGETALL", _RULES)
        return {name.decode(): int(text) for name, text in zip(reply[::2], reply[1::2], strict=True)}

    async def set_rule(self, pattern: str, seconds: int, max_rules: int) -> bool:
        """Set the rule of a pattern. Return False if there are `max_rules` other rules already."""
        return bool(await self._link.run(_SET, [_RULES], [pattern, seconds, max_rules]))

    async def remove_rule(self, pattern: str) -> bool:
        """Remove the rule of a pattern. Return False if there is none."""
        return bool(await self._link.send("HDEL", _RULES, pattern))

    async def take_turn(self, seconds: float) -> bool:
        """Return whether this worker, and no other, sweeps during the next `seconds`."""
        ms = round(seconds * 1000)
        # No worker releases this lease, so its token has no meaning.
        return not await self._link.run(_TAKE, (_TURN,), (uuid.uuid4().hex, ms - 1, ms))
