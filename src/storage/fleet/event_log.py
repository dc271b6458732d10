"""The log of resilience events: one capped stream, written and read by all workers.

A stream gives what a log for people needs: an order that all agree on, ids that only grow by the server's
clock, so that a reader can go on where it was, and a length it keeps by itself.
"""

import logging
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from redis.exceptions import RedisError

from src.services.errors import StorageUnavailableError
from src.services.event_feed import LoggedEvent
from src.storage.redis.link import RedisLink

T = TypeVar("T")

_log = logging.getLogger(__name__)

_KEY = "events"
_FIELD = "event"

KEPT_EVENTS = 1000
"""Kept at least; a few more where that saves Redis work (`MAXLEN ~`)."""


class RedisEventLog:
    """An `EventLog` in Redis.

    Args:
        link: To Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def append(self, bodies: Sequence[bytes]) -> None:
        """Write events, in order, in one round trip."""
        await _or_unavailable(
            self._link.send_all(
                [("XADD", _KEY, "MAXLEN", "~", KEPT_EVENTS, "*", _FIELD, body) for body in bodies]
            )
        )

    async def read(self, after: str | None, limit: int) -> list[LoggedEvent]:
        """Return up to `limit` events, oldest first."""
        start = "-" if after is None else f"({after}"
        entries = await _or_unavailable(self._link.send("XRANGE", _KEY, start, "+", "COUNT", limit))
        return [LoggedEvent(place.decode(), body) for place, (_, body) in entries]


async def _or_unavailable(reply: Awaitable[T]) -> T:
    """Return `reply`; where the server refuses (its memory is full), the log is as good as away."""
    try:
        return await reply
    except RedisError as error:
        _log.warning("event_log_refused", extra={"reason": str(error)})
        raise StorageUnavailableError(str(error)) from error
