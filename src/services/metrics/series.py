"""The points of a type over time, step by step: what a chart is drawn from."""

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
"""How long a series is whose beginning is not given."""

_EARLIEST_US = parse_timestamp("0001-01-01T00:00:00Z")


class SeriesError(ServiceError):
    """The series asked for can't be had; `field` is what to ask for otherwise."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class SeriesStore(Protocol):
    """Where points are summed up by window."""

    async def groups_by_window(
        self, metric_type: str, windows: Sequence[Window], query: LabelQuery
    ) -> list[Groups]:
        """Summarize the series that match `query`, group by group, in each of `windows`."""
        ...

    async def aggregates(self, metric_type: str, windows: Sequence[Window]) -> list[Aggregate]:
        """Summarize the points of `metric_type` in each of `windows`, which do not overlap.

        Each is exact; what is stored meanwhile may count in one and not yet in another.

        Raises:
            SeriesError: It would take too much reading.
            StorageUnavailableError: The store is away.
        """
        ...


class SeriesService:
    """Series of metric types.

    Args:
        store: Sums the points up.
        clock: Says where a series ends whose end is not given.
    """

    def __init__(self, store: SeriesStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(
        self, metric_type: str, start_us: int | None, stop_us: int | None, step_seconds: int
    ) -> list[tuple[int, Aggregate]]:
        """Return where each step begins, in microseconds since 1970, and the summary of its points.

        Args:
            metric_type: Whose points.
            start_us: The first instant; None is `DEFAULT_SECONDS` before the end, or a little earlier, where
                a step begins.
            stop_us: The instant after the last; None is the end of the step that is under way.
            step_seconds: Length of a step, 1 or more.

        Raises:
            SeriesError: The stretch is empty, has more than `MAX_STEPS`, begins before the year 1, or would
                take too much reading.
            StorageUnavailableError: The store is away.
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
        """Return where each step begins, and the summaries of its groups. Otherwise as `get`."""
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
            raise SeriesError("from", "must be before `to`, which is now where it is not given")
        steps = Steps(start_us, stop_us, step_us)
        if len(steps) > MAX_STEPS:
            raise SeriesError("step", f"makes {len(steps)} steps of it, and {MAX_STEPS} are the most")
        if steps.first_us < _EARLIEST_US:
            raise SeriesError("step", "makes the first step begin before the year 1")
        return steps


@lru_cache(maxsize=8)  # whatever their type, charts of one length ask for the same until a step is over
def _windows(steps: Steps) -> tuple[Window, ...]:
    return tuple(steps.windows())
