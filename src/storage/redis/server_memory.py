"""The memory of the Redis server: the used bytes and the eviction policy."""

import logging
import re

from src.storage.redis.link import RedisLink

_USED_MEMORY = re.compile(rb"^used_memory:(\d+)", re.MULTILINE)

_log = logging.getLogger(__name__)


async def used_memory_bytes(link: RedisLink) -> int | None:
    """Return the bytes that the server has allocated, or None if it is unavailable or refuses the command."""
    info = await link.try_send("INFO", "memory")
    match = _USED_MEMORY.search(info or b"")
    return int(match[1]) if match else None


async def warn_of_eviction(link: RedisLink) -> None:
    """Log a warning if the server drops keys when its memory is full, because points would then be lost."""
    reply = await link.try_send("CONFIG", "GET", "maxmemory-policy")
    if reply and reply[1] != b"noeviction":
        _log.warning("redis_may_evict", extra={"maxmemory_policy": reply[1].decode()})
