"""The log of resilience events: one Redis stream of limited length, which all workers write and read.

All readers see the events in the same order. The ids grow with the server's clock, so that a reader can
continue after the last id that it has read. Redis limits the length of the stream.
"""

import logging
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from redis.exceptions import RedisError

from src.services.errors import StorageUnavailableError
from src.services.events.log import LoggedEvent
from src.storage.redis.link import RedisLink

T = TypeVar("T")

_log = logging.getLogger(__name__)

_KEY = "events"
_FIELD = "event"

KEPT_EVENTS = 1000
"""The smallest number of events that the stream keeps. With `MAXLEN ~`, Redis may keep a few more."""


class RedisEventLog:
    """An `EventLog` in Redis.

    Args:
        link: The connection to Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def append(self, bodies: Sequence[bytes]) -> None:
        """Append events in order, in one round trip.

        Raises:
            StorageUnavailableError: Redis is unavailable or refuses, or another program uses the key.
        """
        await _redis_error_as_unavailable(
            self._link.send_all(
                [("XADD", _KEY, "MAXLEN", "~", KEPT_EVENTS, "*", _FIELD, body) for body in bodies]
            )
        )

    async def read(self, after: str | None, limit: int) -> list[LoggedEvent]:
        """Return up to `limit` events, oldest first.

        Args:
            after: The id of the last event that was read. None: begin with the oldest event.
            limit: The largest number of events.

        Raises:
            StorageUnavailableError: Redis is unavailable or refuses, or another program uses the key.
        """
        start = "-" if after is None else f"({after}"
        entries = await _redis_error_as_unavailable(
            self._link.send("XRANGE", _KEY, start, "+", "COUNT", limit)
        )
        return [LoggedEvent(event_id.decode(), body) for event_id, (_, body) in entries]


async def _redis_error_as_unavailable(reply: Awaitable[T]) -> T:
    """Return `reply`.

    Log an error of redis-py, such as a foreign value, and raise `StorageUnavailableError`.
    """
    try:
        return await reply
    except RedisError as error:
        _log.warning("event_log_refused", extra={"reason": str(error)})
        raise StorageUnavailableError(str(error)) from error
