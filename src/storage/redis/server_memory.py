"""How much memory the Redis server uses."""

import re

from redis.exceptions import RedisError

from src.services.errors import StorageUnavailableError
from src.storage.redis.link import RedisLink

_USED_MEMORY = re.compile(rb"^used_memory:(\d+)", re.MULTILINE)


async def used_memory_bytes(link: RedisLink) -> int | None:
    """Return the bytes that the server has allocated; None where it is away, or does not tell."""
    try:
        info = await link.send("INFO", "memory")
    except (StorageUnavailableError, RedisError):
        return None
    found = _USED_MEMORY.search(info)
    return int(found[1]) if found else None
