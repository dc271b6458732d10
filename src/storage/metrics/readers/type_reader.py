"""Reads of the registry: all types, and their oldest hours."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any

from redis.exceptions import ResponseError

from src.analytics.rollup import Rollup
from src.analytics.window import HOUR_US
from src.services.metrics.ingest import TypeOverview
from src.storage.metrics.layout import key_of
from src.storage.metrics.readers.list_reader import log_unreadable
from src.storage.redis.connection import Command
from src.storage.redis.link import RedisLink

TYPES_AT_ONCE = 250
"""The number of types that are read in one round trip."""


class TypeReader:
    """Reads the registry of types.

    Args:
        link: The link to Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def types(self) -> list[TypeOverview]:
        """Return every type, ordered by latest timestamp, the newest first, and then by name.

        Raises:
            StorageUnavailableError: Redis is unavailable.
        """
        names = [name.decode() for name in await self._link.send("ZREVRANGE", "types", 0, -1)]
        overviews: list[TypeOverview] = []
        for name, record, fields in await self._read(names, _overview_commands):
            try:
                rollup = Rollup.from_records(record or b"")
            except ValueError as error:
                log_unreadable(name, error)
                continue
            if rollup.count:  # the type may have been deleted between the two reads
                series = max(
                    1, fields - 1
                )  # the dictionary has one field for each set of labels, and its version
                overviews.append(
                    TypeOverview(name, rollup.count, rollup.latest_us, rollup.latest_value, series)
                )
        return sorted(overviews, key=lambda overview: (-overview.latest_timestamp_us, overview.type))

    async def oldest(self) -> list[tuple[str, int]]:
        """Return each type, and the start of the hour of its oldest point, in µs since 1970.

        Raises:
            StorageUnavailableError: Redis is unavailable.
        """
        names = [name.decode() for name in await self._link.send("ZRANGE", "types", 0, -1)]
        found = await self._read(names, _oldest_commands)
        return [(name, int(hour[1]) * HOUR_US) for name, hour in found if hour]

    async def _read(
        self, names: Sequence[str], commands_of: Callable[[str], Sequence[Command]]
    ) -> list[tuple[Any, ...]]:
        """Return each name and the replies to its commands.

        A type with foreign values is logged and left out.
        """
        found: list[tuple[Any, ...]] = []
        for first in range(0, len(names), TYPES_AT_ONCE):
            some = names[first : first + TYPES_AT_ONCE]
            commands = [tuple(commands_of(name)) for name in some]
            try:
                replies = iter(await self._link.send_all(chain.from_iterable(commands)))
                found += [
                    (name, *islice(replies, len(of_name)))
                    for name, of_name in zip(some, commands, strict=True)
                ]
            except ResponseError:
                rows = await asyncio.gather(*map(self._read_one, some, commands))
                found += [row for row in rows if row is not None]
        return found

    async def _read_one(self, name: str, commands: Sequence[Command]) -> tuple[Any, ...] | None:
        try:
            return (name, *await self._link.send_all(commands))
        except ResponseError as error:
            log_unreadable(name, error)
            return None


def _overview_commands(name: str) -> Sequence[Command]:
    return [("HGET", key_of(name, "d"), "all"), ("HLEN", key_of(name, "s"))]


def _oldest_commands(name: str) -> Sequence[Command]:
    return [("ZRANGE", key_of(name, "hours"), 0, 0, "WITHSCORES")]
