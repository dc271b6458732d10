"""Measurements in, summaries and lists out."""

import hashlib
import re
from collections.abc import Awaitable
from functools import lru_cache
from typing import Annotated, cast, get_args
from urllib.parse import urlencode
from urllib.request import parse_http_list

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from src.analytics.points import Point, format_timestamp
from src.api.batch import Batch, read_json_array, read_ndjson
from src.api.begun import Begun
from src.api.body import (
    MAX_OBJECT_BYTES,
    in_time,
    inflated,
    media_type,
    parse_json,
    read_body,
    receive_body,
    too_large,
)
from src.api.cursor import decode_cursor, encode_cursor
from src.api.dependencies import state
from src.api.errors import Problem, ProblemError, validation_problem
from src.api.etag import client_has
from src.api.header import header
from src.api.middleware.fast_lane import Lane
from src.api.middleware.request_context import add_headers
from src.api.models.metrics import (
    METRIC_IN,
    TYPE_PATTERN,
    BatchReceived,
    MetricIn,
    MetricOut,
    MetricReceived,
    MetricType,
    MetricTypeOut,
    Summary,
)
from src.api.openapi import BODY_ERRORS, headers, json_body, problems, request_headers
from src.api.rate_limit import ReadRoute, admit, admit_alongside
from src.api.ready_response import ReadyResponse
from src.resilience.cache import Answer
from src.services.metrics import Idempotency, Position, StoredPoint
from src.services.summary import Period

router = APIRouter(prefix="/api/metrics", tags=["metrics"], route_class=ReadRoute)

JSON = "application/json"
JSON_BYTES = JSON.encode()
NDJSON = "application/x-ndjson"

OptionalType = Annotated[MetricType | None, Query(description="Only this type; without it, every type")]
RequiredType = Annotated[MetricType, Query()]


@router.post(
    "",
    status_code=201,
    response_model=MetricReceived,
    summary="Store one measurement",
    responses={
        201: headers("Idempotency-Replayed"),
        **problems(
            *BODY_ERRORS,
            too_large(MAX_OBJECT_BYTES),
            "IDEMPOTENCY_KEY_REUSED",
            "RATE_LIMIT_EXCEEDED",
            "REDIS_UNAVAILABLE",
        ),
    },
    openapi_extra=request_headers("Idempotency-Key", "Content-Encoding") | json_body(MetricIn),
)
async def ingest(request: Request) -> Response:
    """Store one measurement. A 201 means that it is stored, and counts in the next summary that is computed.

    With an `Idempotency-Key` (1 to 255 visible ASCII characters, remembered for 24 hours) the request can
    be sent again: it is stored once, and the answer to a repetition carries `Idempotency-Replayed: true`.

    A measurement may be at most 64 KiB. Members other than those listed are ignored, and of several of the
    same name the last one counts.
    """
    services = state(request)
    admission, metrics = services["ingest_admission"], services["metrics"]
    try:
        reading = Begun(_read_measurement(request))  # most came along with their headers
    except ProblemError:
        await admit(request, admission)  # who is over the quota is told that, whatever else is wrong
        raise
    if reading.is_done and header(request.scope, b"idempotency-key") is None:
        point, _ = await reading
        write = metrics.admitted(point)
        await admit(request, admission, write.hit)
        await metrics.finish(write)
    else:
        await admit(request, admission)
        point, body = await in_time(reading, services["clock"])
        is_new = await metrics.ingest([point], _idempotency(request, body))
        _mark_replayed(request, is_new=is_new)
    received = {
        "message": "Metric received",
        "timestamp": format_timestamp(point.timestamp_us),
        "type": point.type,
    }
    return ReadyResponse(orjson.dumps(received), 201, JSON_BYTES)


@router.post(
    "/batch",
    status_code=201,
    response_model=BatchReceived,
    summary="Store many measurements",
    responses={
        201: headers("Idempotency-Replayed"),
        207: {"model": BatchReceived, "description": "Some were stored", **headers("Idempotency-Replayed")},
        **problems(
            "BAD_REQUEST",
            Problem(413, "PAYLOAD_TOO_LARGE", "A batch may have at most 10000 points"),
            Problem(415, "UNSUPPORTED_MEDIA_TYPE", f"The body must be {JSON} or {NDJSON}, in UTF-8"),
            "VALIDATION_ERROR",
            "IDEMPOTENCY_KEY_REUSED",
            "RATE_LIMIT_EXCEEDED",
            "REDIS_UNAVAILABLE",
        ),
    },
    openapi_extra=request_headers("Idempotency-Key", "Content-Encoding")
    | json_body(MetricIn, many_as=NDJSON),
)
async def ingest_batch(request: Request) -> Response:
    """Store a JSON array of measurements, or one a line (`application/x-ndjson`); either may be gzipped.

    The good ones are stored, all in one step; what is wrong with the others is told. It counts as one
    request to the rate limit. What holds for one measurement holds for each: its size, its members, and
    `Idempotency-Key` for them all. In an array, a measurement may be nested 8 deep, itself included.
    """
    services = state(request)
    await admit(request, services["ingest_admission"])
    kind = media_type(request, JSON, NDJSON)
    limits, clock = services["body_limits"], services["clock"]
    sent = await in_time(Begun(receive_body(request, limits.max_bytes)), clock)
    read = read_ndjson if kind == NDJSON else read_json_array
    async with services["batch_turn"]:
        body = inflated(sent, limits.max_bytes)  # not while it waits: a few KB may become megabytes
        batch = await read(body, limits.max_points, clock)
        idempotency = _idempotency(request, body)
        del body, sent
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
    openapi_extra=request_headers("If-None-Match", "Cache-Control"),
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
    return await _summarize(request, type, period)


async def _summarize(request: Request, metric_type: str, period: Period) -> Response:
    services = state(request)
    summaries = services["summaries"]
    lookup = summaries.lookup(metric_type, period)  # in the round trip that the verdict takes
    await admit(request, services["read_admission"])
    answer = await summaries.get(metric_type, period, await lookup, refresh=_wants_it_anew(request))
    return _render_summary(request, answer, services["cache_ttl_seconds"])


@router.get(
    "/list",
    response_model=list[MetricOut],
    summary="List measurements, newest first",
    responses={
        200: headers("Link"),
        **problems("VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
    },
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

    async def newest() -> list[StoredPoint]:
        before = _position(cursor, type)
        return await services["metrics"].newest(type, limit + 1, before)  # one more: is there a next page?

    stored = await admit_alongside(request, services["read_admission"], newest())
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
    responses=problems("RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
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


async def _read_measurement(request: Request) -> tuple[Point, bytes]:
    """Return a measurement, and the body that it was told in."""
    media_type(request, JSON)
    max_bytes = min(MAX_OBJECT_BYTES, state(request)["body_limits"].max_bytes)
    body = await read_body(request, max_bytes)
    return parse_json(METRIC_IN, body).point(), body


def _idempotency(request: Request, body: bytes) -> Idempotency | None:
    key = header(request.scope, b"idempotency-key")
    if key is None:
        return None
    if not (1 <= len(key) <= 255 and all("!" <= character <= "~" for character in key)):
        message = "must be 1 to 255 visible ASCII characters"
        raise ProblemError(validation_problem([{"field": "Idempotency-Key", "message": message}]))
    digest = hashlib.sha256(request.scope["path"].encode() + b"\n" + body)
    return Idempotency(key, digest.hexdigest())


def _wants_it_anew(request: Request) -> bool:
    field = header(request.scope, b"cache-control")
    directives = parse_http_list(field) if field else ()
    return any(directive.partition("=")[0].lower() == "no-cache" for directive in directives)


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
    etag = _etag(answer.body)
    add_headers(
        request.scope,
        (b"x-cache", answer.outcome.upper().encode("ascii")),
        (b"age", b"%d" % age),
        (b"etag", etag.encode("ascii")),
        (b"cache-control", b"no-store" if is_stale else b"private, max-age=%d" % freshness),
    )
    if client_has(header(request.scope, b"if-none-match"), etag):
        return Response(status_code=304)
    return ReadyResponse(answer.body, 200, JSON_BYTES)


@lru_cache  # of a summary that everyone asks for
def _etag(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


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


_PLAIN_SUMMARY = re.compile(f"type=({TYPE_PATTERN[1:-1]})(?:&period=({'|'.join(get_args(Period))}))?")


def _plain_summary(request: Request) -> Awaitable[Response] | None:
    match = _PLAIN_SUMMARY.fullmatch(request.scope["query_string"].decode("latin-1"))
    return match and _summarize(request, match[1], cast("Period", match[2] or "all"))


LANES = (
    Lane("POST", "/api/metrics", ingest, "ingest_admission"),
    Lane("POST", "/api/metrics/batch", ingest_batch, "ingest_admission"),
    Lane("GET", "/api/metrics/summary", _plain_summary, "read_admission"),
)
"""The routes that are served past the framework."""
