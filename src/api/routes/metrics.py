"""Summaries and lists of measurements. They come in by `src.api.routes.ingest`."""

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
from src.api.cursor import decode_cursor, encode_cursor
from src.api.dependencies import state
from src.api.errors import ProblemError, validation_problem
from src.api.etag import client_has
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
from src.api.query import QueryReader
from src.api.ready_response import JSON_BYTES, ReadyResponse
from src.api.request_context import add_headers
from src.resilience.cache.policy import Answer
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
            "description": "What you have is still right",
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
    """Count, average, extremes, latest and percentiles of a type's measurements, exact to the microsecond.

    Served from a cache (`X-Cache: HIT`) until `CACHE_TTL_SECONDS` have passed; `Cache-Control: no-cache`
    has it computed anew. When the external service fails, or computing takes long, the last good summary is
    served with `X-Cache: STALE` and `"degraded": true`.
    """
    answer = await admit_and_read(request, partial(_begin_summary, request))
    return _render_summary(request, answer, state(request)["cache_ttl_seconds"])


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

    Where there are more, the `Link` header has the next page's address (`rel="next"`). Walking them while
    others write neither repeats a measurement nor skips one.
    """
    query, stored = await admit_and_read(request, partial(_begin_list, request))
    page = stored[: query.limit]
    if len(stored) > query.limit:
        following = query.model_copy(update={"cursor": _cursor_after(page[-1])})
        address = f"{request.url.path}?{urlencode(following.model_dump(exclude_none=True), doseq=True)}"
        add_headers(request.scope, (b"link", f'<{address}>; rel="next"'.encode("ascii")))
    return Response(orjson.dumps([_listed(item.point) for item in page]), media_type=JSON)


def _listed(point: Point) -> dict[str, object]:
    listed: dict[str, object] = {
        "timestamp": format_timestamp(point.timestamp_us),
        "value": point.value,
        "type": point.type,
    }
    if point.labels:
        listed["labels"] = orjson.loads(point.labels)
    return listed


@router.get(
    "/types",
    response_model=list[MetricTypeOut],
    summary="List metric types",
    responses=problems("RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
)
async def list_types(request: Request) -> Response:
    """List every metric type, the one with the latest measurement first."""
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
    """List every label name of a type with its values, and how many measurements have each."""
    series = await admit_and_read(request, partial(_begin_labels, request))
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for labels, count in series:
        for name, value in labels.items():
            counts[name][value] += count
    listed = [
        {
            "name": name,
            "values": [{"value": value, "count": count} for value, count in sorted(values.items())],
        }
        for name, values in sorted(counts.items())
    ]
    return Response(orjson.dumps(listed), media_type=JSON)


def _begin_labels(request: Request) -> ReadTask[list[tuple[Mapping[str, str], int]]]:
    return ReadTask(state(request)["metrics"].series(_LABELS_QUERY.read(request).type))


def _begin_summary(request: Request) -> SummaryRead:
    query = _SUMMARY_QUERY.read(request)
    summaries = state(request)["summaries"]
    labels = query.labels
    # A write drops the cached summaries of a type, but not those by labels, if it is to drop any.
    refresh = _is_refresh(request) or (labels != ALL_SERIES and state(request)["invalidates_on_write"])
    return summaries.begin(query.type, query.period, labels, refresh=refresh)


def _is_refresh(request: Request) -> bool:
    field = header(request.scope, b"cache-control")
    directives = parse_http_list(field) if field else ()
    return any(directive.partition("=")[0].lower() == "no-cache" for directive in directives)


def _render_summary(request: Request, answer: Answer, ttl_seconds: int) -> Response:
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
    if client_has(header(request.scope, b"if-none-match"), etag):
        return Response(status_code=304)
    return ReadyResponse(answer.body, 200, JSON_BYTES)


@lru_cache  # of a summary that everyone asks for
def _etag(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def _begin_list(request: Request) -> Read[tuple[ListQuery, list[StoredPoint]]]:
    query = _LIST_QUERY.read(request)
    before = _position(query.cursor, query.type)
    newest = state(request)["metrics"].newest

    async def read() -> tuple[ListQuery, list[StoredPoint]]:
        # one more: is there a next page?
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
