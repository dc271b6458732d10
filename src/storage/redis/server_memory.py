"""What the Redis server says of its memory."""

import logging
import re

from src.storage.redis.link import RedisLink

_USED_MEMORY = re.compile(rb"^used_memory:(\d+)", re.MULTILINE)

_log = logging.getLogger(__name__)


async def used_memory_bytes(link: RedisLink) -> int | None:
    """Return the bytes that the server has allocated; None where it is unavailable, or refuses to say."""
    info = await link.try_send("INFO", "memory")
    found = _USED_MEMORY.search(info or b"")
    return int(found[1]) if found else None


async def warn_of_eviction(link: RedisLink) -> None:
    """Log a warning if the server may drop keys when its memory is full: points would be missing."""
    reply = await link.try_send("CONFIG", "GET", "maxmemory-policy")
    if reply and reply[1] != b"noeviction":
        _log.warning("redis_may_evict", extra={"maxmemory_policy": reply[1].decode()})
