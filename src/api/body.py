"""Reading a request's body: no more of it than allowed, inflated where it was compressed.

FastAPI's own `max_body_size` would answer a declared length over the limit in plain text, and counts before
inflation; here too much of either is a problem document.
"""

import zlib
from email.message import Message
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request

from src.api.errors import BAD_JSON, Problem, ProblemError, field_errors, validation_problem

T = TypeVar("T")

_GZIP = 16 + zlib.MAX_WBITS


def media_type(request: Request, *supported: str) -> str:
    """Return which of the `supported` media types the body is; without a Content-Type, the first.

    Raises:
        ProblemError: 415, it is none of them, or not in UTF-8.
    """
    given = request.headers.get("content-type")
    if given is None:
        return supported[0]
    message = Message()
    message["content-type"] = given
    charset = message.get_content_charset("utf-8")
    if message.get_content_type() not in supported or charset not in {"utf-8", "us-ascii"}:
        wanted = " or ".join(supported)
        raise ProblemError(Problem(415, "UNSUPPORTED_MEDIA_TYPE", f"The body must be {wanted}, in UTF-8"))
    return message.get_content_type()


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body, inflated if it came with `Content-Encoding: gzip`.

    Args:
        request: Whose body.
        max_bytes: The most it may be, inflated. No more than that is ever held.

    Raises:
        ProblemError: 413, it is larger; 415, it is encoded in another way; 400, it is not what it says.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip"}:
        raise ProblemError(
            Problem(
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                "The body may be plain or compressed by gzip",
                headers={"Accept-Encoding": "gzip"},
            )
        )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    inflator = _Inflator() if encoding == "gzip" else None
    try:
        async for chunk in request.stream():
            plain = chunk if inflator is None else inflator.inflate(chunk, max_bytes - size)
            size += len(plain)
            if size > max_bytes:
                raise _too_large(max_bytes)
            chunks.append(plain)
    except ClientDisconnect:
        raise ProblemError(Problem(400, "BAD_REQUEST", "The body broke off")) from None
    if inflator is not None and not inflator.is_complete:
        raise _not_gzip()
    return b"".join(chunks)


def parse_json(adapter: TypeAdapter[T], body: bytes) -> T:
    """Return `body` as what `adapter` makes of it.

    Raises:
        ProblemError: 400, it is not JSON; 422, it is not right.
    """
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            raise ProblemError(BAD_JSON) from None
        raise ProblemError(validation_problem(field_errors(errors))) from None


class _Inflator:
    """Inflates gzip a chunk at a time, never past a limit. A file may have several members (RFC 1952)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    @property
    def is_complete(self) -> bool:
        return self._member.eof

    def inflate(self, chunk: bytes, room: int) -> bytes:
        """Return what `chunk` inflates to, or something longer than `room` where that is too much."""
        plain = bytearray()
        try:
            while chunk and len(plain) <= room:
                if self._member.eof:
                    self._member = zlib.decompressobj(_GZIP)
                plain += self._member.decompress(chunk, room + 1 - len(plain))
                chunk = self._member.unconsumed_tail or self._member.unused_data
        except zlib.error:
            raise _not_gzip() from None
        return bytes(plain)


def _not_gzip() -> ProblemError:
    return ProblemError(Problem(400, "BAD_REQUEST", "The body says it is gzip and is not, or is cut short"))


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError(
        Problem(413, "PAYLOAD_TOO_LARGE", f"The body may be at most {max_bytes} bytes, inflated")
    )
