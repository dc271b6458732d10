"""Summaries and lists of measurements. The routes that store them are in `src.api.routes.metrics.ingest`."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from urllib.parse import urlencode
from urllib.request import parse_http_list

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from src.analytics.points import Point, format_timestamp
from src.api.admitted_read import Read, ReadTask, admit_and_read
from src.api.dependencies import state
from src.api.errors import ProblemError, validation_problem
from src.api.header import header
from src.api.hot_routes import HotRoute
from src.api.models.metrics import (
    LabelOut,
    LabelsQuery,
    ListQuery,
    MetricOut,
    MetricTypeOut,
    SummaryQuery,
)
from src.api.models.summaries import GroupedSummary, Summary
from src.api.openapi import headers, problems, query_parameters
from src.api.request_context import add_headers
from src.api.requests.cursor import decode_cursor, encode_cursor
from src.api.requests.query import QueryReader
from src.api.responses.negotiation import is_not_modified
from src.api.responses.ready_response import JSON_BYTES, ReadyResponse
from src.resilience.cache.answer import Answer
from src.services.metrics.ingest import Position, StoredPoint, TypeOverview
from src.services.metrics.labels import ALL_SERIES
from src.services.metrics.summary import SummaryRead

router = APIRouter(prefix="/api/metrics", tags=["metrics"])

JSON = "application/json"

_SUMMARY_QUERY = QueryReader(SummaryQuery)
_LIST_QUERY = QueryReader(ListQuery)
_LABELS_QUERY = QueryReader(LabelsQuery)


@router.get(
    "/summary",
    response_model=Summary | GroupedSummary,
    summary="Summarize a metric type",
    responses={
        200: headers("X-Cache", "Age", "ETag", "Cache-Control"),
        304: {
            "description": "The client's copy is current",
            **headers("X-Cache", "Age", "ETag", "Cache-Control"),
        },
        **problems(
            "VALIDATION_ERROR",
            "RATE_LIMIT_EXCEEDED",
            "REDIS_UNAVAILABLE",
            "CIRCUIT_OPEN",
            "EXTERNAL_SERVICE_UNAVAILABLE",
        ),
    },
    openapi_extra=query_parameters(SummaryQuery, headers=("If-None-Match", "Cache-Control")),
)
async def summary(request: Request) -> Response:
    """Return the count, average, extremes, latest value and percentiles of a type's measurements.

    The bounds of the period are exact to the microsecond. A summary is cached for `CACHE_TTL_SECONDS`
    (`X-Cache: HIT`); with `Cache-Control: no-cache` it is computed again. If the external service fails, or
    the computation takes long, the answer is the last good summary with `X-Cache: STALE` and
    `"degraded": true`.
    """
    answer = await admit_and_read(request, partial(_begin_summary, request))
    return _summary_response(request, answer, state(request)["cache_ttl_seconds"])


@router.get(
    "/list",
    response_model=list[MetricOut],
    summary="List measurements, newest first",
    responses={
        200: headers("Link"),
        **problems("VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
    },
    openapi_extra=query_parameters(ListQuery),
)
async def list_metrics(request: Request) -> Response:
    """List measurements, newest first.

    If there are more measurements, the `Link` header has the address of the next page (`rel="next"`). The
    pages neither repeat nor skip a measurement, even if other clients write at the same time.
    """
    query, stored = await admit_and_read(request, partial(_begin_list, request))
    page = stored[: query.limit]
    if len(stored) > query.limit:
        next_query = query.model_copy(update={"cursor": _cursor_after(page[-1])})
        address = f"{request.url.path}?{urlencode(next_query.model_dump(exclude_none=True), doseq=True)}"
        add_headers(request.scope, (b"link", f'<{address}>; rel="next"'.encode("ascii")))
    return Response(orjson.dumps([_metric_members(item.point) for item in page]), media_type=JSON)


def _metric_members(point: Point) -> dict[str, object]:
    members: dict[str, object] = {
        "timestamp": format_timestamp(point.timestamp_us),
        "value": point.value,
        "type": point.type,
    }
    if point.labels:
        members["labels"] = orjson.loads(point.labels)
    return members


@router.get(
    "/types",
    response_model=list[MetricTypeOut],
    summary="List metric types",
    responses=problems("RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
)
async def list_types(request: Request) -> Response:
    """List every metric type, in descending order of the latest timestamps."""
    types = await admit_and_read(request, lambda: ReadTask(state(request)["metrics"].types()))
    return types_response(types)


def types_response(types: Sequence[TypeOverview]) -> Response:
    """Return the response that lists `types`."""
    overview = [
        {
            "type": item.type,
            "count": item.count,
            "latest_timestamp": format_timestamp(item.latest_timestamp_us),
            "latest_value": item.latest_value,
            "series": item.series,
        }
        for item in types
    ]
    return Response(orjson.dumps(overview), media_type=JSON)


@router.get(
    "/labels",
    response_model=list[LabelOut],
    summary="List the labels of a metric type",
    responses=problems("VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
    openapi_extra=query_parameters(LabelsQuery),
)
async def list_labels(request: Request) -> Response:
    """List every label name of a type with its values, and the number of measurements with each value."""
    series = await admit_and_read(request, partial(_begin_labels, request))
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for labels, count in series:
        for name, value in labels.items():
            counts[name][value] += count
    answer = [
        {
            "name": name,
            "values": [{"value": value, "count": count} for value, count in sorted(values.items())],
        }
        for name, values in sorted(counts.items())
    ]
    return Response(orjson.dumps(answer), media_type=JSON)


def _begin_labels(request: Request) -> ReadTask[list[tuple[Mapping[str, str], int]]]:
    return ReadTask(state(request)["metrics"].series(_LABELS_QUERY.read(request).type))


def _begin_summary(request: Request) -> SummaryRead:
    query = _SUMMARY_QUERY.read(request)
    summaries = state(request)["summaries"]
    labels = query.labels
    # With CACHE_INVALIDATE_ON_WRITE, a write drops the cached summary of its type, but not the summaries by
    # labels. Summaries by labels are therefore always computed again.
    refresh = _is_refresh(request) or (labels != ALL_SERIES and state(request)["invalidates_on_write"])
    return summaries.begin(query.type, query.period, labels, refresh=refresh)


def _is_refresh(request: Request) -> bool:
    field = header(request.scope, b"cache-control")
    directives = parse_http_list(field) if field else ()
    return any(directive.partition("=")[0].lower() == "no-cache" for directive in directives)


def _summary_response(request: Request, answer: Answer, ttl_seconds: int) -> Response:
    is_old = answer.is_old
    cached = b"STALE" if is_old else answer.outcome.upper().encode("ascii")
    age = int(answer.age_seconds)
    freshness = max(0, ttl_seconds - age)
    etag = _etag(answer.body)
    add_headers(
        request.scope,
        (b"x-cache", cached),
        (b"age", b"%d" % age),
        (b"etag", etag.encode("ascii")),
        (b"cache-control", b"no-store" if is_old else b"private, max-age=%d" % freshness),
    )
    if is_not_modified(header(request.scope, b"if-none-match"), etag):
        return Response(status_code=304)
    return ReadyResponse(answer.body, 200, JSON_BYTES)


@lru_cache  # many requests get the same cached summary
def _etag(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def _begin_list(request: Request) -> Read[tuple[ListQuery, list[StoredPoint]]]:
    query = _LIST_QUERY.read(request)
    before = _position(query.cursor, query.type)
    newest = state(request)["metrics"].newest

    async def read() -> tuple[ListQuery, list[StoredPoint]]:
        # One additional measurement shows whether there is a next page.
        return query, await newest(query.type, query.limit + 1, before, query.filters())

    return ReadTask(read())


def _position(cursor: str | None, metric_type: str | None) -> Position | None:
    if cursor is None:
        return None
    try:
        position = decode_cursor(cursor)
    except ValueError as error:
        raise ProblemError(validation_problem([{"field": "cursor", "message": str(error)}])) from None
    if metric_type is not None and position.type != metric_type:
        message = "belongs to the list of another type"
        raise ProblemError(validation_problem([{"field": "cursor", "message": message}]))
    return position


def _cursor_after(last: StoredPoint) -> str:
    return encode_cursor(Position(last.point.timestamp_us, last.point.type, last.arrival, last.generation))


HOT_ROUTES = (HotRoute("GET", "/api/metrics/summary", summary, "read_admission"),)
