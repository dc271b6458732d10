"""Measurements in: one, or many at once. They come out by `src.api.routes.metrics`."""

import hashlib

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from src.analytics.columns import columns_of
from src.analytics.points import Point, format_timestamp
from src.api.batch import TOO_FAR_AHEAD, Batch, read_json_array, read_ndjson
from src.api.batch_columns import UnusualBatchError, decode_array, decode_ndjson
from src.api.body import (
    JSON,
    MAX_OBJECT_BYTES,
    in_time,
    inflated,
    media_type,
    read_object,
    receive_body,
    too_large,
)
from src.api.dependencies import State, state
from src.api.eager_coroutine import EagerCoroutine
from src.api.errors import FieldError, Problem, ProblemError, validation_problem
from src.api.header import header
from src.api.hot_routes import HotRoute
from src.api.models.metrics import METRIC_IN, BatchReceived, MetricIn, MetricReceived
from src.api.openapi import BODY_ERRORS, headers, json_body, problems, request_headers
from src.api.rate_limit import admit
from src.api.ready_response import JSON_BYTES, ReadyResponse
from src.api.request_context import add_headers
from src.services.metrics.ingest import CardinalityLimitError, Idempotency

router = APIRouter(prefix="/api/metrics", tags=["metrics"])

NDJSON = "application/x-ndjson"


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
            "CARDINALITY_LIMIT",
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
    try:  # most bodies came along with their headers
        reading = EagerCoroutine(_read_point(request, services))
    except ProblemError:
        await admit(request, admission)  # a client over its quota gets the 429, whatever else is wrong
        raise
    if reading.is_done and header(request.scope, b"idempotency-key") is None:
        point, _ = await reading
        write = metrics.admitted(point)
        await admit(request, admission, write.hit)
        await metrics.finish(write)
    else:
        await admit(request, admission)
        point, body = await in_time(reading, services["clock"])
        result = await metrics.ingest(columns_of([point]), _idempotency(request, body))
        if result.rejected:
            raise CardinalityLimitError(result.rejected[0])
        _mark_replayed(request, is_new=result.is_new)
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
    sent = await in_time(EagerCoroutine(receive_body(request, limits.max_bytes)), clock)
    latest_us = _latest_us(services)
    async with services["batch_turn"]:
        body = inflated(sent, limits.max_bytes)  # not while it waits: a few KB may become megabytes
        idempotency = _idempotency(request, body)
        try:
            decode = decode_ndjson if kind == NDJSON else decode_array
            columns, batch = decode(body, limits.max_points, latest_us), Batch(latest_us)
        except UnusualBatchError:
            read = read_ndjson if kind == NDJSON else read_json_array
            batch = await read(body, limits.max_points, latest_us, clock)
            columns = columns_of(batch.points, batch.places)
        del body, sent
    if columns:
        result = await services["metrics"].ingest(columns, idempotency)
        _mark_replayed(request, is_new=result.is_new)
        for place, field, message in result.rejected:
            batch.reject(place, [FieldError(field=field, message=message)])
        accepted = sum(len(some.values) for some in columns) - len(result.rejected)
    if not columns or not accepted:
        raise ProblemError(_nothing_accepted(batch))
    answer = {"accepted": accepted, "rejected": batch.rejected, "errors": batch.errors}
    return Response(orjson.dumps(answer), 207 if batch.rejected else 201, media_type=JSON)


def _latest_us(services: State) -> int:
    """Return the latest timestamp that is accepted now, in µs since 1970."""
    return round(services["clock"].now() * 1e6) + services["body_limits"].max_future_us


async def _read_point(request: Request, services: State) -> tuple[Point, bytes]:
    """Return the measurement, and the body that it came in."""
    measurement, body = await read_object(request, METRIC_IN, services["body_limits"].max_bytes)
    point = measurement.point()
    if point.timestamp_us > _latest_us(services):
        raise ProblemError(validation_problem([TOO_FAR_AHEAD]))
    return point, body


def _idempotency(request: Request, body: bytes) -> Idempotency | None:
    key = header(request.scope, b"idempotency-key")
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


HOT_ROUTES = (
    HotRoute("POST", "/api/metrics", ingest, "ingest_admission"),
    HotRoute("POST", "/api/metrics/batch", ingest_batch, "ingest_admission"),
)
