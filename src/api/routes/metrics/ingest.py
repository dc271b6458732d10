"""Store measurements: one, or a batch. The routes that read them are in `src.api.routes.metrics.reads`."""

import hashlib
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from src.analytics.columns import columns_of
from src.analytics.points import Point, format_timestamp
from src.api.dependencies import State, state
from src.api.errors import Problem, ProblemError, validation_problem
from src.api.header import header
from src.api.hot_routes import HotRoute
from src.api.models.metrics import METRIC_IN, BatchReceived, MetricIn, MetricReceived
from src.api.openapi import BODY_ERRORS, headers, json_batch_body, json_body, problems, request_headers
from src.api.rate_limit import admit, admit_with_command
from src.api.request_context import add_headers
from src.api.requests.batch import FUTURE_TIMESTAMP, Batch, read_json_array, read_ndjson
from src.api.requests.batch_columns import UnusualBatchError, decode_array, decode_ndjson
from src.api.requests.body import (
    JSON,
    MAX_OBJECT_BYTES,
    await_body,
    body_too_large,
    inflate,
    media_type,
    read_object,
    receive_body,
)
from src.api.requests.eager_coroutine import EagerCoroutine
from src.api.responses.ready_response import JSON_BYTES, ReadyResponse
from src.services.metrics.ingest import CardinalityLimitError, Idempotency

LARGE_BODY_BYTES = 256 * 1024
"""Of batches with a larger body, a worker has only a few in memory at a time."""
MANY_TYPES = 1_000
HEAVY_BODY_BYTES = 2 * 1024 * 1024
"""Batches with more types, or a larger body, are stored one at a time: each may take 20 MB of memory."""

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
            body_too_large(MAX_OBJECT_BYTES),
            "CARDINALITY_LIMIT",
            "IDEMPOTENCY_KEY_REUSED",
            "RATE_LIMIT_EXCEEDED",
            "REDIS_UNAVAILABLE",
        ),
    },
    openapi_extra=request_headers("Idempotency-Key", "Content-Encoding") | json_body(MetricIn),
)
async def ingest(request: Request) -> Response:
    """Store one measurement. After a 201 the measurement is stored, and is part of every new summary.

    A request with an `Idempotency-Key` (1 to 255 visible ASCII characters, kept for 24 hours) can be
    repeated: the measurement is stored once, and the answer to a repetition has `Idempotency-Replayed: true`.

    A measurement has at most 64 KiB. Unknown members are ignored. If a member occurs several times, its last
    value counts.
    """
    services = state(request)
    admission, metrics = services["ingest_admission"], services["metrics"]
    try:
        reading = EagerCoroutine(_read_point(request, services))
    except ProblemError:
        await admit(request, admission)  # a client over its quota gets the 429 instead of this problem
        raise
    if reading.is_done and header(request.scope, b"idempotency-key") is None:
        point, _ = await reading
        is_stored = await admit_with_command(request, admission, partial(metrics.admit_and_add, point=point))
        await metrics.ingest_one(point, is_stored)
    else:
        await admit(request, admission)
        point, body = await await_body(reading, services["clock"])
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
        207: {
            "model": BatchReceived,
            "description": "Only some points were stored",
            **headers("Idempotency-Replayed"),
        },
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
    openapi_extra=request_headers("Idempotency-Key", "Content-Encoding") | json_batch_body(MetricIn, NDJSON),
)
async def ingest_batch(request: Request) -> Response:
    """Store a JSON array of measurements, or one measurement per line (`application/x-ndjson`).

    The body may be compressed by gzip. All valid measurements are stored in one step, and the answer lists
    the errors of the others. The batch counts as one request to the rate limiter. The rules for one
    measurement apply to each measurement of the batch; an `Idempotency-Key` applies to the whole batch. In an
    array, a measurement may have at most 8 levels of nesting, and the measurement itself is the first level.
    """
    services = state(request)
    await admit(request, services["ingest_admission"])
    kind = media_type(request, JSON, NDJSON)
    limits, clock = services["body_limits"], services["clock"]
    store = services["metrics"].ingest
    async with _body_place(request, services):
        sent = await await_body(EagerCoroutine(receive_body(request, limits.max_bytes)), clock)
        latest_us = _latest_us(services)
        async with services["batch_lock"]:
            body = inflate(sent, limits.max_bytes)  # after the wait, since a few KB can become megabytes
            idempotency = _idempotency(request, body)
            try:
                decode = decode_ndjson if kind == NDJSON else decode_array
                columns, batch = decode(body, limits.max_points, latest_us), Batch(latest_us)
            except UnusualBatchError:
                read = read_ndjson if kind == NDJSON else read_json_array
                batch = await read(body, limits.max_points, latest_us, clock)
                columns = columns_of(batch.points, batch.indexes)
            is_heavy = len(columns) > MANY_TYPES or len(body) > HEAVY_BODY_BYTES
            del body, sent
            if columns and is_heavy:
                result = await store(columns, idempotency)
    if columns and not is_heavy:
        result = await store(columns, idempotency)
    if columns:
        _mark_replayed(request, is_new=result.is_new)
        if result.rejected:
            batch.reject_stored(result.rejected)
        accepted = sum(len(group.values) for group in columns) - len(result.rejected)
    if not columns or not accepted:
        raise ProblemError(_nothing_stored(batch))
    answer = {"accepted": accepted, "rejected": batch.rejected, "errors": batch.errors}
    return Response(orjson.dumps(answer), 207 if batch.rejected else 201, media_type=JSON)


def _body_place(request: Request, services: State) -> AbstractAsyncContextManager[object]:
    """Return what a large body holds while it is in memory. A body of unknown size counts as large."""
    declared = header(request.scope, b"content-length") or ""
    is_small = declared.isdecimal() and int(declared) <= LARGE_BODY_BYTES
    return nullcontext() if is_small else services["large_bodies"]


def _latest_us(services: State) -> int:
    """Return the latest timestamp that is accepted now, in µs since 1970."""
    return round(services["clock"].now() * 1e6) + services["body_limits"].max_future_us


async def _read_point(request: Request, services: State) -> tuple[Point, bytes]:
    """Return the measurement, and the body that contains it."""
    measurement, body = await read_object(request, METRIC_IN, services["body_limits"].max_bytes)
    point = measurement.point()
    if point.timestamp_us > _latest_us(services):
        raise ProblemError(validation_problem([FUTURE_TIMESTAMP]))
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


def _nothing_stored(batch: Batch) -> Problem:
    message = "No point was stored: every point is invalid" if batch.rejected else "The batch has no points"
    extra = {"accepted": 0, "rejected": batch.rejected}
    return Problem(422, "VALIDATION_ERROR", message, errors=batch.errors, extra=extra)


HOT_ROUTES = (
    HotRoute("POST", "/api/metrics", ingest, "ingest_admission"),
    HotRoute("POST", "/api/metrics/batch", ingest_batch, "ingest_admission"),
)
