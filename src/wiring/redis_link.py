"""The link to Redis: to the server in the settings, an embedded server, or a store in this process."""

import logging
import multiprocessing
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from src.config.settings import Settings
from src.resilience.clock import Clock
from src.storage.metrics.layout_version import OtherLayoutError, check_layout
from src.storage.redis.batcher import RoundTripObserver
from src.storage.redis.embedded.embedded_redis import EmbeddedRedis
from src.storage.redis.embedded.server_binary import find_redis_server
from src.storage.redis.link import RedisAddress, RedisLink, connect, connect_in_process
from src.storage.redis.server_memory import warn_of_eviction

DATA_FOLDER = Path("data")

_log = logging.getLogger(__name__)


async def redis_link(
    settings: Settings, clock: Clock, observe: RoundTripObserver, stack: AsyncExitStack
) -> RedisLink:
    """Return the link. `stack` closes the link, and stops an embedded server.

    Raises:
        SystemExit: Redis has metrics in another layout, or several workers would each have their own store.
    """
    revive: Callable[[], Awaitable[None]] | None = None
    address = RedisAddress(settings.redis_address)
    if address.url != "embedded://":
        client = connect(address)
    elif find_redis_server() is not None:
        embedded = EmbeddedRedis(DATA_FOLDER, settings.redis_appendfsync, clock)
        client = connect(RedisAddress(await embedded.start()))
        stack.push_async_callback(embedded.stop)
        revive = embedded.ensure_running
    else:
        _reject_several_workers()
        client = connect_in_process()
        _log.warning("redis_in_process", extra={"detail": "no redis-server found: data is not kept"})
    link = RedisLink(client, clock, revive, observe, str(address), check=check_layout)
    stack.push_async_callback(link.aclose)
    try:
        await link.check()
    except OtherLayoutError as error:
        raise SystemExit(str(error)) from None
    await warn_of_eviction(link)
    return link


def _reject_several_workers() -> None:
    if multiprocessing.parent_process() is not None:  # a single worker has no parent process
        raise SystemExit("Without a redis-server only one worker may run: set WEB_CONCURRENCY=1")
