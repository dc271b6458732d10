"""A connection to Redis that sends commands and reads replies.

redis-py opens, authenticates, encrypts and closes the connection. Between opening and closing,
`ReplyProtocol` passes the received bytes from the transport directly to the hiredis parser. This avoids the
cost of streams and coroutines (docs/adr/0008).
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
    """One connection, which carries one round trip at a time. After a loss it can be opened again.

    Args:
        pool: The pool that creates the redis-py connection.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        self._protocol: ReplyProtocol | None = None

    @property
    def is_open(self) -> bool:
        """Whether the connection is open. Call `send` if it is, and `open_and_send` if it is not."""
        return self._protocol is not None and self._protocol.is_open

    def retire(self) -> None:
        """Close the connection after the running round trip. The next round trip opens a new one."""
        if self._protocol is not None:
            self._protocol.is_open = False

    def send(self, commands: bytes, replies: int) -> "asyncio.Future[list[Reply]]":
        """Send `commands` on an open connection.

        Args:
            commands: The commands in the form that `pack_commands` returns.
            replies: The number of their replies.

        Returns:
            A future of the replies. Each reply may be a `ResponseError`. The future raises redis-py's
            `ConnectionError` if the connection is lost. A caller that cancels the future must call `abort`.
        """
        assert self._protocol is not None
        return self._protocol.send(commands, replies)

    async def open_and_send(self, commands: bytes, replies: int) -> list[Reply]:
        """Open the connection, then send `commands` as `send` does. Each call resolves the host name again.

        Raises:
            Exception: The connection could not be opened. The error is one of redis-py, of the system or of
                Redis.
        """
        # A connection attempt may have been cancelled before its reply to AUTH arrived. Close it first.
        await self._connection.disconnect(nowait=True)
        await self._connection.connect()  # type: ignore[no-untyped-call]
        await _wait_one_loop_cycle()
        # Redis sent an error before the first command: too many clients, …
        if await self._connection.can_read():
            raise RedisConnectionError(str(await self._read_reply()))
        transport = getattr(self._connection._writer, "transport", None)  # noqa: SLF001 -- no public attribute
        if transport is None:  # fakeredis has no transport
            await self._connection.send_packed_command(commands, check_health=False)
            return [await self._read_reply() for _ in range(replies)]
        self._protocol = ReplyProtocol(transport)
        return await self._protocol.send(commands, replies)

    def abort(self) -> None:
        """Close the connection at once, and fail the running round trip."""
        if self._protocol is not None:
            self._protocol.abort()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.disconnect()

    async def _read_reply(self) -> Reply:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error


class ReplyProtocol(asyncio.Protocol):
    """Parses the replies that arrive on a transport of redis-py.

    Args:
        transport: An open transport. Its protocol is replaced by this one.

    Attributes:
        is_open: Whether commands can be sent.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.is_open = True
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._redis_py_protocol = transport.get_protocol()  # redis-py waits for its end when it disconnects
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
        """Close the connection, and fail the caller that waits."""
        self._fail(RedisConnectionError("the connection was closed by this service"))

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and finish the round trip when all replies have arrived."""
        if self._future is None:
            self._fail(_unexpected_reply())
            return
        self._reader.feed(data)
        try:
            while len(self._replies) < self._expected:
                reply = self._reader.gets(False)
                if reply is _INCOMPLETE:
                    return
                self._replies.append(reply)
                if isinstance(reply, RedisConnectionError):
                    raise reply  # the reason why the server closes the connection
        except RedisConnectionError as error:
            self._fail(error)
            return
        future, self._future = self._future, None
        if not future.done():  # a future that is done was cancelled
            future.set_result(self._replies)
        if not self.is_open:  # `retire` was called during the round trip
            self._transport.abort()
        elif self._reader.has_data():
            self._fail(_unexpected_reply())

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the caller that waits."""
        self._fail(RedisConnectionError(f"connection lost: {error or 'closed by Redis'}"))
        self._redis_py_protocol.connection_lost(error)

    def _fail(self, error: RedisConnectionError) -> None:
        self.is_open = False
        self._transport.abort()
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_exception(error)


def pack_commands(commands: Sequence[Command]) -> bytes:
    """Return `commands` in the Redis protocol.

    Raises:
        UnicodeEncodeError: A text cannot be encoded as UTF-8, such as half a surrogate pair.
    """
    return b"".join(map(hiredis.pack_command, commands))  # type: ignore[arg-type]


async def _wait_one_loop_cycle() -> None:
    """Wait for one cycle of the event loop, which reads the bytes that have arrived."""
    loop = asyncio.get_running_loop()
    next_cycle: asyncio.Future[None] = loop.create_future()
    loop.call_soon(next_cycle.cancel)
    await asyncio.wait([next_cycle])


def _unexpected_reply() -> RedisConnectionError:
    return RedisConnectionError("Redis sent a reply without a command")
