"""HTTP as bytes on a connection, for requests that no client library sends."""

import asyncio
import contextlib
import re
from typing import NamedTuple


class RawAnswer(NamedTuple):
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the headers announce that the server closes the connection."""
        return self.headers.get("connection") == "close"


class RawConnection:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "RawConnection":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, *pieces: bytes) -> None:
        """Send each piece separately, so that the server receives them one after another."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0.05)

    async def answer(self, *, has_body: bool = True) -> RawAnswer:
        """Read the next answer."""
        async with asyncio.timeout(10):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            found = re.match(r"HTTP/1\.1 (\d{3})", status_line)
            assert found, status_line
            body = await self._reader.readexactly(int(headers.get("content-length", 0))) if has_body else b""
        return RawAnswer(int(found[1]), headers, body)

    async def ends(self) -> bytes:
        """Return the bytes until the server closes the connection, which it must do without a reset."""
        async with asyncio.timeout(10):
            return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def exchange(port: int, *pieces: bytes) -> RawAnswer:
    """Send `pieces` over a new connection, and return the answer."""
    connection = await RawConnection.open(port)
    try:
        await connection.send(*pieces)
        return await connection.answer()
    finally:
        await connection.close()
