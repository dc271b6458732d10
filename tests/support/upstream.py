"""An upstream for tests: plain HTTP/1.1 over a socket, which records the arrival of each request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

Answer = Callable[["Upstream", str, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """A running upstream.

    Attributes:
        url: The URL.
        connections: The number of accepted connections.
        arrivals: The time (of the event loop) and the request line of each request, in order.
        headers: Header lines of each request, in lower case.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.url = ""
        self.connections = 0
        self.arrivals: list[tuple[float, str]] = []
        self.headers: list[list[str]] = []

    @property
    def gaps(self) -> list[float]:
        """The seconds between each request and the next."""
        times = [at for at, _ in self.arrivals]
        return [later - earlier for earlier, later in pairwise(times)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *headers = head.decode().strip().split("\r\n")
                self.arrivals.append((asyncio.get_running_loop().time(), line))
                self.headers.append([header.lower() for header in headers])
                await self._answer(self, line, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def echo(_upstream: Upstream, line: str, writer: asyncio.StreamWriter) -> None:
    """Answer with the request line."""
    body = b"" if line.startswith("HEAD") else line.encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(line), body))


@asynccontextmanager
async def running_upstream(answer: Answer = echo, *, serve: Serve | None = None) -> AsyncIterator[Upstream]:
    """Run an upstream on a free port. `serve` handles each connection instead of `Upstream.serve`."""
    upstream = Upstream(answer)
    server = await asyncio.start_server(serve or upstream.serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
