"""A connection to Redis: commands out, replies in.

redis-py opens the connection, authenticates, encrypts and closes it. In between, the bytes that arrive go
from the transport to hiredis, and the replies to the caller, without streams or coroutines (docs/adr/0008).
"""

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from src.resilience.redis.failures import reply_error
from src.resilience.redis.port import Argument, Reply

Command: TypeAlias = tuple[Argument, ...]

_INCOMPLETE = object()


class RedisConnection:
    """One connection: one round trip at a time. It is opened again where it was lost.

    Args:
        pool: Makes the connection of redis-py.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        self._protocol: ReplyProtocol | None = None

    @property
    def is_open(self) -> bool:
        """Whether `send` may be called; otherwise it takes `open_and_send`."""
        return self._protocol is not None and self._protocol.is_open

    def retire(self) -> None:
        """Let the round trip under way end, and connect again for the next one."""
        if self._protocol is not None:
            self._protocol.is_open = False

    def send(self, commands: bytes, replies: int) -> "asyncio.Future[list[Reply]]":
        """Send `commands`, as `packed` returns them.

        Returns:
            A future of the `replies` replies, of which each may be a `ResponseError`. The future raises
            redis-py's `ConnectionError` where the connection is lost. A caller that cancels it must `abort`.
        """
        assert self._protocol is not None
        return self._protocol.send(commands, replies)

    async def open_and_send(self, commands: bytes, replies: int) -> list[Reply]:
        """Connect, and `send`. The name of the host is looked up each time.

        Raises:
            Exception: The connection could not be made: an error of redis-py, of the system or of Redis.
        """
        # An earlier connection was lost, or given up while it was made: its reply to AUTH may still come.
        await self._connection.disconnect(nowait=True)
        await self._connection.connect()  # type: ignore[no-untyped-call]
        await _next_turn()
        if await self._connection.can_read():  # Redis refuses before the first command: too many clients, …
            raise RedisConnectionError(str(await self._streamed()))
        transport = getattr(self._connection._writer, "transport", None)  # noqa: SLF001 -- there is no public way
        if transport is None:  # fakeredis has none
            await self._connection.send_packed_command(commands, check_health=False)
            return [await self._streamed() for _ in range(replies)]
        self._protocol = ReplyProtocol(transport)
        return await self._protocol.send(commands, replies)

    def abort(self) -> None:
        """Close the connection at once, and fail the round trip under way."""
        if self._protocol is not None:
            self._protocol.abort()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.disconnect()

    async def _streamed(self) -> Reply:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error


class ReplyProtocol(asyncio.Protocol):
    """Reads the replies from a transport that redis-py has opened.

    Attributes:
        is_open: Whether commands can be sent.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.is_open = True
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._streams = transport.get_protocol()  # redis-py's own, which it waits for when it disconnects
        transport.set_protocol(self)
        self._reader = hiredis.Reader(
            protocolError=RedisConnectionError,
            replyError=reply_error,
            notEnoughData=_INCOMPLETE,
        )
        self._future: asyncio.Future[list[Reply]] | None = None
        self._replies: list[Reply] = []
        self._expected = 0

    def send(self, commands: bytes, replies: int) -> "asyncio.Future[list[Reply]]":
        """Send `commands` and return a future of their `replies` replies."""
        self._future = future = self._loop.create_future()
        self._replies, self._expected = [], replies
        self._transport.write(commands)
        return future

    def abort(self) -> None:
        """Close the connection and fail the caller that waits."""
        self._lose(RedisConnectionError("given up"))

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and finish the round trip when all replies have arrived."""
        if self._future is None:
            self._lose(_unexpected_reply())
            return
        self._reader.feed(data)
        try:
            while len(self._replies) < self._expected:
                reply = self._reader.gets(False)
                if reply is _INCOMPLETE:
                    return
                self._replies.append(reply)
                if isinstance(reply, RedisConnectionError):  # no reply, but the reason why none will come
                    raise reply
        except RedisConnectionError as error:
            self._lose(error)
            return
        future, self._future = self._future, None
        if not future.done():  # else it was given up
            future.set_result(self._replies)
        if not self.is_open:  # retired meanwhile
            self._transport.abort()
        elif self._reader.has_data():
            self._lose(_unexpected_reply())

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the caller that waits."""
        self._lose(RedisConnectionError(f"connection lost: {error or 'closed by Redis'}"))
        self._streams.connection_lost(error)

    def _lose(self, error: RedisConnectionError) -> None:
        self.is_open = False
        self._transport.abort()
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_exception(error)


def packed(commands: Sequence[Command]) -> bytes:
    """Return `commands` as Redis reads them. Raises UnicodeEncodeError where text has no UTF-8 form."""
    return b"".join(map(hiredis.pack_command, commands))  # type: ignore[arg-type]


async def _next_turn() -> None:
    """Wait for a turn of the event loop, in which it reads what has arrived."""
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()
    loop.call_soon(turn.cancel)
    await asyncio.wait([turn])


def _unexpected_reply() -> RedisConnectionError:
    return RedisConnectionError("Redis sent a reply to no command")
