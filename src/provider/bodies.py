"""Request bodies of limited size."""

from typing import Annotated

from fastapi import Depends, HTTPException
from starlette.requests import Request

MAX_BODY_BYTES = 64 * 1024


async def _read(request: Request) -> bytes:
    # FastAPI's own max_body_size answers in plain text and not with a problem document.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


BoundedBody = Annotated[bytes, Depends(_read)]
"""The body of a request, at most `MAX_BODY_BYTES`. A larger body is answered 413, and not read to its end."""
