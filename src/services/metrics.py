"""Measurements in, and lists of them out; the port that a metric store implements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from src.analytics.points import Point
from src.analytics.rollup import Rollup
from src.analytics.sketch import LogBinSketch
from src.analytics.window import Window
from src.services.errors import ServiceError


class IdempotencyKeyReusedError(ServiceError):
    """The idempotency key came before, with another body."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What makes a write repeatable.

    Attributes:
        key: The caller's `Idempotency-Key`.
        fingerprint: A digest of the request it came with; the same key must bring the same one again.
    """

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point with its place in the order of arrival within its type."""

    point: Point
    arrival: int


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list that runs newest first: by timestamp, then type, then arrival, all descending."""

    timestamp_us: int
    type: str
    arrival: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """All that is known of the points of one type in one window."""

    rollup: Rollup
    sketch: LogBinSketch


@dataclass(frozen=True, slots=True)
class TypeOverview:
    """One metric type: how many points, and the latest of them."""

    type: str
    count: int
    latest_timestamp_us: int
    latest_value: float


class MetricStore(Protocol):
    """Where points live. Every method raises `StorageUnavailableError` when the store is away."""

    async def add(self, points: Sequence[Point], idempotency: Idempotency | None = None) -> bool:
        """Store `points`, all or none, visible to the next read.

        Returns:
            True when they were stored now, False when this very write had been stored before.

        Raises:
            IdempotencyKeyReusedError: The key came before with another fingerprint. Nothing is stored.
        """
        ...

    async def aggregate(self, metric_type: str, window: Window | None) -> Aggregate:
        """Summarize the points of `metric_type` in `window`; None means all of them.

        The cost does not depend on how many points are stored.
        """
        ...

    async def newest(
        self, metric_type: str | None, limit: int, before: Position | None = None
    ) -> list[StoredPoint]:
        """Return up to `limit` points, newest first, that come after the place `before`.

        Without `metric_type`, the newest over all types.
        """
        ...

    async def types(self) -> list[TypeOverview]:
        """Return every type, the one with the latest timestamp first, then by name."""
        ...
