"""The service that stores and lists measurements, and the port that a metric store implements."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from src.analytics.aggregate import Aggregate
from src.analytics.columns import PointColumns
from src.analytics.points import Point
from src.analytics.window import Window
from src.resilience.rate_limiter.store import Decision
from src.services.errors import ServiceError, StorageUnavailableError, WriteUnconfirmedError
from src.services.metrics.labels import Groups, LabelFilters, LabelQuery


class IdempotencyKeyReusedError(ServiceError):
    """The idempotency key was sent before with another request."""


class CardinalityLimitError(ServiceError):
    """The point would exceed the largest number of types, or of series of its type.

    Args:
        rejection: The rejection of the point.
    """

    def __init__(self, rejection: "PointRejection") -> None:
        super().__init__(rejection.message)
        self.field = rejection.field


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The idempotency of a write: a repetition with the same key is not stored again.

    Attributes:
        key: The client's `Idempotency-Key`.
        fingerprint: A digest of the request. Every request with the same key must have the same digest.
    """

    key: str
    fingerprint: str


class PointRejection(NamedTuple):
    """The rejection of a point by the cap of types or of series.

    Attributes:
        point_index: The index of the point in the request, from 0.
        field: "type" or "labels".
        message: The reason, for the client.
    """

    point_index: int
    field: str
    message: str


class WriteResult(NamedTuple):
    """The result of a write.

    Attributes:
        is_new: True if the points were stored now; False if an earlier request with the same key stored them.
        rejected: The points that were not stored.
    """

    is_new: bool
    rejected: Sequence[PointRejection]


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point, and its number in the order of arrival among points of equal type and timestamp.

    Attributes:
        point: The point.
        arrival: The number.
        generation: Identifies the state of the type in which the number is valid. A deletion changes it.
    """

    point: Point
    arrival: int
    generation: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a list, which is in descending order of timestamp, then type, then arrival.

    If points of the type were deleted since `generation`, the position is before all points of this timestamp
    and type.
    """

    timestamp_us: int
    type: str
    arrival: int
    generation: str = ""


@dataclass(frozen=True, slots=True)
class TypeOverview:
    """One metric type: the number of its points and series, and the latest point."""

    type: str
    count: int
    latest_timestamp_us: int
    latest_value: float
    series: int = 1


class MetricStore(Protocol):
    """The store of points. Every method raises `StorageUnavailableError` if the store is unavailable."""

    async def add(self, batch: Sequence[PointColumns], idempotency: Idempotency | None = None) -> WriteResult:
        """Store `batch`, except points that a cap rejects.

        Either all other points are stored and visible to the next read, or none are stored.

        Raises:
            IdempotencyKeyReusedError: The key was sent before with another fingerprint. Nothing is stored.
        """
        ...

    async def add_one(self, point: Point) -> PointRejection | None:
        """Store one point, or return its rejection."""
        ...

    async def aggregate(self, metric_type: str, window: Window | None) -> Aggregate:
        """Summarize the points of `metric_type` in `window`; None means all points.

        The cost does not depend on the number of stored points.
        """
        ...

    async def groups(self, metric_type: str, window: Window | None, query: LabelQuery) -> Groups:
        """Summarize the series of `metric_type` that match `query`, by group."""
        ...

    async def newest(
        self,
        metric_type: str | None,
        limit: int,
        before: Position | None = None,
        filters: LabelFilters | None = None,
    ) -> list[StoredPoint]:
        """Return up to `limit` points that come after the position `before`, newest first.

        Args:
            metric_type: The type of the points; None for all types.
            limit: The largest number of points, 1 or more.
            before: The position of the last point of the previous page; None for the first page.
            filters: Only points of series that match are returned.
        """
        ...

    async def series(self, metric_type: str) -> list[tuple[Mapping[str, str], int]]:
        """Return the labels of each series of `metric_type`, and its number of points."""
        ...

    async def types(self) -> list[TypeOverview]:
        """Return every type, in descending order of the latest timestamps, then by name."""
        ...


IsStored: TypeAlias = bool | StorageUnavailableError
"""Whether a point is stored. A `WriteUnconfirmedError` means that this is not known; any other error, that
the point is not stored."""


class AdmitAndAdd(Protocol):
    """Takes a unit of a quota, and stores a point in the same step if that is possible."""

    async def __call__(self, key: str, point: Point) -> tuple[Decision, IsStored]:
        """Take a unit of the quota with `key`, and store `point` only if the decision allows the request.

        Returns:
            The decision, and whether the point is stored.

        Raises:
            StorageUnavailableError: There is no decision.
        """
        ...


class MetricService:
    """Stores and lists points.

    Args:
        store: The store of the points.
        admit_and_add: Decides on a request by the quota, and stores its point in the same step if possible.
        forget: Called with the types that have new points, to drop their cached summaries; None if cached
            summaries may stay.
        observe: Called with the number of points that each write stored.
    """

    def __init__(
        self,
        store: MetricStore,
        admit_and_add: AdmitAndAdd,
        forget: Callable[[set[str]], Awaitable[None]] | None = None,
        observe: Callable[[int], object] = lambda _points: None,
    ) -> None:
        self._store = store
        self.admit_and_add = admit_and_add
        self._forget = forget
        self._observe = observe
        self.newest = store.newest
        self.types = store.types
        self.series = store.series

    async def ingest(
        self, batch: Sequence[PointColumns], idempotency: Idempotency | None = None
    ) -> WriteResult:
        """Store `batch`, except points that a cap rejects. Either all other points are stored, or none.

        Raises:
            IdempotencyKeyReusedError: The key was sent before with another request.
            WriteUnconfirmedError: It is not known whether the points are stored.
            StorageUnavailableError: No point is stored.
        """
        result = await self._store.add(batch, idempotency)
        if result.is_new:
            count = sum(len(columns.values) for columns in batch) - len(result.rejected)
            await self._report_stored(count, {columns.type for columns in batch})
        return result

    async def ingest_one(self, point: Point, is_stored: IsStored) -> None:
        """Store the point of a request that was admitted, unless `admit_and_add` has stored it.

        Args:
            point: The point.
            is_stored: The result of `admit_and_add`, or its error.

        Raises:
            CardinalityLimitError: A cap rejects the point.
            WriteUnconfirmedError: It is not known whether the point is stored.
            StorageUnavailableError: The point is not stored.
        """
        if isinstance(is_stored, WriteUnconfirmedError):  # the point must not be stored twice
            raise is_stored
        if is_stored is not True and (rejection := await self._store.add_one(point)):
            raise CardinalityLimitError(rejection)
        await self._report_stored(1, {point.type})

    async def _report_stored(self, count: int, types: set[str]) -> None:
        if count:
            self._observe(count)
        if self._forget is not None:
            await self._forget(types)
