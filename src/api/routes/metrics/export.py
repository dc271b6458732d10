"""The export: all measurements of a type, in the format of `POST /api/metrics/batch`."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from src.analytics.points import format_timestamp
from src.api.admitted_read import ReadTask, admit_and_read
from src.api.dependencies import state
from src.api.errors import ProblemError, validation_problem
from src.api.header import header
from src.api.models.metrics import ExportQuery, MetricIn
from src.api.openapi import headers, ndjson_lines, problems, query_parameters
from src.api.requests.query import QueryReader
from src.api.responses.negotiation import accepts_gzip
from src.api.routes.metrics.ingest import NDJSON
from src.resilience.clock import Clock
from src.services.metrics.export import PointPage

router = APIRouter(prefix="/api/metrics", tags=["metrics"])

GZIP_LEVEL = 1
"""The fastest level. It already reduces lines, which are very similar, to a tenth of their size."""

_GZIP_WINDOW_BITS = 31
"""The largest window, and gzip's header and trailer (zlib's manual, `deflateInit2`)."""

_QUERY = QueryReader(ExportQuery)

_EXAMPLES = (
    {"timestamp": "2026-01-31T12:00:00Z", "value": 42.5, "type": "cpu_usage"},
    {"timestamp": "2026-01-31T12:00:01Z", "value": 40.0, "type": "cpu_usage", "labels": {"host": "web-1"}},
)


class _Lines(StreamingResponse):
    """One JSON object a line."""

    media_type = NDJSON


@router.get(
    "/export",
    summary="Export a metric type",
    response_class=_Lines,
    responses={
        200: {"content": {NDJSON: ndjson_lines(MetricIn, _EXAMPLES)}, **headers("Vary")},
        **problems("VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", "REDIS_UNAVAILABLE"),
    },
    openapi_extra=query_parameters(ExportQuery),
)
async def export(request: Request) -> Response:
    """All measurements of a type as lines for `/api/metrics/batch`, by time, then by arrival.

    A measurement that was acknowledged before the request is in the answer exactly once; one that arrives
    during the answer is in it once or not at all. The answer is compressed by gzip if the client accepts
    that. If the export fails midway, the connection ends without the last chunk (RFC 9112, section 8): an
    incomplete answer differs from a complete one.
    """
    query, first, pages = await admit_and_read(request, partial(_begin, request))
    lines = _lines(query.type, first, pages)
    if not accepts_gzip(header(request.scope, b"accept-encoding")):
        clock = state(request)["clock"]
        return _Lines(_with_pauses(lines, clock), headers={"Vary": "Accept-Encoding"})
    return _Lines(_compressed(lines), headers={"Vary": "Accept-Encoding", "Content-Encoding": "gzip"})


_Begun = tuple[ExportQuery, PointPage | None, AsyncIterator[PointPage]]


def _begin(request: Request) -> ReadTask[_Begun]:
    """Read the first page before the answer begins, so that a store that is unavailable is a 503."""
    query = _QUERY.read(request)
    if query.from_ is not None and query.to is not None and query.from_ >= query.to:
        raise ProblemError(validation_problem([{"field": "from", "message": "must be before `to`"}]))
    pages = state(request)["exports"].export(query.type, query.from_, query.to, query.filters())

    async def read() -> _Begun:
        return query, await anext(pages, None), pages

    return ReadTask(read())


async def _lines(
    metric_type: str, first: PointPage | None, rest: AsyncIterator[PointPage]
) -> AsyncIterator[bytes]:
    if first is not None:
        yield _rendered(metric_type, first)
    async for page in rest:
        yield _rendered(metric_type, page)


def _rendered(metric_type: str, page: PointPage) -> bytes:
    # A type has no character that JSON escapes, and labels are JSON already.
    endings = {text: f',"labels":{text}}}\n' if text else "}\n" for text in set(page.labels)}
    return "".join(
        [
            f'{{"timestamp":"{format_timestamp(timestamp)}","value":{value!r},"type":"{metric_type}"'
            f"{endings[labels]}"
            for timestamp, value, labels in zip(*page, strict=True)
        ]
    ).encode()


async def _with_pauses(lines: AsyncIterator[bytes], clock: Clock) -> AsyncIterator[bytes]:
    """Yield `lines`, and let other tasks run before each."""
    async for part in lines:
        await clock.sleep(0)
        yield part


async def _compressed(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield `lines` compressed by gzip, in a thread."""
    gzip = zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_WINDOW_BITS)
    async for part in lines:
        if compressed := await asyncio.to_thread(gzip.compress, part):
            yield compressed
    yield gzip.flush()
