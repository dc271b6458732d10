"""A transport of httpx with one connection for each call, and a bound on what precedes an answer.

A connection is never used for a second call. A server may send more bytes than it announced: after the
length, after a 204, after the answer to a HEAD. On a connection that is used again those bytes would be read
as the answer to the next call, which is another caller's (RFC 9112, section 6.3). Nor is anything read as the
answer to a request that could not be sent whole.

A server may send any number of interim answers (1xx) before the final one. Parsing them occupies the event
loop, so a call fails once `MAX_HEAD_BYTES` have come without a final head.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from ssl import SSLContext

import httpcore
import httpx

MAX_HEAD_BYTES = 128 * 1024
"""The largest number of bytes that may come before the head of the final answer is complete."""

READ_BYTES = 16 * 1024
"""The largest number of bytes that are read, and so parsed, without a pause for other tasks."""


class SingleUseTransport(httpx.AsyncBaseTransport):
    """Opens a connection for each request and closes it after the response."""

    def __init__(self) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            httpx.create_ssl_context(trust_env=False),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_Backend(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return the response as soon as its head has come.

        Raises:
            httpx.TransportError: No connection, no response, or one that breaks the rules of HTTP.
        """
        url = request.url
        request.headers["Connection"] = "close"
        sent = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _httpx_errors():
            response = await self._pool.handle_async_request(sent)
        stream = response.extensions["network_stream"]
        if isinstance(stream, _Stream):  # after a 101 it is not
            stream.end_head()
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    async def aclose(self) -> None:
        """Close the connections of all running calls."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of a response."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _httpx_errors():
            async for chunk in self._response.aiter_stream():
                yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that counts the bytes read until `end_head` is called."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._head_bytes: int | None = 0

    def end_head(self) -> None:
        """Allow any number of bytes from now on."""
        self._head_bytes = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        received = await self._stream.read(min(max_bytes, READ_BYTES), timeout)
        if self._head_bytes is not None:
            self._head_bytes += len(received)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise httpcore.RemoteProtocolError(f"no answer within {MAX_HEAD_BYTES} bytes")
        return received

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.write(buffer, timeout)
        except httpcore.WriteError as error:  # httpcore would read a response after this error
            raise httpcore.NetworkError("the request could not be sent whole") from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens connections that count what they read."""

    def __init__(self) -> None:
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))


@contextmanager
def _httpx_errors() -> Iterator[None]:
    """Raise the errors of httpcore as an error of httpx, whose message names the error."""
    try:
        yield
    except (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.TimeoutException,
        httpcore.UnsupportedProtocol,
    ) as error:
        raise httpx.TransportError(f"{type(error).__name__}: {error}") from error
