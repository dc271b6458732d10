"""The series of a type: the summary of its points in each step of a period, for charts."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from src.analytics.aggregate import Aggregate
from src.analytics.points import parse_timestamp
from src.analytics.series import Steps
from src.analytics.window import Window
from src.resilience.clock import Clock
from src.services.errors import ServiceError
from src.services.metrics.labels import Groups, LabelQuery

MAX_STEPS = 2_000
DEFAULT_STEP_SECONDS = 60
DEFAULT_SECONDS = 3_600
"""The length of a series without a given beginning."""

_EARLIEST_US = parse_timestamp("0001-01-01T00:00:00Z")


class SeriesError(ServiceError):
    """The series cannot be computed. `field` is the parameter that the client must change."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class SeriesStore(Protocol):
    """A store that summarizes points by window."""

    async def groups_by_window(
        self, metric_type: str, windows: Sequence[Window], query: LabelQuery
    ) -> list[Groups]:
        """Summarize the series that match `query`, by group, in each of `windows`."""
        ...

    async def aggregates(self, metric_type: str, windows: Sequence[Window]) -> list[Aggregate]:
        """Summarize the points of `metric_type` in each of `windows`, which must not overlap.

        Each summary is exact. A point that is stored during the call may be missing in its window.

        Raises:
            SeriesError: The store would have to read too many points.
            StorageUnavailableError: The store is unavailable.
        """
        ...


class SeriesService:
    """Computes the series of metric types.

    Args:
        store: Summarizes the points.
        clock: Determines the end of a series without a given end.
    """

    def __init__(self, store: SeriesStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(
        self, metric_type: str, start_us: int | None, stop_us: int | None, step_seconds: int
    ) -> list[tuple[int, Aggregate]]:
        """Return the beginning of each step, in µs since 1970, and the summary of its points.

        Args:
            metric_type: The type of the points.
            start_us: The beginning of the series, inclusive. By default, the beginning of the step that is
                `DEFAULT_SECONDS` before the end.
            stop_us: The end of the series, exclusive; by default, the end of the current step.
            step_seconds: The length of a step, 1 or more.

        Raises:
            SeriesError: The series is empty, has more than `MAX_STEPS` steps, begins before the year 1, or
                requires reading too many points.
            StorageUnavailableError: The store is unavailable.
        """
        steps = self._steps(start_us, stop_us, step_seconds)
        aggregates = await self._store.aggregates(metric_type, _windows(steps))
        return list(zip(steps.times(), aggregates, strict=True))

    async def groups(
        self,
        metric_type: str,
        start_us: int | None,
        stop_us: int | None,
        step_seconds: int,
        labels: LabelQuery,
    ) -> list[tuple[int, Groups]]:
        """Return the beginning of each step, and the summaries of its groups.

        Arguments and errors are those of `get`; `labels` selects and groups the series.
        """
        steps = self._steps(start_us, stop_us, step_seconds)
        groups = await self._store.groups_by_window(metric_type, _windows(steps), labels)
        return list(zip(steps.times(), groups, strict=True))

    def _steps(self, start_us: int | None, stop_us: int | None, step_seconds: int) -> Steps:
        step_us = step_seconds * 1_000_000
        if stop_us is None:
            stop_us = -(-round(self._clock.now() * 1e6) // step_us) * step_us
        if start_us is None:
            start_us = (stop_us - DEFAULT_SECONDS * 1_000_000) // step_us * step_us
        if start_us >= stop_us:
            raise SeriesError("from", "must be before `to`, which by default is the end of the current step")
        steps = Steps(start_us, stop_us, step_us)
        if len(steps) > MAX_STEPS:
            raise SeriesError("step", f"results in {len(steps)} steps; at most {MAX_STEPS} are allowed")
        if steps.first_us < _EARLIEST_US:
            raise SeriesError("step", "results in a first step before the year 1")
        return steps


@lru_cache(maxsize=8)  # charts of the same length have the same windows until a step ends
def _windows(steps: Steps) -> tuple[Window, ...]:
    return tuple(steps.windows())
