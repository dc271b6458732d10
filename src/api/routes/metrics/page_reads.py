"""The reads of the operator's page, which have their own quota.

Many pages may share one client address, for example behind one router, so these reads do not count against
the read quota. They are cheap: the list of types, and series over fixed ranges in steps of whole minutes.
"""

from functools import partial
from typing import Final, Literal

from fastapi import APIRouter, Request
from pydantic import ConfigDict
from starlette.responses import Response

from src.api.admitted_read import ReadTask, admit_and_read
from src.api.dependencies import state
from src.api.models.metrics import GroupedQuery, MetricType
from src.api.requests.query import QueryReader
from src.api.routes.metrics.reads import types_response
from src.api.routes.metrics.series import read_series, series_response
from src.services.metrics.ingest import TypeOverview
from src.services.metrics.labels import Groups

router = APIRouter(prefix="/api/dashboard", include_in_schema=False)

Range = Literal["15min", "1h", "6h", "24h"]

RANGES: Final[dict[Range, tuple[int, int]]] = {
    "15min": (900, 60),
    "1h": (3600, 60),
    "6h": (6 * 3600, 300),
    "24h": (24 * 3600, 1200),
}
"""The length of each range and of its steps, in seconds."""


class PageSeriesQuery(GroupedQuery):
    """The series to show on the page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: MetricType
    range: Range


_QUERY = QueryReader(PageSeriesQuery)


@router.get("/types")
async def types(request: Request) -> Response:
    """List every metric type, like `GET /api/metrics/types`."""
    read = partial(_begin_types, request)
    return types_response(await admit_and_read(request, read, "page_admission"))


@router.get("/series")
async def series(request: Request) -> Response:
    """Return the steps of a type over one of `RANGES`, like `GET /api/metrics/series`."""
    query, steps = await admit_and_read(request, partial(_begin_series, request), "page_admission")
    _, step = RANGES[query.range]
    return series_response(query.type, step, query.labels, steps)


def _begin_types(request: Request) -> ReadTask[list[TypeOverview]]:
    return ReadTask(state(request)["metrics"].types())


def _begin_series(request: Request) -> ReadTask[tuple[PageSeriesQuery, list[tuple[int, Groups]]]]:
    return ReadTask(_read_series(request, _QUERY.read(request)))


async def _read_series(
    request: Request, query: PageSeriesQuery
) -> tuple[PageSeriesQuery, list[tuple[int, Groups]]]:
    services = state(request)
    seconds, step = RANGES[query.range]
    start_us = int((services["clock"].now() - seconds) // step) * step * 1_000_000
    return query, await read_series(services["series"], query.type, (start_us, None), step, query.labels)
