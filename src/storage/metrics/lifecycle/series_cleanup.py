"""The end of a deletion: it merges the block of all hours again, and frees the numbers of empty series."""

import asyncio
from contextlib import suppress

from src.analytics.series_block import SeriesBlock
from src.resilience.redis.port import Argument
from src.services.errors import StorageRefusedError, StorageUnavailableError
from src.storage.metrics.layout import key_of
from src.storage.metrics.lifecycle.lease import DeletionLease, LeaseLostError
from src.storage.metrics.readers.label_reader import LabelReader
from src.storage.metrics.series.series_dictionary import UNLABELLED, retired_field
from src.storage.metrics.series.series_folder import (
    SeriesFolder,
    decode_hour_block,
    encode_all_block,
    is_complete,
    version_of,
)
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

MAX_ATTEMPTS = 10
"""The number of attempts for the block of all hours, and for the dictionary, while others change them."""
BLOCKS_AT_ONCE = 20

_TOTAL = storage_script("metrics/lifecycle/deletion_total")
_LEASE_LOST = -1
_SERIES = storage_script("metrics/lifecycle/deletion_series")


class SeriesCleanup:
    """Updates the block of all hours and the series dictionary of a type after a deletion.

    Args:
        link: The link to Redis.
        folder: Adds points to blocks of series.
        labels: Counts the points of each series.
    """

    def __init__(self, link: RedisLink, folder: SeriesFolder, labels: LabelReader) -> None:
        self._link = link
        self._folder = folder
        self._labels = labels

    async def run(self, metric_type: str, lease: DeletionLease) -> None:
        """Merge the block of all hours again if necessary, and free the numbers of series without points.

        Raises:
            StorageUnavailableError: Redis is unavailable, the lease is lost, or the series change too fast.
        """
        if await self._link.send("HEXISTS", key_of(metric_type, "d"), "labelled"):
            with suppress(StorageRefusedError):  # the fold only makes later reads shorter
                await self._folder.fold_all(metric_type)
            await self._merge_total(metric_type, lease)
            await self._free_numbers(metric_type, lease)

    async def _merge_total(self, metric_type: str, lease: DeletionLease) -> None:
        """Merge the block of all hours from the blocks of the hours, if a deletion has removed it.

        Each fold of an hour changes the version of the block, so no point is lost or counted twice. Until the
        block is merged, reads use the blocks of the hours.
        """
        key = key_of(metric_type, "q:all")
        for _ in range(MAX_ATTEMPTS):
            stored = await self._link.send("GETRANGE", key, 0, 4)
            if is_complete(stored):
                return
            hours = await self._link.send("ZRANGE", key_of(metric_type, "hours"), 0, -1)
            total = SeriesBlock.empty()
            for first in range(0, len(hours), BLOCKS_AT_ONCE):
                some = hours[first : first + BLOCKS_AT_ONCE]
                replies = await self._link.send_all(
                    [("GET", key_of(metric_type, f"q:{int(hour)}")) for hour in some]
                )
                total = await asyncio.to_thread(_merged, total, replies)
            encoded = await asyncio.to_thread(encode_all_block, version_of(stored) + 1, total)
            arguments = [*lease.arguments, stored, encoded]
            outcome = await self._link.run(_TOTAL, [lease.key, key], arguments)
            if outcome == _LEASE_LOST:
                raise LeaseLostError
            if outcome:
                return
        raise StorageUnavailableError("the series of this type are changing too fast")

    async def _free_numbers(self, metric_type: str, lease: DeletionLease) -> None:
        """Free the numbers of series without points.

        A number is first retired, so that no new point gets it. It is freed if it still has no points.
        """
        for _ in range(MAX_ATTEMPTS):
            counted = await self._labels.counts(metric_type)
            if counted is None:
                return
            dictionary, counts = counted
            empty = {
                text: number
                for text, number in dictionary.numbers.items()
                if not counts[number] and number != UNLABELLED
            }
            freed = [retired_field(number) for number in dictionary.retired if not counts[number]]
            if not empty and not freed:
                return
            arguments: list[Argument] = [*lease.arguments, dictionary.version, len(empty) + len(freed)]
            arguments += (*empty, *freed)
            for text, number in empty.items():
                arguments += (retired_field(number), text)
            keys = [lease.key, key_of(metric_type, "s")]
            if await self._link.run(_SERIES, keys, arguments) == _LEASE_LOST:
                raise LeaseLostError
        raise StorageUnavailableError("the series of this type are changing too fast")


def _merged(total: SeriesBlock, stored: list[bytes | None]) -> SeriesBlock:
    return SeriesBlock.merge((total, *(decode_hour_block(block or b"") for block in stored)))
