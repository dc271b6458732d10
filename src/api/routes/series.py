"""A metric type over time, for charts."""

from collections.abc import Awaitable
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from src.analytics.points import format_timestamp
from src.api.dependencies import state
from src.api.errors import ProblemError, validation_problem
from src.api.hot_routes import HotRoute
from src.api.models.metrics import SeriesQuery, SeriesStep
from src.api.openapi import problems
from src.api.rate_limit import ReadRoute, admit_alongside
from src.services.metrics.ingest import Aggregate
from src.services.metrics.series import SeriesError

router = APIRouter(prefix="/api/metrics", tags=["metrics"], route_class=ReadRoute)


@router.get(
    "/series",
    response_model=list[SeriesStep],
    summary="A metric type over time",
    responses=problems("VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
)
async def series(request: Request, query: Annotated[SeriesQuery, Query()]) -> Response:
    """Count, average and extremes of a type's measurements, step by step, exact to the microsecond.

    Steps begin at multiples of their length since 1970, so of the first and the last one only a part may lie
    between `from` and `to`; at most 2,000 of them. Steps of whole minutes between whole minutes cost little,
    however many measurements there are. Any others need the measurements themselves: at most 50,000 are read.
    """
    services = state(request)

    async def read() -> list[tuple[int, Aggregate]]:
        try:
            return await services["series"].get(query.type, query.from_, query.to, query.step)
        except SeriesError as error:
            problem = validation_problem([{"field": error.field, "message": str(error)}])
            raise ProblemError(problem) from None

    found = await admit_alongside(request, services["read_admission"], read())
    steps = [
        {
            "time": format_timestamp(time),
            "count": rollup.count,
            "average": rollup.average,
            "min": rollup.minimum if rollup.count else None,
            "max": rollup.maximum if rollup.count else None,
            "p50": sketch.quantile(0.50),
            "p95": sketch.quantile(0.95),
            "p99": sketch.quantile(0.99),
        }
        for time, (rollup, sketch) in found
    ]
    return Response(orjson.dumps(steps), media_type="application/json")


def _plain_series(request: Request) -> Awaitable[Response] | None:
    try:
        query = SeriesQuery.model_validate(dict(request.query_params))
    except ValidationError:
        return None
    return series(request, query)


LANES = (HotRoute("GET", "/api/metrics/series", _plain_series, "read_admission"),)
