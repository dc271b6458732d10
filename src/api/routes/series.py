"""A metric type over time, for charts."""

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from src.analytics.points import format_timestamp
from src.analytics.rollup import Rollup
from src.api.dependencies import state
from src.api.errors import ProblemError, validation_problem
from src.api.hot_routes import HotRoute
from src.api.models.metrics import SeriesQuery, SeriesStep
from src.api.openapi import problems, query_parameters
from src.api.query import QueryReader
from src.api.rate_limit import ReadTask, admit_and_read
from src.services.metrics.series import SeriesError

router = APIRouter(prefix="/api/metrics", tags=["metrics"])

_QUERY = QueryReader(SeriesQuery)


@router.get(
    "/series",
    response_model=list[SeriesStep],
    summary="A metric type over time",
    responses=problems("VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
    openapi_extra=query_parameters(SeriesQuery),
)
async def series(request: Request) -> Response:
    """Count, average and extremes of a type's measurements, step by step, exact to the microsecond.

    Steps begin at multiples of their length since 1970, so of the first and the last one only a part may lie
    between `from` and `to`; at most 2,000 of them. Steps of whole minutes between whole minutes cost little,
    however many measurements there are. Any others need the measurements themselves: at most 50,000 are read.
    """
    found = await admit_and_read(request, lambda: ReadTask(_read(request, _QUERY.read(request))))
    steps = [
        {
            "time": format_timestamp(time),
            "count": rollup.count,
            "average": rollup.average,
            "min": rollup.minimum if rollup.count else None,
            "max": rollup.maximum if rollup.count else None,
        }
        for time, rollup in found
    ]
    return Response(orjson.dumps(steps), media_type="application/json")


async def _read(request: Request, query: SeriesQuery) -> list[tuple[int, Rollup]]:
    try:
        return await state(request)["series"].get(query.type, query.from_, query.to, query.step)
    except SeriesError as error:
        raise ProblemError(validation_problem([{"field": error.field, "message": str(error)}])) from None


HOT_ROUTES = (HotRoute("GET", "/api/metrics/series", series, "read_admission"),)
