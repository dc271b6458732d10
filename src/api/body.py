"""Reading a request's body: no more of it than allowed, for no longer than allowed, inflated if compressed.

FastAPI's own `max_body_size` would answer a declared length over the limit in plain text, and counts before
inflation; here too much of either is a problem document.
"""

import re
import zlib
from email.message import Message
from functools import lru_cache
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from src.api.eager_coroutine import EagerCoroutine
from src.api.errors import BAD_JSON, Problem, ProblemError, field_errors, validation_problem
from src.api.header import header
from src.resilience.clock import Clock

T = TypeVar("T")

JSON = "application/json"

MAX_OBJECT_BYTES = 64 * 1024
"""The limit of one JSON object, such as a measurement. Parsed JSON may take fifty times its size."""

BODY_SECONDS = 30
"""How long a body may take to arrive."""

_GZIP = 16 + zlib.MAX_WBITS
_ZEROS = re.compile(rb"\0*+")

_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
"""Names of UTF-8 and of the part of it that is ASCII."""

_PIECE_BYTES = 1024
"""Inflated at a time. After each member zlib copies what is left, and a member may be of 20 bytes."""


class SentBody(NamedTuple):
    """A body as it was sent.

    Attributes:
        data: Its bytes.
        is_gzip: Whether they are compressed.
    """

    data: bytes
    is_gzip: bool


def media_type(request: Request, *supported: str) -> str:
    """Return which of the `supported` media types the body is; without a Content-Type, the first.

    Raises:
        ProblemError: 415, it is none of them, or not in UTF-8.
    """
    given = header(request.scope, b"content-type")
    if given is None:
        return supported[0]
    kind, charset = _content_type(given)
    if kind not in supported or charset not in _CHARSETS:
        wanted = " or ".join(supported)
        raise ProblemError(Problem(415, "UNSUPPORTED_MEDIA_TYPE", f"The body must be {wanted}, in UTF-8"))
    return kind


@lru_cache
def _content_type(text: str) -> tuple[str, str]:
    message = Message()
    message["content-type"] = text
    return message.get_content_type(), message.get_content_charset("utf-8")


async def read_object(request: Request, adapter: TypeAdapter[T], max_bytes: int) -> tuple[T, bytes]:
    """Return a JSON object as `adapter` parses it, and the body that it came in. Await it by `in_time`.

    Args:
        request: The request with the body.
        adapter: Validates the object.
        max_bytes: The limit of the body, if it is below `MAX_OBJECT_BYTES`.

    Raises:
        ProblemError: As `media_type`, `read_body` and `parse_json` do.
    """
    media_type(request, JSON)
    body = await read_body(request, min(MAX_OBJECT_BYTES, max_bytes))
    return parse_json(adapter, body), body


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body, inflated if it came compressed: `receive_body`, then `inflated`."""
    return inflated(await receive_body(request, max_bytes), max_bytes)


async def receive_body(request: Request, max_bytes: int) -> SentBody:
    """Return the whole body as it was sent. Await it by `in_time`.

    Args:
        request: The request with the body.
        max_bytes: The limit of the body. No more than that is held in memory.

    Raises:
        ProblemError: 413, it is larger; 415, it is encoded otherwise than by gzip; 400, it broke off.
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
        raise ProblemError(too_large(max_bytes))
    return SentBody(await _receive(request, max_bytes), is_gzip)


@lru_cache
def _is_gzip(content_encoding: str | None) -> bool | None:
    """Return whether a body is compressed by gzip; None where it is encoded in another way.

    `x-gzip` is another name of gzip, and "identity" or an empty list element means nothing (RFC 9110,
    sections 8.4.1.3, 12.5.3 and 5.6.1.2).
    """
    codings = [coding.strip().lower() for coding in (content_encoding or "").split(",")]
    codings = [coding for coding in codings if coding not in {"", "identity"}]
    if not codings:
        return False
    return True if codings in (["gzip"], ["x-gzip"]) else None


async def in_time(reading: EagerCoroutine[T], clock: Clock) -> T:
    """Return the result of reading a body, if the body arrives in time.

    Args:
        reading: The reading, which has begun. Most bodies come along with their headers, so that it is done
            already: a timer for each of those would be a tenth of all the work.
        clock: Measures the `BODY_SECONDS`.

    Raises:
        ProblemError: 400, it did not arrive in time; and whatever reading it raised.
    """
    if reading.is_done:
        return await reading
    try:
        async with clock.timeout(BODY_SECONDS):
            return await reading
    except TimeoutError:
        message = f"The body did not arrive in time: it may take {BODY_SECONDS} seconds"
        hang_up = {"Connection": "close"}  # or the connection would go on waiting for the rest
        raise ProblemError(Problem(400, "BAD_REQUEST", message, headers=hang_up)) from None


async def _receive(request: Request, max_bytes: int) -> bytes:
    body = bytearray()  # not a list of chunks: of two bytes each, they would weigh twenty times as much
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(Problem(400, "BAD_REQUEST", "The body broke off"))
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > max_bytes:
            raise ProblemError(too_large(max_bytes))
    return bytes(body)


def too_large(max_bytes: int) -> Problem:
    """Return the 413 for a body of more than `max_bytes`."""
    return Problem(413, "PAYLOAD_TOO_LARGE", f"The body may be at most {max_bytes} bytes, inflated")


def parse_json(adapter: TypeAdapter[T], body: bytes) -> T:
    """Return `body` as what `adapter` makes of it.

    Raises:
        ProblemError: 400, it is not JSON; 422, it is not right.
    """
    try:
        parsed: T = adapter.validator.validate_json(body)  # past a layer that has nothing to add
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            raise ProblemError(BAD_JSON) from None
        raise ProblemError(validation_problem(field_errors(errors))) from None
    return parsed


def inflated(sent: SentBody, max_bytes: int) -> bytes:
    """Return a body without its compression.

    Gzip may consist of several members (RFC 1952). Zero bytes after a member are padding, as for gzip(1).

    Raises:
        ProblemError: 413, it is more than `max_bytes`, and no more is made; 400, it is no gzip or cut short.
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
                raise ProblemError(too_large(max_bytes))
            position += len(piece) - len(member.unused_data)
            if member.eof and (padding := _ZEROS.match(data, position)):
                position = padding.end()
    except zlib.error:
        raise _not_gzip() from None
    if not member.eof:
        raise _not_gzip()
    return bytes(plain)


def _not_gzip() -> ProblemError:
    return ProblemError(Problem(400, "BAD_REQUEST", "The body says it is gzip and is not, or is cut short"))
