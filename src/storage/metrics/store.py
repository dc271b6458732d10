"""The metric store in Redis. `src.storage.metrics.layout` describes the keys.

A batch is one script, and so is the summary of a window: each sees all of the other or nothing of it.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson
from redis.exceptions import ResponseError

from src.analytics.columns import MinuteFold, PointColumns, columns_of
from src.analytics.points import Point
from src.resilience.clock import Clock
from src.resilience.redis.port import Argument, Reply
from src.resilience.redis.scripts import SERVER_TIME
from src.services.errors import OutcomeUnknownError, StorageUnavailableError, WriteUnconfirmedError
from src.services.metrics.ingest import (
    Idempotency,
    IdempotencyKeyReusedError,
    PointRejection,
    WriteResult,
)
from src.storage.metrics.compaction import SketchCompactor
from src.storage.metrics.layout import key_of
from src.storage.metrics.lifecycle.deletion import PointDeleter
from src.storage.metrics.readers.export_reader import ExportReader
from src.storage.metrics.readers.label_reader import LabelReader
from src.storage.metrics.readers.list_reader import ListReader
from src.storage.metrics.readers.type_reader import TypeReader
from src.storage.metrics.readers.window_reader import WindowReader
from src.storage.metrics.series.series_dictionary import SeriesDictionary
from src.storage.metrics.series.series_folder import SeriesFolder
from src.storage.metrics.write import write_arguments
from src.storage.redis.link import CALL_TIMEOUT_SECONDS, RedisLink
from src.storage.redis.scripts import storage_script

_log = logging.getLogger(__name__)

IDEMPOTENCY_SECONDS = 24 * 3600

CAP_REACHED = -3
"""The outcome of a script that stores nothing, because there would be too many types or series."""
UNFINISHED = -4
"""The outcome of a script that Redis stopped after its first write."""
UNPREPARED = -5
"""The outcome of a script that stores nothing, because a type of many hours gets its first labels."""

MAX_DICTIONARIES = 1_000
"""Types whose series dictionary a worker keeps."""
MAX_ATTEMPTS = 20
"""How often a write is tried whose series or types other workers change at the same time."""

FEW_MINUTES = 200
MINUTES_PER_SECOND = 5_000
"""Minutes of all types together that a script stores in a second on a busy machine, at least."""


class Caps(NamedTuple):
    """The most types there may be, and the most series of one type."""

    types: int = 10_000
    series_per_type: int = 1_000


DEFAULT_CAPS = Caps()


class RedisMetricStore:
    """The metric store.

    Args:
        link: The way to Redis.
        clock: Paces a deletion's wait for another one of the same type.
        caps: What limits the number of types and series.
        time_source: Lua that defines `now_us()`.
    """

    def __init__(
        self,
        link: RedisLink,
        clock: Clock,
        caps: Caps = DEFAULT_CAPS,
        *,
        time_source: str = SERVER_TIME,
    ) -> None:
        self._link = link
        self._caps = caps
        self._add_script = storage_script("metrics/metrics_add", time_source=time_source)
        self._now_script = storage_script("metrics/read_now", time_source=time_source)
        self._singles = link.tick_loader(self._add_singles)
        self._windows = WindowReader(link)
        self._lists = ListReader(link, self._dictionary)
        self._compactor = SketchCompactor(link)
        self._folder = SeriesFolder(link)
        self._labels = LabelReader(link, self._windows, self._dictionary, self._folder)
        self.groups = self._labels.groups
        self.groups_by_window = self._labels.groups_by_window
        self.series = self._labels.series
        self.delete = PointDeleter(link, clock, self._folder, self._labels, self._dictionary).delete
        self._dictionaries: OrderedDict[str, SeriesDictionary] = OrderedDict()
        registry = TypeReader(link)
        self.types, self.oldest = registry.types, registry.oldest
        self.newest = self._lists.newest
        self.export = ExportReader(link, self._dictionary).export
        self.aggregate = self._windows.aggregate
        self.aggregates = self._windows.aggregates

    async def aclose(self) -> None:
        """Stop what runs in the background."""
        await self._compactor.aclose()
        await self._folder.aclose()

    async def add(self, batch: Sequence[PointColumns], idempotency: Idempotency | None = None) -> WriteResult:
        """Store `batch`, except points that a cap rejects: all or none of it, visible to the next read.

        Returns:
            What was rejected, and whether the rest was stored now or before, up to 24 h ago.

        Raises:
            IdempotencyKeyReusedError: The key came before with another fingerprint. Nothing is stored.
            StorageRefusedError: Redis refuses. Nothing is stored.
            WriteUnconfirmedError: Redis did not answer, or refused after the first write. It is not known
                whether the points are stored.
            StorageUnavailableError: Redis is unavailable. Nothing is stored.
            ResponseError: There is a foreign value at one of the keys. Nothing is stored.
        """
        keys, fingerprint = ["types"], ""
        if idempotency is not None:
            keys.append(f"idem:{hashlib.sha256(idempotency.key.encode()).hexdigest()}")
            fingerprint = idempotency.fingerprint
        whole, rejected = batch, list[PointRejection]()
        for _ in range(MAX_ATTEMPTS):
            if not batch:
                return WriteResult(is_new=True, rejected=rejected)
            arguments, seconds = self.arguments_of(batch)
            answer = orjson.dumps([[*each] for each in rejected])
            head: list[Argument] = [fingerprint, IDEMPOTENCY_SECONDS, answer]
            try:
                outcome, *details = await self._link.run(
                    self._add_script, keys, head + arguments, timeout_seconds=seconds
                )
            except OutcomeUnknownError as error:
                raise WriteUnconfirmedError(str(error)) from error
            if outcome == 1:
                self.tidy_up(*details)
                return WriteResult(is_new=True, rejected=rejected)
            if outcome == 0:
                return WriteResult(
                    is_new=False, rejected=[PointRejection(*each) for each in orjson.loads(details[0])]
                )
            if outcome == -1:
                raise IdempotencyKeyReusedError("the idempotency key came before with another request")
            if outcome == UNFINISHED:
                raise unfinished(details[0])
            if outcome == CAP_REACHED and rejected:
                batch, rejected = whole, []  # others have taken the room for which points were rejected
            else:
                batch, more = await self._resolve(outcome, details, batch)
                rejected += more
        raise StorageUnavailableError("the series of these types are changing too fast")

    async def add_one(self, point: Point) -> PointRejection | None:
        """Store one point, along with others of this tick of the event loop, or return why it is rejected.

        Raises:
            StorageUnavailableError, ResponseError: As `add` does.
        """
        outcome = await self._singles.add(point)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def _add_singles(self, points: list[Point]) -> list[PointRejection | BaseException | None]:
        """Store points of one tick; return for each why it is not stored."""
        batch = columns_of(points)
        outcomes: list[PointRejection | BaseException | None] = [None] * len(points)
        try:
            for rejection in (await self.add(batch)).rejected:
                outcomes[rejection.point_index] = rejection
        except ResponseError as error:  # a foreign value at a key of one type: nothing is stored
            if len(batch) == 1:
                return [error] * len(points)
            await asyncio.gather(*(self._add_type(columns, outcomes) for columns in batch))
        return outcomes

    async def _add_type(
        self, columns: PointColumns, outcomes: list[PointRejection | BaseException | None]
    ) -> None:
        """Store points of one type, and put into `outcomes` why some are not stored."""
        try:
            for rejection in (await self.add([columns])).rejected:
                outcomes[rejection.point_index] = rejection
        except Exception as error:  # noqa: BLE001 -- raised again for each caller
            for index in columns.indexes.tolist():
                outcomes[index] = error

    def arguments_of(self, batch: Sequence[PointColumns]) -> tuple[list[Argument], float | None]:
        """Return the arguments of a script that stores `batch`, and its timeout if it needs a longer one."""
        arguments: list[Argument] = [self._caps.types, self._caps.series_per_type, len(batch)]
        points = write_arguments(batch, self._dictionaries)
        arguments += points
        minutes = len(points) // len(MinuteFold._fields)
        if minutes <= FEW_MINUTES:
            return arguments, None
        return arguments, CALL_TIMEOUT_SECONDS + minutes / MINUTES_PER_SECOND

    def tidy_up(self, sketches: Sequence[Reply], hours: Sequence[Reply]) -> None:
        """Compact and fold, in the background, what the script reports that has stored points."""
        self._compactor.add(sketches)
        self._folder.add(hours)

    async def _resolve(
        self, outcome: int, details: Sequence[Reply], batch: Sequence[PointColumns]
    ) -> tuple[list[PointColumns], list[PointRejection]]:
        """Return what to store of `batch`, which a script did not store, and what a cap rejects."""
        if outcome == -2:
            await self._load_dictionaries([name.decode() for name in details])
            return list(batch), []
        if outcome == UNPREPARED:
            for name in details:
                await self._folder.prepare(name.decode())
            return list(batch), []
        free_types, *rest = details
        free_series = {name.decode(): free for name, free in zip(rest[::2], rest[1::2], strict=True)}
        known: set[str] = set()
        if free_types >= 0:
            scores = await self._link.send_all([("ZSCORE", "types", columns.type) for columns in batch])
            known = {columns.type for columns, score in zip(batch, scores, strict=True) if score is not None}
        kept: list[PointColumns] = []
        rejected: list[PointRejection] = []
        for columns in batch:
            if free_types >= 0 and columns.type not in known:
                if free_types == 0:
                    message = f"there are {self._caps.types} types already, which is the most there may be"
                    rejected += [PointRejection(index, "type", message) for index in columns.indexes.tolist()]
                    continue
                free_types -= 1
            if columns.type in free_series and columns.labels is not None:
                dictionary = self._dictionaries.get(columns.type) or SeriesDictionary()
                excess = set(
                    list(dictionary.numbers_for_new(columns.labels))[max(0, free_series[columns.type]) :]
                )
                unwanted = np.array([text in excess for text in columns.labels])
                message = (
                    f"the type has {self._caps.series_per_type} series already, which is the most it may have"
                )
                rejected += [
                    PointRejection(index, "labels", message) for index in columns.indexes[unwanted].tolist()
                ]
                columns = columns.without(unwanted)  # noqa: PLW2901
            if len(columns.values):
                kept.append(columns)
        return kept, rejected

    async def _dictionary(self, metric_type: str, version: str | None = None) -> SeriesDictionary:
        """Return the series dictionary of a type, of `version` or newer."""
        found = self._dictionaries.get(metric_type)
        if found is None or version not in {None, found.version}:
            await self._load_dictionaries([metric_type])
            found = self._dictionaries[metric_type]
        return found

    async def _load_dictionaries(self, names: Sequence[str]) -> None:
        replies = await self._link.send_all([("HGETALL", key_of(name, "s")) for name in names])
        for name, reply in zip(names, replies, strict=True):
            self._dictionaries[name] = SeriesDictionary.decode(reply)
            self._dictionaries.move_to_end(name)
        while len(self._dictionaries) > MAX_DICTIONARIES:
            self._dictionaries.popitem(last=False)

    async def now_us(self) -> int:
        """Return the time of Redis' clock, in µs since 1970.

        Raises:
            StorageUnavailableError: Redis is unavailable.
        """
        return int(await self._link.run(self._now_script, []))


def unfinished(reason: bytes) -> WriteUnconfirmedError:
    """Log that Redis stopped a script after its first write, and return the error of its callers."""
    _log.error("metric_write_unfinished", extra={"reason": reason.decode(errors="replace")})
    return WriteUnconfirmedError("Redis refused after the first write: it is not known what is stored")
