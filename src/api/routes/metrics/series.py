"""The series of a metric type, for charts."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from src.analytics.aggregate import Aggregate
from src.analytics.points import format_timestamp
from src.api.admitted_read import ReadTask, admit_and_read
from src.api.dependencies import state
from src.api.errors import ProblemError, validation_problem
from src.api.hot_routes import HotRoute
from src.api.models.metrics import SeriesQuery
from src.api.models.summaries import GroupedSeries, SeriesStep
from src.api.openapi import problems, query_parameters
from src.api.requests.query import QueryReader
from src.services.metrics.labels import ALL_SERIES, MAX_GROUPS, Group, Groups, LabelQuery
from src.services.metrics.series import SeriesError, SeriesService

router = APIRouter(prefix="/api/metrics", tags=["metrics"])

_QUERY = QueryReader(SeriesQuery)
_STEP = {name: field.examples[0] for name, field in SeriesStep.model_fields.items() if field.examples}


@router.get(
    "/series",
    response_model=list[SeriesStep] | GroupedSeries,
    summary="Series of a metric type",
    responses={
        200: {"content": {"application/json": {"example": [_STEP]}}},
        **problems("VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
    },
    openapi_extra=query_parameters(SeriesQuery),
)
async def series(request: Request) -> Response:
    """Return the count, average, extremes and percentiles of a type's measurements for each step.

    The bounds of the steps are exact to the microsecond. Steps begin at multiples of their length since 1970,
    so the first and the last step may lie only partly between `from` and `to`. There are at most 2,000 steps.
    Steps of whole minutes between whole minutes are cheap for any number of measurements. Other steps require
    reading the measurements, of which at most 50,000 are read.
    """
    query, steps = await admit_and_read(request, partial(_begin_series, request))
    return series_response(query.type, query.step, query.labels, steps)


def series_response(
    metric_type: str, step_seconds: int, labels: LabelQuery, steps: Sequence[tuple[int, Groups]]
) -> Response:
    """Return the steps of a series, or those of each of its groups.

    Args:
        metric_type: The type.
        step_seconds: The length of a step.
        labels: The series that were read, and their grouping.
        steps: The beginning of each step in µs since 1970, and the summaries of its groups.
    """
    if not labels.group_by:
        members = _series_steps([(time, groups.groups[0].aggregate) for time, groups in steps])
        return Response(orjson.dumps(members), media_type="application/json")
    by_labels: dict[tuple[str, ...], dict[str, Any]] = {}
    for time, groups in steps:
        for group in groups.groups:
            key = tuple(group.labels.get(name, "") for name in labels.group_by)
            member = by_labels.setdefault(key, {"labels": group.labels, "steps": []})
            member["steps"].append({"time": format_timestamp(time), **_figures(group.aggregate)})
    answer: dict[str, Any] = {
        "type": metric_type,
        "step": step_seconds,
        "group_by": labels.group_by,
        "groups": [by_labels[key] for key in sorted(by_labels)][:MAX_GROUPS],
    }
    if len(by_labels) > MAX_GROUPS or any(groups.is_truncated for _, groups in steps):
        answer["truncated"] = True
    return Response(orjson.dumps(answer), media_type="application/json")


def _series_steps(steps: Sequence[tuple[int, Aggregate]]) -> list[dict[str, object]]:
    """Return the JSON members of the steps of a series.

    Args:
        steps: The beginning of each step in µs since 1970, and the summary of its points.
    """
    return [{"time": format_timestamp(time), **_figures(aggregate)} for time, aggregate in steps]


def _figures(aggregate: Aggregate) -> dict[str, object]:
    rollup, sketch = aggregate
    return {
        "count": rollup.count,
        "average": rollup.average,
        "min": rollup.minimum if rollup.count else None,
        "max": rollup.maximum if rollup.count else None,
        "p50": sketch.quantile(0.50),
        "p95": sketch.quantile(0.95),
        "p99": sketch.quantile(0.99),
    }


def _begin_series(request: Request) -> ReadTask[tuple[SeriesQuery, list[tuple[int, Groups]]]]:
    return ReadTask(_read_series(request, _QUERY.read(request)))


async def _read_series(request: Request, query: SeriesQuery) -> tuple[SeriesQuery, list[tuple[int, Groups]]]:
    service = state(request)["series"]
    return query, await read_series(service, query.type, (query.from_, query.to), query.step, query.labels)


async def read_series(
    service: SeriesService,
    metric_type: str,
    bounds_us: tuple[int | None, int | None],
    step_seconds: int,
    labels: LabelQuery,
) -> list[tuple[int, Groups]]:
    """Return the steps of a series for `series_response`.

    Args:
        service: Computes series.
        metric_type: The type.
        bounds_us: The beginning and the end, as `SeriesService.get` takes them.
        step_seconds: The length of a step.
        labels: Which series, and their grouping.

    Raises:
        ProblemError: 422 if the service rejects the steps.
        StorageUnavailableError: The store is unavailable.
    """
    try:
        if labels != ALL_SERIES:
            return await service.groups(metric_type, *bounds_us, step_seconds, labels)
        steps = await service.get(metric_type, *bounds_us, step_seconds)
    except SeriesError as error:
        raise ProblemError(validation_problem([{"field": error.field, "message": str(error)}])) from None
    return [(time, Groups([Group({}, aggregate)])) for time, aggregate in steps]


HOT_ROUTES = (HotRoute("GET", "/api/metrics/series", series, "read_admission"),)
