"""A transport that runs each request of an `httpx.AsyncClient` through a policy.

::

    client = httpx.AsyncClient(transport=ResilientTransport(Pipeline(breaker, retry, timeout)))

The policy covers a request up to the headers of its response. A redirect is a separate request, and so is
the second step of an authentication. To use another policy for each service, pass `mounts` to the client.
Arguments about the connection, such as `verify`, `http2`, `limits` and `proxy`, belong to the inner
transport.

**Responses as failures.** The policy receives a response with one of `failure_statuses` as a
`FailureResponseError`, so that it counts and retries the response. If the policy raises the error of the last
attempt, the client gets the response. Define failures by `failure_statuses` and not by the
`is_failure_result` of a policy: a result has no `retry_after`, and does not show whether its request may be
sent again.

**Retry-After.** The header of such a response, in seconds or as a date, becomes the error's `retry_after`.
`Retry` waits at least as long. If `RetryOptions.total_seconds` is too short for the wait, it does not retry.

**Repeated requests.** A request may be sent again if `may_resend` returns True and its body is known: bytes,
or a streamed body of at most `max_buffered_bytes`, which is read before the first attempt. Every other
request is sent at most once, unless no connection was made. Its errors end a `Retry`. Another
attempt raises `ResendRefusedError`, for example after a timeout; `Retry` then raises the error of the attempt
before.

**Bodies of responses.** The body of a response with a failure status is read up to `max_buffered_bytes`, so
that its connection is free while a retry waits. A longer body stays open, and so does the body of every
other response. The next attempt, or the end of the policy, closes each response that the client does not get.
"""

import math
from collections.abc import AsyncIterator, Callable, Collection

import httpx

from .clock import Clock, SystemClock
from .errors import AttemptRefusedError
from .http.http_date import retry_after_seconds
from .policy import Policy

FAILURE_STATUSES = frozenset({429, 500, 502, 503, 504})
"""Statuses of failures whose cause is the server, not the request."""

_IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NEVER = math.inf
"""As `retry_after` of an error: `Retry` makes no further attempt."""


class FailureResponseError(httpx.HTTPStatusError):
    """A response with a failure status. Only policies receive this error: the client gets the response.

    Attributes:
        request: The request.
        response: The response. Policies must not read its body.
        retry_after: The seconds of the server's `Retry-After`; None if there is no such header. Infinite if
            the request must not be sent again.
    """

    def __init__(self, request: httpx.Request, response: httpx.Response, retry_after: float | None) -> None:
        super().__init__(f"the server answered {response.status_code}", request=request, response=response)
        self.retry_after = retry_after


class ResendRefusedError(AttemptRefusedError):
    """The request must not be sent again, and an earlier attempt may have reached the server."""

    def __init__(self, request: httpx.Request) -> None:
        reason = f"{request.method} {request.url} is not sent again, since the server may have received it"
        super().__init__("httpx", reason, retry_after=None)


def is_idempotent(request: httpx.Request) -> bool:
    """Return whether `request` may be sent twice: by its method (RFC 9110) or its `Idempotency-Key`."""
    return request.method in _IDEMPOTENT_METHODS or "Idempotency-Key" in request.headers


class ResilientTransport(httpx.AsyncBaseTransport):
    """The transport. See the module's docstring for what it promises.

    Args:
        policy: Runs every request; a pipeline, in most cases.
        transport: Sends the requests; None for a new `httpx.AsyncHTTPTransport()`.
        failure_statuses: Statuses of responses that are failures; empty for none.
        may_resend: Returns whether a request may be sent more than once.
        max_buffered_bytes: The longest body that is kept in memory, at least 0. Each request in progress
            keeps at most two bodies: its own and that of its last response.
        clock: The clock with which the date of a `Retry-After` is compared; None for the system clock.
    """

    def __init__(
        self,
        policy: Policy,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        failure_statuses: Collection[int] = FAILURE_STATUSES,
        may_resend: Callable[[httpx.Request], bool] = is_idempotent,
        max_buffered_bytes: int = 65_536,
        clock: Clock | None = None,
    ) -> None:
        if not max_buffered_bytes >= 0:
            raise ValueError(f"max_buffered_bytes must be at least 0, not {max_buffered_bytes}")
        self._policy = policy
        self._transport = transport or httpx.AsyncHTTPTransport()
        self._failure_statuses = frozenset(failure_statuses)
        self._may_resend = may_resend
        self._max_buffered_bytes = max_buffered_bytes
        self._clock = clock or SystemClock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`, through the policy, and return the response.

        Raises:
            ResilienceError: The policy's own error, such as a rejection or a timeout.
            ResendRefusedError: A policy other than `Retry` tried to repeat a request that must not be sent
                again.
            httpx.TransportError: The error of the last attempt.
        """
        request.stream = await _buffer(request.stream, self._max_buffered_bytes)
        exchange = _Exchange(self, request)
        result: httpx.Response | None = None
        try:
            result = await self._policy.run(exchange.attempt)
        except FailureResponseError as failure:
            result = failure.response
        except GeneratorExit:  # the coroutine cannot await any more
            exchange.responses.clear()
            raise
        except Exception as error:
            if getattr(error, "retry_after", None) == _NEVER:
                vars(error)["retry_after"] = None  # the infinite value is only for the policies
            raise
        finally:
            await exchange.close_responses(but=result)
        return result

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._transport.aclose()

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send `request` once."""
        return await self._transport.handle_async_request(request)

    async def failure(self, response: httpx.Response, request: httpx.Request) -> FailureResponseError | None:
        """Return the error for `response`, or None if the response is no failure."""
        if response.status_code not in self._failure_statuses:
            return None
        response.stream = await _buffer(response.stream, self._max_buffered_bytes)
        retry_after = retry_after_seconds(response.headers.get("Retry-After", ""), self._clock.now())
        return FailureResponseError(request, response, retry_after)

    def is_repeatable(self, request: httpx.Request) -> bool:
        """Return whether `request` may be sent more than once."""
        return not isinstance(request.stream, _PartlyReadStream) and self._may_resend(request)


class _Exchange:
    """One request, and the responses to its attempts.

    Attributes:
        responses: The responses that are not closed yet.
    """

    def __init__(self, transport: ResilientTransport, request: httpx.Request) -> None:
        self._transport = transport
        self._request = request
        self._is_repeatable = transport.is_repeatable(request)
        self._may_have_been_received = False
        self._abandoned: httpx.Response | None = None
        self.responses: list[httpx.Response] = []

    async def attempt(self) -> httpx.Response:
        """Send the request, or refuse to send it again."""
        if self._may_have_been_received and not self._is_repeatable:
            raise ResendRefusedError(self._request)
        if self._abandoned is not None:
            await self._close(self._abandoned)
        self._may_have_been_received = True
        try:
            response = await self._transport.send(self._request)
            self.responses.append(response)
            failure = await self._transport.failure(response, self._request)
        except httpx.RequestError as error:
            error.request = self._request  # httpx sets it too late for the policies
            if isinstance(error, _NOT_CONNECTED):
                self._may_have_been_received = False
            elif not self._is_repeatable:
                vars(error)["retry_after"] = _NEVER
            raise
        if failure is None:
            return response
        self._abandoned = response
        if not self._is_repeatable:
            failure.retry_after = _NEVER
        raise failure

    async def close_responses(self, *, but: httpx.Response | None) -> None:
        """Close every response except `but`."""
        for response in self.responses:
            if response is not but:
                await response.aclose()

    async def _close(self, response: httpx.Response) -> None:
        self._abandoned = None
        self.responses.remove(response)
        await response.aclose()


async def _buffer(stream: object, max_bytes: int) -> httpx.AsyncByteStream:
    """Return a stream of the same bytes. If `stream` has at most `max_bytes`, read and close it."""
    if isinstance(stream, httpx.ByteStream) or not isinstance(stream, httpx.AsyncByteStream):
        return stream  # type: ignore[return-value]  # a synchronous stream is refused by the inner transport
    chunks: list[bytes] = []
    size = 0
    rest = aiter(stream)
    async for chunk in rest:
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            return _PartlyReadStream(chunks, rest, stream)
    await stream.aclose()
    return httpx.ByteStream(b"".join(chunks))


class _PartlyReadStream(httpx.AsyncByteStream):
    """A stream whose first chunks are already in memory. It can be read once."""

    def __init__(
        self, chunks: list[bytes], rest: AsyncIterator[bytes], stream: httpx.AsyncByteStream
    ) -> None:
        self._chunks = chunks
        self._rest = rest
        self._stream = stream
        self._is_consumed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._is_consumed:
            raise httpx.StreamConsumed
        self._is_consumed = True
        for chunk in self._chunks:
            yield chunk
        async for chunk in self._rest:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
