"""An address that can be moved to another server while connections are open, like in a failover."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Relay:
    """Connects each new connection to the unix socket `target`.

    Attributes:
        target: The socket for new connections. Open connections keep theirs.
        opened: The number of connections opened so far.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.opened = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        there, back = await asyncio.open_unix_connection(self.target)
        self._tasks |= {
            asyncio.create_task(_pass_on(reader, back)),
            asyncio.create_task(_pass_on(there, writer)),
        }

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def running_relay(target: Path) -> AsyncIterator[Relay]:
    relay = Relay(target)
    listening = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = listening.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        listening.close()
        await relay.aclose()
