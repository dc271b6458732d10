"""All results of a metric store, in a form in which two stores can be compared."""

from collections.abc import Iterable, Sequence
from typing import Any

from src.analytics.aggregate import Aggregate
from src.analytics.window import DAY_US, HOUR_US, Window
from src.services.metrics.ingest import Position
from src.services.metrics.labels import LabelQuery

QUERIES = (
    LabelQuery({}, ("host",)),
    LabelQuery({"host": frozenset("a")}),
    LabelQuery({"disk": frozenset("x")}, ("host", "disk")),
)


async def views(store: Any, types: Iterable[str], now: int) -> dict[str, object]:
    """Return all results of `store` for `types`: lists, summaries, groups, steps and overviews.

    Args:
        store: A `MetricStore` and `SeriesStore`.
        types: Names of types.
        now: The end of the rolling windows, in µs since 1970.
    """
    found: dict[str, object] = {"types": await store.types(), "list": await _walk(store, None)}
    windows = (None, Window.rolling(now, 3600), Window.rolling(now, 86_400))
    first_hour = now // HOUR_US - 30
    hours = [Window((first_hour + n) * HOUR_US - 1, (first_hour + n + 1) * HOUR_US - 1) for n in range(32)]
    first_day = now // DAY_US - 2
    days = [Window((first_day + n) * DAY_US - 1, (first_day + n + 1) * DAY_US - 1) for n in range(4)]
    for name in types:
        found[f"list of {name}"] = await _walk(store, name)
        found[f"series of {name}"] = sorted(
            (sorted(labels.items()), count) for labels, count in await store.series(name) if labels
        )
        for window in windows:
            found[f"{window} of {name}"] = _figures(await store.aggregate(name, window))
            for query in QUERIES:
                found[f"{query} {window} of {name}"] = _groups(await store.groups(name, window, query))
        for steps in (hours, days):
            step = f"{len(steps)} steps of {name}"
            found[step] = [_figures(some) for some in await store.aggregates(name, steps)]
            found[f"{step} by host"] = [
                _groups(some) for some in await store.groups_by_window(name, steps, QUERIES[0])
            ]
    return found


async def _walk(store: Any, metric_type: str | None) -> list[tuple[str, int, float, str]]:
    walked, before = [], None
    while page := await store.newest(metric_type, 700, before):
        walked += [(p.type, p.timestamp_us, p.value, p.labels) for p in (stored.point for stored in page)]
        last = page[-1]
        before = Position(last.point.timestamp_us, last.point.type, last.arrival, last.generation)
    return walked


def _figures(aggregate: Aggregate) -> tuple[object, ...]:
    rollup, sketch = aggregate
    if not rollup.count:
        return 0, sketch.count
    quantiles = [sketch.quantile(q) for q in (0, 0.25, 0.5, 0.95, 1)]
    latest = (rollup.latest_us, rollup.latest_value)
    return (rollup.count, sketch.count, rollup.total, rollup.minimum, rollup.maximum, latest, quantiles)


def _groups(groups: Any) -> Sequence[tuple[object, ...]]:
    return [(dict(group.labels), _figures(group.aggregate)) for group in groups.groups]
