"""All points of a type in order of time, page by page."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from src.services.metrics.labels import LabelFilters


class PointPage(NamedTuple):
    """Points of one type, by time, then by arrival.

    Attributes:
        timestamps_us: In microseconds since 1970.
        values: The values.
        labels: The labels of each, as `labels_text` writes them.
    """

    timestamps_us: Sequence[int]
    values: Sequence[float]
    labels: Sequence[str]


class ExportStore(Protocol):
    """The port of a store that exports points."""

    def export(
        self,
        metric_type: str,
        start_us: int | None = None,
        stop_us: int | None = None,
        filters: LabelFilters | None = None,
    ) -> AsyncIterator[PointPage]:
        """Yield the points of `metric_type` by time, then by arrival, in pages of some hundred.

        Each point that was stored before the first page was requested is yielded exactly once. A point that
        is stored later is yielded at most once.

        Args:
            metric_type: The type.
            start_us: The first instant; None is the beginning.
            stop_us: The instant after the last; None is the end.
            filters: The filters that a series must match.

        Raises:
            StorageUnavailableError: The store is unavailable, or points of a minute were deleted while its
                points were read. What was yielded before is right, and incomplete.
        """
        ...
