"""One call of the proxy's upstream, written to a buffer as the answer comes in.

The upstream counts calls as they arrive, and a turn only says when one may leave. So what happens on the way
puts off the next turn: to an interval after this call has left, and once its answer is there, to an interval
after the call can have arrived at the latest. An answer proves that it has; what it took longer than the
fastest of late may all have been on the way.
"""

import math
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import httpx

from src.resilience.clock import Clock
from src.services.errors import ServiceError
from src.services.external_service import ExternalServiceError, retry_after_seconds
from src.services.proxy.headers import Headers, first, for_caller
from src.services.proxy.response_buffer import Head, ResponseBuffer

MAX_POSTPONED_SECONDS = 300.0
"""The longest a `Retry-After` of the upstream is honoured."""

LATE_ANSWERS = 10
"""Calls of late, of which the fastest tells what an answer takes that nothing holds up."""

_REQUEST_LEFT = "send_request_headers.complete"
_ANSWER_CAME = "receive_response_headers.complete"
"""How the events end by which the HTTP client tells of it."""

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What no header's value may hold (RFC 9110, section 5.5), though the HTTP client lets some of it through."""

_WHOLE_SECONDS = re.compile(rb"0*[1-9][0-9]*\Z")


class UpstreamAnswerTooLargeError(ServiceError):
    """The answer is longer than the proxy passes on. The upstream is well: it did answer.

    Args:
        max_bytes: The most a body may be.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the upstream's answer is longer than {max_bytes} bytes")
        self.max_bytes = max_bytes


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What the upstream is asked.

    Attributes:
        method: GET or HEAD.
        url: Made by `UpstreamTarget`.
        headers: All that are sent, but for `Host`.
    """

    method: Literal["GET", "HEAD"]
    url: httpx.URL
    headers: Headers


class Upstream:
    """Makes the calls, each on its own: no cookies are kept and no redirect is followed.

    Args:
        client: Sends them. Its own limits of time should be no tighter than those around this.
        clock: Measures how long answers take, and dates a `Retry-After`.
        postpone: Told the seconds during which no call, of any worker, may begin.
        interval_seconds: What there is to be between two calls when they arrive.
        max_body_bytes: The longest answer that is passed on.

    Attributes:
        max_body_bytes: As given.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        clock: Clock,
        postpone: Callable[[float], Awaitable[None]],
        *,
        interval_seconds: float,
        max_body_bytes: int,
    ) -> None:
        self._client = client
        self._clock = clock
        self._postpone = postpone
        self._interval_seconds = interval_seconds
        self.max_body_bytes = max_body_bytes
        self._took: deque[float] = deque(maxlen=LATE_ANSWERS)

    async def call(self, request: UpstreamRequest, buffer: ResponseBuffer) -> bytes:
        """Make one call and write the answer to `buffer`, all but its last piece.

        Args:
            request: The request to send.
            buffer: Not begun. It is not ended either.

        Returns:
            The last piece of the body, if its length was told: with it a reader would have all, and the
            writer may have something to do before.

        Raises:
            ExternalServiceError: No answer, one that is none of HTTP's, a server error, or an answer that was
                cut off.
            UpstreamAnswerTooLargeError: The answer is too long; before the buffer has begun, if that is told.
        """
        left_at = self._clock.monotonic()

        async def watch(event: str, _details: object) -> None:
            nonlocal left_at
            if event.endswith(_REQUEST_LEFT):
                left_at = self._clock.monotonic()
                await self._postpone(self._interval_seconds)
            elif event.endswith(_ANSWER_CAME):
                await self._learn(self._clock.monotonic() - left_at)

        sent = httpx.Request(
            request.method, request.url, headers=list(request.headers), extensions={"trace": watch}
        )
        try:
            answer = await self._client.send(sent, stream=True)
            try:
                return await self._write(answer, buffer)
            finally:
                await answer.aclose()
        except (httpx.HTTPError, OSError) as error:  # OSError: a connection that a provider in process cut
            raise ExternalServiceError(f"no answer: {error!r}") from error

    async def _learn(self, took_seconds: float) -> None:
        """Put off the next turn for as long as this call may have been on its way."""
        fastest = min(self._took, default=0.0)
        self._took.append(took_seconds)
        if fastest < took_seconds <= self._interval_seconds:  # later, the next one may have left long ago
            await self._postpone(self._interval_seconds - fastest)

    async def _write(self, answer: httpx.Response, buffer: ResponseBuffer) -> bytes:
        status = answer.status_code
        headers = tuple((name.lower(), value) for name, value in answer.headers.raw)
        if not 200 <= status < 500:
            raise ExternalServiceError(f"status {status}")
        if any(_CONTROL.search(value) for _, value in headers):
            raise ExternalServiceError("control characters in a header")
        passed_on = for_caller(status, headers)
        if status == httpx.codes.TOO_MANY_REQUESTS:
            passed_on = await self._honour_retry_after(passed_on)
        declared = _length(passed_on) if answer.request.method != "HEAD" else None
        if declared is not None and declared > self.max_body_bytes:
            raise UpstreamAnswerTooLargeError(self.max_body_bytes)
        buffer.begin(Head(status, passed_on))
        received, last = 0, b""
        async for chunk in answer.aiter_raw():
            received += len(chunk)
            if received > self.max_body_bytes:
                raise UpstreamAnswerTooLargeError(self.max_body_bytes)
            if received == declared:
                last = chunk
            else:
                buffer.write(chunk)
        return last

    async def _honour_retry_after(self, headers: Headers) -> Headers:
        """Hold up the line, and return `headers` with whole seconds to wait, at least 1, for the caller."""
        value = first(headers, b"retry-after") or b""
        seconds = retry_after_seconds(value.decode("latin-1"), self._clock.now()) or 0.0
        if seconds > 0:
            await self._postpone(min(seconds, MAX_POSTPONED_SECONDS))
        if _WHOLE_SECONDS.match(value):
            return headers
        others = tuple(header for header in headers if header[0] != b"retry-after")
        return (*others, (b"retry-after", b"%d" % max(1, math.ceil(seconds))))


def _length(headers: Headers) -> int | None:
    value = first(headers, b"content-length") or b""
    return int(value) if value.isdigit() else None
