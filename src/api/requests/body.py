"""Read the body of a request, within limits of size and time, and inflate a compressed body.

FastAPI's own `max_body_size` answers a declared length over the limit in plain text, and does not limit the
inflated size. This module limits both sizes and answers with a problem document.
"""

import re
import zlib
from email.message import Message
from functools import lru_cache
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from src.api.errors import BAD_JSON, Problem, ProblemError, field_errors, validation_problem
from src.api.header import header
from src.api.requests.eager_coroutine import EagerCoroutine
from src.resilience.clock import Clock

T = TypeVar("T")

JSON = "application/json"

MAX_OBJECT_BYTES = 64 * 1024
"""The largest JSON object, such as a measurement. Parsed JSON can need fifty times as much memory."""

BODY_SECONDS = 30
"""The longest time in which a body must arrive."""

_GZIP = 16 + zlib.MAX_WBITS
_ZEROS = re.compile(rb"\0*+")

_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
"""The accepted names of UTF-8 and of its subset ASCII."""

_PIECE_BYTES = 1024
"""Bytes that are inflated at a time. zlib copies the unread rest of a piece after each member of a gzip body,
and a member may have only 20 bytes."""


class SentBody(NamedTuple):
    """A body before inflation.

    Attributes:
        data: The bytes of the body.
        is_gzip: Whether the bytes are compressed by gzip.
    """

    data: bytes
    is_gzip: bool


def media_type(request: Request, *supported: str) -> str:
    """Return the media type of the body; without a Content-Type, the first of the `supported` types.

    Raises:
        ProblemError: 415 if the media type is not supported, or the body is not in UTF-8.
    """
    field = header(request.scope, b"content-type")
    if field is None:
        return supported[0]
    kind, charset = _content_type(field)
    if kind not in supported or charset not in _CHARSETS:
        kinds = " or ".join(supported)
        raise ProblemError(Problem(415, "UNSUPPORTED_MEDIA_TYPE", f"The body must be {kinds}, in UTF-8"))
    return kind


@lru_cache
def _content_type(text: str) -> tuple[str, str]:
    message = Message()
    message["content-type"] = text
    return message.get_content_type(), message.get_content_charset("utf-8")


async def read_object(request: Request, adapter: TypeAdapter[T], max_bytes: int) -> tuple[T, bytes]:
    """Return the object that `adapter` parses from the body, and the body. Await it by `await_body`.

    Args:
        request: The request with the body.
        adapter: Parses and validates the object.
        max_bytes: The largest body; `MAX_OBJECT_BYTES` applies if it is lower.

    Raises:
        ProblemError: Any error of `media_type`, `read_body` or `parse_json`.
    """
    media_type(request, JSON)
    body = await read_body(request, min(MAX_OBJECT_BYTES, max_bytes))
    return parse_json(adapter, body), body


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body, inflated if it is compressed: `receive_body`, then `inflate`."""
    return inflate(await receive_body(request, max_bytes), max_bytes)


async def receive_body(request: Request, max_bytes: int) -> SentBody:
    """Return the whole body before inflation. Await it by `await_body`.

    Args:
        request: The request with the body.
        max_bytes: The largest body. Not many more bytes are held in memory.

    Raises:
        ProblemError: 413 if the body is larger; 415 if it has another encoding than gzip; 400 if the client
            disconnected.
    """
    is_gzip = _is_gzip(header(request.scope, b"content-encoding"))
    if is_gzip is None:
        raise ProblemError(
            Problem(
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                "The body may be plain or compressed by gzip",
                headers={"Accept-Encoding": "gzip"},
            )
        )
    declared = header(request.scope, b"content-length") or "0"
    if declared.isdecimal() and int(declared) > max_bytes:
        raise ProblemError(body_too_large(max_bytes))
    return SentBody(await _receive(request, max_bytes), is_gzip)


@lru_cache
def _is_gzip(content_encoding: str | None) -> bool | None:
    """Return whether a body is compressed by gzip; None if it has another encoding.

    `x-gzip` is another name of gzip. The name "identity" and an empty list element mean no encoding (RFC
    9110, sections 8.4.1.3, 12.5.3 and 5.6.1.2).
    """
    codings = [coding.strip().lower() for coding in (content_encoding or "").split(",")]
    codings = [coding for coding in codings if coding not in {"", "identity"}]
    if not codings:
        return False
    return True if codings in (["gzip"], ["x-gzip"]) else None


async def await_body(reading: EagerCoroutine[T], clock: Clock) -> T:
    """Return the result of `reading`, which reads a body, if the body arrives within `BODY_SECONDS`.

    Args:
        reading: The coroutine that reads. Most bodies arrive together with their headers, so that `reading`
            is done already. No timer is set then: it would be a tenth of the request's work.
        clock: Measures the time.

    Raises:
        ProblemError: 400 if the body did not arrive in time; otherwise any error of `reading`.
    """
    if reading.is_done:
        return await reading
    try:
        async with clock.timeout(BODY_SECONDS):
            return await reading
    except TimeoutError:
        message = f"The body did not arrive in time: it may take {BODY_SECONDS} seconds"
        headers = {"Connection": "close"}  # otherwise the connection waits for the rest of the body
        raise ProblemError(Problem(400, "BAD_REQUEST", message, headers=headers)) from None


async def _receive(request: Request, max_bytes: int) -> bytes:
    body = bytearray()  # a list of two-byte chunks would need twenty times the memory
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(
                Problem(400, "BAD_REQUEST", "The client disconnected before the end of the body")
            )
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > max_bytes:
            raise ProblemError(body_too_large(max_bytes))
    return bytes(body)


def body_too_large(max_bytes: int) -> Problem:
    """Return the problem (413) of a body of more than `max_bytes`."""
    return Problem(413, "PAYLOAD_TOO_LARGE", f"The body may be at most {max_bytes} bytes, inflated")


def parse_json(adapter: TypeAdapter[T], body: bytes) -> T:
    """Return the object that `adapter` parses from `body`.

    Raises:
        ProblemError: 400 if the body is not JSON; 422 if it is not valid.
    """
    try:
        parsed: T = adapter.validator.validate_json(body)  # the adapter's own method only adds overhead
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            raise ProblemError(BAD_JSON) from None
        raise ProblemError(validation_problem(field_errors(errors))) from None
    return parsed


def inflate(sent: SentBody, max_bytes: int) -> bytes:
    """Return the inflated body.

    A gzip body may have several members (RFC 1952). Zero bytes after a member are padding, as in gzip(1).

    Raises:
        ProblemError: 413 if the inflated body has more than `max_bytes`, of which no more are made; 400 if
            the body is not gzip, or is incomplete.
    """
    if not sent.is_gzip:
        return sent.data
    data = sent.data
    plain, member, view, position = bytearray(), zlib.decompressobj(_GZIP), memoryview(data), 0
    try:
        while position < len(data):
            if member.eof:
                member = zlib.decompressobj(_GZIP)
            piece = view[position : position + _PIECE_BYTES]
            plain += member.decompress(piece, max_bytes + 1 - len(plain))
            if len(plain) > max_bytes:
                raise ProblemError(body_too_large(max_bytes))
            position += len(piece) - len(member.unused_data)
            if member.eof and (padding := _ZEROS.match(data, position)):
                position = padding.end()
    except zlib.error:
        raise _gzip_error() from None
    if not member.eof:
        raise _gzip_error()
    return bytes(plain)


def _gzip_error() -> ProblemError:
    message = "The Content-Encoding is gzip, but the body is not gzip or is incomplete"
    return ProblemError(Problem(400, "BAD_REQUEST", message))
