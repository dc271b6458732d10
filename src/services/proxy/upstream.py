"""One call of the proxy's upstream, whose answer is written to a buffer while it arrives.

The upstream counts calls when they arrive, but a slot of the queue only says when a call may be sent. So
each call postpones the next slot twice: when the call has been sent, to one interval later; and when its
answer has come, to one interval after the latest time at which the call can have arrived. The answer proves
that the call has arrived. The time by which this answer was slower than the fastest of the recent ones may
have passed before the call arrived.
"""

import math
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import httpx

from src.resilience.clock import Clock
from src.resilience.http.http_date import retry_after_seconds
from src.services.errors import ServiceError
from src.services.external_service import ExternalServiceError
from src.services.proxy.cache_control import reuse_rules
from src.services.proxy.headers import Headers, first, headers_for_caller, without
from src.services.proxy.response_buffer import Head, ResponseBuffer

MAX_POSTPONED_SECONDS = 300.0
"""The longest `Retry-After` of the upstream that the queue waits for."""

RECENT_ANSWERS = 10
"""The number of recent answers of which the fastest shows how long an answer takes without delays."""

_REQUEST_SENT = "send_request_headers.complete"
_ANSWER_RECEIVED = "receive_response_headers.complete"
"""The ends of the names of the HTTP client's trace events."""

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Characters that no header may hold (RFC 9110, section 5.5). The HTTP client accepts some of them."""

_WHOLE_SECONDS = re.compile(rb"0*[1-9][0-9]*\Z")


class UpstreamAnswerTooLargeError(ServiceError):
    """The answer is longer than the proxy passes on. This is no failure of the upstream.

    Args:
        max_bytes: The largest number of bytes that a body may have.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the upstream's answer is longer than {max_bytes} bytes")
        self.max_bytes = max_bytes


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to the upstream.

    Attributes:
        method: GET or HEAD.
        url: Made by `UpstreamTarget`.
        headers: All headers that are sent, except `Host`.
    """

    method: Literal["GET", "HEAD"]
    url: httpx.URL
    headers: Headers


class Upstream:
    """Makes the calls. Cookies are not kept, and redirects are not followed.

    Args:
        client: Sends the calls. Its own timeouts must not be shorter than those of the policies around it.
        clock: Measures how long answers take, and is compared with dates in headers.
        postpone: Called with the number of seconds during which no worker may start a call.
        interval_seconds: The least time between the arrivals of two calls.
        max_body_bytes: The longest body that is passed on.

    Attributes:
        max_body_bytes: The longest body that is passed on.
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
        self._answer_seconds: deque[float] = deque(maxlen=RECENT_ANSWERS)

    async def call(self, request: UpstreamRequest, buffer: ResponseBuffer) -> bytes:
        """Make one call, and write its answer to `buffer` except for the last piece of the body.

        Args:
            request: The request to send.
            buffer: An empty buffer. This method does not end it.

        Returns:
            The last piece of a body whose length was announced; empty for other bodies. A reader that gets
            the last piece has the whole answer, so the caller of this method can act before the reader does.

        Raises:
            ExternalServiceError: There is no answer, it breaks the rules of HTTP, it is a server error (5xx),
                or it breaks off.
            UpstreamAnswerTooLargeError: The answer is too long. If the length was announced, the buffer has
                not begun.
        """
        sent_at = self._clock.monotonic()

        async def on_event(event: str, _details: object) -> None:
            nonlocal sent_at
            if event.endswith(_REQUEST_SENT):
                sent_at = self._clock.monotonic()
                await self._postpone(self._interval_seconds)
            elif event.endswith(_ANSWER_RECEIVED):
                await self._postpone_for_arrival(self._clock.monotonic() - sent_at)

        sent = httpx.Request(
            request.method, request.url, headers=list(request.headers), extensions={"trace": on_event}
        )
        try:
            answer = await self._client.send(sent, stream=True)
            try:
                return await self._write(answer, buffer, sent_at)
            finally:
                await answer.aclose()
        except (httpx.HTTPError, OSError) as error:  # OSError: from a provider in this process
            raise ExternalServiceError(f"no answer: {error!r}") from error

    async def _postpone_for_arrival(self, answer_seconds: float) -> None:
        """Postpone the next slot by the time that this call may have been on its way."""
        fastest = min(self._answer_seconds, default=0.0)
        self._answer_seconds.append(answer_seconds)
        if fastest < answer_seconds <= self._interval_seconds:  # after that, the next call may have been sent
            await self._postpone(self._interval_seconds - fastest)

    async def _write(self, answer: httpx.Response, buffer: ResponseBuffer, sent_at: float) -> bytes:
        head = await self._head(answer, sent_at)
        length = _announced_length(head.headers) if answer.request.method != "HEAD" else None
        if length is not None and length > self.max_body_bytes:
            raise UpstreamAnswerTooLargeError(self.max_body_bytes)
        buffer.begin(head)
        received, last = 0, b""
        async for chunk in answer.aiter_raw():
            received += len(chunk)
            if received > self.max_body_bytes:
                raise UpstreamAnswerTooLargeError(self.max_body_bytes)
            if received == length:
                last = chunk
            else:
                buffer.write(chunk)
        return last

    async def _head(self, answer: httpx.Response, sent_at: float) -> Head:
        """Return the head for the caller. A 429 postpones the next slot."""
        status = answer.status_code
        headers = tuple((name.lower(), value) for name, value in answer.headers.raw)
        if not 200 <= status < 500:
            raise ExternalServiceError(f"status {status}")
        if any(_CONTROL.search(value) for _, value in headers):
            raise ExternalServiceError("control characters in a header")
        now, received_at = self._clock.now(), self._clock.monotonic()
        passed_on = headers_for_caller(status, headers)
        if status == httpx.codes.TOO_MANY_REQUESTS:
            passed_on = await self._obey_retry_after(passed_on)
        rules = reuse_rules(headers, now=now, sent_at=sent_at, received_at=received_at)
        return Head(status, passed_on, rules)

    async def _obey_retry_after(self, headers: Headers) -> Headers:
        """Postpone the next slot, and return `headers` with a `Retry-After` of whole seconds, at least 1."""
        value = first(headers, b"retry-after") or b""
        seconds = retry_after_seconds(value.decode("latin-1"), self._clock.now()) or 0.0
        if seconds > 0:
            await self._postpone(min(seconds, MAX_POSTPONED_SECONDS))
        if _WHOLE_SECONDS.match(value):
            return headers
        return (*without(headers, {b"retry-after"}), (b"retry-after", b"%d" % max(1, math.ceil(seconds))))


def _announced_length(headers: Headers) -> int | None:
    value = first(headers, b"content-length") or b""
    return int(value) if value.isdigit() else None
