"""Measurements in, summaries and lists out."""

import hashlib
from typing import Annotated
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from src.analytics.points import format_timestamp
from src.api.batch import Batch, read_json_array, read_ndjson
from src.api.body import media_type, parse_json, read_body
from src.api.cursor import decode_cursor, encode_cursor
from src.api.dependencies import state
from src.api.errors import Problem, ProblemError, validation_problem
from src.api.middleware.request_context import add_headers
from src.api.models import (
    METRIC_IN,
    BatchReceived,
    MetricIn,
    MetricOut,
    MetricReceived,
    MetricType,
    MetricTypeOut,
    Summary,
)
from src.api.openapi import json_body, problems
from src.api.rate_limit import admit, admit_alongside
from src.resilience.cache import Answer
from src.services.metrics import Idempotency, Position, StoredPoint
from src.services.summary import Period

router = APIRouter(prefix="/api/metrics", tags=["metrics"])

JSON = "application/json"
NDJSON = "application/x-ndjson"

OptionalType = Annotated[MetricType | None, Query(description="Only this type; without it, every type")]
RequiredType = Annotated[MetricType, Query()]


@router.post(
    "",
    status_code=201,
    response_model=MetricReceived,
    summary="Store one measurement",
    responses=problems(400, 413, 415, 422, 429, 503),
    openapi_extra=json_body(MetricIn),
)
async def ingest(request: Request) -> Response:
    """Store one measurement. A 201 means that it is stored, and counts in the next summary that is computed.

    With an `Idempotency-Key` (1 to 255 visible ASCII characters, remembered for 24 hours) the request can
    be sent again: it is stored once, and the answer to a repetition carries `Idempotency-Replayed: true`.
    """
    services = state(request)
    await admit(request, services["ingest_admission"])
    media_type(request, JSON)
    body = await read_body(request, services["body_limits"].max_bytes)
    point = parse_json(METRIC_IN, body).point()
    is_new = await services["metrics"].ingest([point], _idempotency(request, body))
    _mark_replayed(request, is_new=is_new)
    received = {
        "message": "Metric received",
        "timestamp": format_timestamp(point.timestamp_us),
        "type": point.type,
    }
    return Response(orjson.dumps(received), 201, media_type=JSON)


@router.post(
    "/batch",
    status_code=201,
    response_model=BatchReceived,
    summary="Store many measurements",
    responses={
        207: {"model": BatchReceived, "description": "Some were stored"},
        **problems(400, 413, 415, 422, 429, 503),
    },
    openapi_extra=json_body(MetricIn, many_as=NDJSON),
)
async def ingest_batch(request: Request) -> Response:
    """Store a JSON array of measurements, or one a line (`application/x-ndjson`); either may be gzipped.

    The good ones are stored, all in one step; what is wrong with the others is told. It counts as one
    request to the rate limit. `Idempotency-Key` as for one measurement.
    """
    services = state(request)
    await admit(request, services["ingest_admission"])
    kind = media_type(request, JSON, NDJSON)
    limits = services["body_limits"]
    body = await read_body(request, limits.max_bytes)
    read = read_ndjson if kind == NDJSON else read_json_array
    batch = read(body, limits.max_points)
    idempotency = _idempotency(request, body)
    if not batch.points:
        raise ProblemError(_nothing_accepted(batch))
    is_new = await services["metrics"].ingest(batch.points, idempotency)
    _mark_replayed(request, is_new=is_new)
    answer = {"accepted": len(batch.points), "rejected": batch.rejected, "errors": batch.errors}
    return Response(orjson.dumps(answer), 207 if batch.rejected else 201, media_type=JSON)


@router.get(
    "/summary",
    response_model=Summary,
    summary="Summarize a metric type",
    responses={304: {"description": "What you have is still right"}, **problems(422, 429, 503)},
)
async def summary(
    request: Request,
    type: RequiredType,  # noqa: A002 -- the parameter's public name
    period: Annotated[Period, Query(description="Everything, the last 24 h, or the last 60 min")] = "all",
) -> Response:
    """Count, average, extremes, latest and percentiles of a type's measurements, exact to the microsecond.

    Served from a cache (`X-Cache: HIT`) until `CACHE_TTL_SECONDS` have passed; `Cache-Control: no-cache`
    has it computed anew. When the external service fails, the last good summary is served with
    `X-Cache: STALE` and `"degraded": true`.
    """
    services = state(request)
    summaries = services["summaries"]
    refresh = "no-cache" in request.headers.get("cache-control", "").lower()
    entry = await admit_alongside(request, services["read_admission"], summaries.lookup(type, period))
    answer = await summaries.get(type, period, entry, refresh=refresh)
    return _render_summary(request, answer, services["cache_ttl_seconds"])


@router.get(
    "/list",
    response_model=list[MetricOut],
    summary="List measurements, newest first",
    responses=problems(422, 429, 503),
)
async def list_metrics(
    request: Request,
    type: OptionalType = None,  # noqa: A002 -- the parameter's public name
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most")] = 100,
    cursor: Annotated[str | None, Query(max_length=512, description="From the Link header of a page")] = None,
) -> Response:
    """List measurements, newest first.

    Where there are more, the `Link` header has the next page's address (`rel="next"`). Walking them while
    others write neither repeats a measurement nor skips one.
    """
    services = state(request)
    before = _position(cursor, type)
    newest = services["metrics"].newest(type, limit + 1, before)  # one more, to know whether there is more
    stored = await admit_alongside(request, services["read_admission"], newest)
    page = stored[:limit]
    if len(stored) > limit:
        query = {"type": type, "limit": limit, "cursor": _cursor_after(page[-1])}
        address = f"{request.url.path}?{urlencode({k: v for k, v in query.items() if v is not None})}"
        add_headers(request.scope, (b"link", f'<{address}>; rel="next"'.encode("ascii")))
    points = [
        {
            "timestamp": format_timestamp(item.point.timestamp_us),
            "value": item.point.value,
            "type": item.point.type,
        }
        for item in page
    ]
    return Response(orjson.dumps(points), media_type=JSON)


@router.get(
    "/types",
    response_model=list[MetricTypeOut],
    summary="List metric types",
    responses=problems(429, 503),
)
async def list_types(request: Request) -> Response:
    """List every metric type, the one with the latest measurement first."""
    services = state(request)
    types = await admit_alongside(request, services["read_admission"], services["metrics"].types())
    overview = [
        {
            "type": item.type,
            "count": item.count,
            "latest_timestamp": format_timestamp(item.latest_timestamp_us),
            "latest_value": item.latest_value,
        }
        for item in types
    ]
    return Response(orjson.dumps(overview), media_type=JSON)


def _idempotency(request: Request, body: bytes) -> Idempotency | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not (1 <= len(key) <= 255 and all("!" <= character <= "~" for character in key)):
        message = "must be 1 to 255 visible ASCII characters"
        raise ProblemError(validation_problem([{"field": "Idempotency-Key", "message": message}]))
    digest = hashlib.sha256(request.scope["path"].encode() + b"\n" + body)
    return Idempotency(key, digest.hexdigest())


def _mark_replayed(request: Request, *, is_new: bool) -> None:
    if not is_new:
        add_headers(request.scope, (b"idempotency-replayed", b"true"))


def _nothing_accepted(batch: Batch) -> Problem:
    message = "No point was stored: each has something wrong" if batch.rejected else "The batch has no points"
    extra = {"accepted": 0, "rejected": batch.rejected}
    return Problem(422, "VALIDATION_ERROR", message, errors=batch.errors, extra=extra)


def _render_summary(request: Request, answer: Answer, ttl_seconds: int) -> Response:
    is_stale = answer.outcome == "stale"
    age = int(answer.age_seconds)
    freshness = 0 if is_stale else max(0, ttl_seconds - age)
    etag = f'"{hashlib.blake2b(answer.body, digest_size=12).hexdigest()}"'
    headers = {
        "X-Cache": answer.outcome.upper(),
        "Age": str(age),
        "ETag": etag,
        "Cache-Control": "no-store" if is_stale else f"private, max-age={freshness}",
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(answer.body, headers=headers, media_type=JSON)


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    candidates = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return etag in candidates or "*" in candidates


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
    return encode_cursor(Position(last.point.timestamp_us, last.point.type, last.arrival))
