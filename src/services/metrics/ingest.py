"""The service that stores and lists points, and the protocol that a metric store implements."""

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
    """The point needs a new type or a new series, and the maximum number of types or series is reached.

    Args:
        rejection: The rejection of the point.
    """

    def __init__(self, rejection: "PointRejection") -> None:
        super().__init__(rejection.message)
        self.field = rejection.field


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Identifies a write, so that a repetition with the same key is not stored again.

    Attributes:
        key: The client's `Idempotency-Key`.
        fingerprint: A digest of the request. A request with the same key and another digest is rejected.
    """

    key: str
    fingerprint: str


class PointRejection(NamedTuple):
    """The rejection of a point, because the maximum number of types or of series is reached.

    Attributes:
        point_index: The index of the point in the request, from 0.
        field: "type" if the type would be new; "labels" if the series would be new.
        message: The reason, for the client.
    """

    point_index: int
    field: str
    message: str


class WriteResult(NamedTuple):
    """The result of a write.

    Attributes:
        is_new: True if the points were stored now; False if an earlier request with the same key stored them.
        rejected: The rejections of points. These points were not stored.
    """

    is_new: bool
    rejected: Sequence[PointRejection]


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point in the store.

    Attributes:
        point: The point.
        arrival: The arrival number. It orders the points that have the same type and timestamp.
        generation: Identifies the state of the type in which the number is valid. A deletion changes it.
    """

    point: Point
    arrival: int
    generation: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a list of points.

    The list is in descending order of timestamp. Equal timestamps are in descending order of type, and equal
    types in descending order of arrival number. If points of the type were deleted since `generation`, the
    position is before all points of this timestamp and type.
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
        """Store `batch`, except points that need a new type or series beyond the maximum number.

        Either all other points are stored and visible to the next read, or no point is stored.

        Raises:
            IdempotencyKeyReusedError: The key was sent before with another fingerprint. Nothing is stored.
        """
        ...

    async def add_one(self, point: Point) -> PointRejection | None:
        """Store one point, or return its rejection."""
        ...

    async def aggregate(self, metric_type: str, window: Window | None) -> Aggregate:
        """Summarize the points of `metric_type` in `window`. If `window` is None, summarize all points.

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
        """Return up to `limit` points, newest first.

        Args:
            metric_type: The type of the points; None for all types.
            limit: The largest number of points, 1 or more.
            before: The position of the last point of the previous page; None for the first page.
            filters: The filters that the labels of a point must match; None for all points.
        """
        ...

    async def series(self, metric_type: str) -> list[tuple[Mapping[str, str], int]]:
        """Return the labels of each series of `metric_type`, and its number of points."""
        ...

    async def types(self) -> list[TypeOverview]:
        """Return every type, in descending order of latest timestamp.

        Types with equal timestamps are in order of name.
        """
        ...


StoreResult: TypeAlias = bool | StorageUnavailableError
"""The result of storing a point.

True means that the point is stored. A `WriteUnconfirmedError` means that the point may be stored or not.
False and any other error mean that the point is not stored.
"""


class AdmitAndAdd(Protocol):
    """A function that takes a unit of a quota, and may store a point in the same step."""

    async def __call__(self, key: str, point: Point) -> tuple[Decision, StoreResult]:
        """Take a unit of the quota with `key`, and store `point` if the decision allows the request.

        An implementation need not store the point. Its result is then False.

        Returns:
            The decision, and the result of storing the point.

        Raises:
            StorageUnavailableError: There is no decision.
        """
        ...


class MetricService:
    """Stores and lists points.

    Args:
        store: The store of the points.
        admit_and_add: Takes a unit of the quota for a request with one point, and may store the point.
        forget: Called with the types that have new points, to drop their cached summaries; None if cached
            summaries are not dropped.
        observe: Called after each write that stored points, with the number of these points.
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
        """Store `batch`, except points that need a new type or series beyond the maximum number.

        Either all other points are stored, or no point is stored.

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

    async def ingest_one(self, point: Point, store_result: StoreResult) -> None:
        """Store the point of an admitted request, unless `admit_and_add` has stored the point already.

        Args:
            point: The point.
            store_result: The second result of `admit_and_add`, or the error that it raised.

        Raises:
            CardinalityLimitError: The point needs a new type or series beyond the maximum number.
            WriteUnconfirmedError: It is not known whether the point is stored.
            StorageUnavailableError: The point is not stored.
        """
        if isinstance(store_result, WriteUnconfirmedError):  # the point must not be stored twice
            raise store_result
        if store_result is not True and (rejection := await self._store.add_one(point)):
            raise CardinalityLimitError(rejection)
        await self._report_stored(1, {point.type})

    async def _report_stored(self, count: int, types: set[str]) -> None:
        if count:
            self._observe(count)
        if self._forget is not None:
            await self._forget(types)
