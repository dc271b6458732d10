"""A transport that runs each request of an `httpx.AsyncClient` through a policy.

::

    client = httpx.AsyncClient(transport=ResilientTransport(Pipeline(breaker, retry, timeout)))

The policy covers a request up to the headers of its response. A redirect and a second step of
authentication are requests of their own. For a policy of its own for each service, use the client's
`mounts`. Arguments of the client about the connection, such as `verify`, `http2`, `limits` and `proxy`,
belong to the inner transport.

**Results as failures.** A response with one of `failure_statuses` is a `FailureResponseError` inside, so
that policies count and retry it. When the policy raises the error of the last attempt, the client gets the
response. Name failures here and not by the `is_failure_result` of a policy, to which a response does not say
when to come back, nor whether its request may be sent again.

**Retry-After** of such a response, in seconds or as a date, is the error's `retry_after`, before which
`Retry` does not try again. If `RetryOptions.total_seconds` is too short for that, there is no retry.

**Which requests are sent again.** Those for which `may_resend` returns True, and whose body is known:
bytes, or a streamed body of at most `max_buffered_bytes`, which is read before the first attempt. Every
other request is sent at most once, unless no connection was made: its errors make `Retry` stop. A further
attempt raises `ResendRefusedError`, for example after a timeout; `Retry` then raises the error of the attempt
before.

**Bodies of responses.** The body of a response with a failure status is read up to `max_buffered_bytes`, so
that its connection is free while a retry waits. A longer body, and that of every other response, stays
open. Each response that the client does not get is closed: by the next attempt, or when the policy ends.
"""

import math
from collections.abc import AsyncIterator, Callable, Collection

import httpx

from .clock import Clock, SystemClock
from .errors import AttemptRefusedError
from .http.http_date import retry_after_seconds
from .policy import Policy

FAILURE_STATUSES = frozenset({429, 500, 502, 503, 504})
"""Statuses that say that the server, and not the request, is the problem."""

_IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NEVER = math.inf
"""As `retry_after` of an error: `Retry` makes no further attempt."""


class FailureResponseError(httpx.HTTPStatusError):
    """A response with a failure status. Only policies see it: the client gets the response.

    Attributes:
        request: The request.
        response: The response. Its body is not for the policies to read.
        retry_after: Seconds before which the server asks not to be called again; None where it does not ask.
            Infinite where the request must not be sent again.
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
        may_resend: Says which requests may be sent more than once.
        max_buffered_bytes: The longest body that is kept in memory, at least 0: for each request under way
            one of its own and one of its last response.
        clock: Tells how far off the date of a `Retry-After` is; None for the machine's clock.
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
            ResilienceError: The policy's own verdict, such as a rejection or a timeout.
            ResendRefusedError: A policy other than `Retry` tried to send a request again that must not be.
            httpx.TransportError: The error of the last attempt.
        """
        request.stream = await _buffer(request.stream, self._max_buffered_bytes)
        exchange = _Exchange(self, request)
        result: httpx.Response | None = None
        try:
            result = await self._policy.run(exchange.attempt)
        except FailureResponseError as failure:
            result = failure.response
        except GeneratorExit:  # nothing can be awaited any more
            exchange.responses.clear()
            raise
        except Exception as error:
            if getattr(error, "retry_after", None) == _NEVER:
                vars(error)["retry_after"] = None  # it was for the policies
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
        """Return the error that stands for `response`; None where it is no failure."""
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
        responses: Those that are not closed.
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
        """Close every response but one."""
        for response in self.responses:
            if response is not but:
                await response.aclose()

    async def _close(self, response: httpx.Response) -> None:
        self._abandoned = None
        self.responses.remove(response)
        await response.aclose()


async def _buffer(stream: object, max_bytes: int) -> httpx.AsyncByteStream:
    """Return a stream of the same bytes, read and closed already where they are at most `max_bytes`."""
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
    """A stream whose first chunks were read already. It can be read once."""

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
