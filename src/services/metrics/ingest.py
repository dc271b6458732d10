"""Measurements in, and lists of them out; the port that a metric store implements."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from src.analytics.aggregate import Aggregate
from src.analytics.columns import PointColumns
from src.analytics.points import Point
from src.analytics.window import Window
from src.resilience.rate_limiter.store import Decision
from src.services.errors import ServiceError
from src.services.metrics.labels import Groups, LabelFilters, LabelQuery


class IdempotencyKeyReusedError(ServiceError):
    """The idempotency key came before, with another body."""


class CardinalityLimitError(ServiceError):
    """The point would create one more type or series than there may be.

    Args:
        rejection: The point's rejection.
    """

    def __init__(self, rejection: "PointRejection") -> None:
        super().__init__(rejection.message)
        self.field = rejection.field


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What makes a write repeatable.

    Attributes:
        key: The caller's `Idempotency-Key`.
        fingerprint: A digest of the request it came with; the same key must bring the same one again.
    """

    key: str
    fingerprint: str


class PointRejection(NamedTuple):
    """A point that a cap rejects.

    Attributes:
        place: Its place in the request, from 0.
        field: "type" or "labels".
        message: Why, fit for a user.
    """

    place: int
    field: str
    message: str


class WriteResult(NamedTuple):
    """The result of a write.

    Attributes:
        is_new: Whether it was stored now; False if this very write had been stored before.
        rejected: The points that were not stored.
    """

    is_new: bool
    rejected: Sequence[PointRejection]


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point with its place in the order of arrival among equal timestamps of its type.

    Attributes:
        point: The point.
        arrival: Its place.
        generation: Names the state of the type in which the place is valid: a deletion changes it.
    """

    point: Point
    arrival: int
    generation: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list that runs newest first: by timestamp, then type, then arrival, all descending.

    If points of the type were deleted since `generation`, the place is the one before all points of this
    timestamp and type.
    """

    timestamp_us: int
    type: str
    arrival: int
    generation: str = ""


@dataclass(frozen=True, slots=True)
class TypeOverview:
    """One metric type: how many points, and the latest of them."""

    type: str
    count: int
    latest_timestamp_us: int
    latest_value: float
    series: int = 1


class MetricStore(Protocol):
    """Where points live. Every method raises `StorageUnavailableError` when the store is away."""

    async def add(self, batch: Sequence[PointColumns], idempotency: Idempotency | None = None) -> WriteResult:
        """Store `batch`, except points that a cap rejects: all or none of it, visible to the next read.

        Raises:
            IdempotencyKeyReusedError: The key came before with another fingerprint. Nothing is stored.
        """
        ...

    async def add_one(self, point: Point) -> PointRejection | None:
        """Store one point, or return why it is rejected."""
        ...

    async def aggregate(self, metric_type: str, window: Window | None) -> Aggregate:
        """Summarize the points of `metric_type` in `window`; None means all of them.

        The cost does not depend on how many points are stored.
        """
        ...

    async def groups(self, metric_type: str, window: Window | None, query: LabelQuery) -> Groups:
        """Summarize the series of `metric_type` that match `query`, group by group."""
        ...

    async def newest(
        self,
        metric_type: str | None,
        limit: int,
        before: Position | None = None,
        filters: LabelFilters | None = None,
    ) -> list[StoredPoint]:
        """Return up to `limit` points, newest first, that come after the place `before`.

        Without `metric_type`, the newest over all types. With `filters`, those of matching series.
        """
        ...

    async def series(self, metric_type: str) -> list[tuple[Mapping[str, str], int]]:
        """Return the labels of each series of `metric_type`, and how many points it has."""
        ...

    async def types(self) -> list[TypeOverview]:
        """Return every type, the one with the latest timestamp first, then by name."""
        ...


class AdmittedWrite(Protocol):
    """A point that is stored in the step that takes a unit of its client's quota, where that can be.

    So what asks for the verdict may store it, but never before the verdict.
    """

    @property
    def point(self) -> Point:
        """What is written."""
        ...

    async def hit(self, key: str) -> Decision:
        """Take a unit of the quota of `key`, as a rate limiter's `hit`.

        Raises:
            StorageUnavailableError: There is no verdict.
        """
        ...

    async def finish(self) -> PointRejection | None:
        """Return once the point is stored, or why it is rejected. To be awaited after `hit` allowed it.

        Raises:
            StorageUnavailableError: Nothing is known to be stored.
        """
        ...


class MetricService:
    """Takes points in and lists them.

    Args:
        store: Where points live.
        admitted: Makes the write of a point that is stored along with its verdict.
        forget: Told the types that have new points; None where cached answers may grow old.
        observe: Told how many points each write stored.
    """

    def __init__(
        self,
        store: MetricStore,
        admitted: Callable[[Point], AdmittedWrite],
        forget: Callable[[set[str]], Awaitable[None]] | None = None,
        observe: Callable[[int], object] = lambda _points: None,
    ) -> None:
        self._store = store
        self.admitted = admitted
        self._forget = forget
        self._observe = observe
        self.newest = store.newest
        self.types = store.types
        self.series = store.series

    async def ingest(
        self, batch: Sequence[PointColumns], idempotency: Idempotency | None = None
    ) -> WriteResult:
        """Store `batch`, but for the points that a cap rejects: all of them or none.

        Raises:
            IdempotencyKeyReusedError: The key came before with another request.
            StorageUnavailableError: Nothing is known to be stored.
        """
        result = await self._store.add(batch, idempotency)
        if result.is_new:
            count = sum(len(columns.values) for columns in batch) - len(result.rejected)
            await self._stored(count, {columns.type for columns in batch})
        return result

    async def finish(self, write: AdmittedWrite) -> None:
        """Return once the point of `write`, which was let through, is stored.

        Raises:
            CardinalityLimitError: A cap rejects the point.
            StorageUnavailableError: Nothing is known to be stored.
        """
        if rejection := await write.finish():
            raise CardinalityLimitError(rejection)
        await self._stored(1, {write.point.type})

    async def _stored(self, count: int, types: set[str]) -> None:
        if count:
            self._observe(count)
        if self._forget is not None:
            await self._forget(types)
