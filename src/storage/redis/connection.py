"""A connection to Redis: commands out, replies in.

redis-py opens it, authenticates, encrypts and closes it. In between, what arrives goes from the transport to
hiredis, and from there to whoever waits, with neither streams nor coroutines on the way (docs/adr/0008).
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from src.storage.redis.failures import leaves_transaction_open, reply_error

Argument: TypeAlias = bytes | str | int | float
Command: TypeAlias = tuple[Argument, ...]
Reply: TypeAlias = Any
"""What RESP2 can say: bytes, int, None, or a list of these. Each store narrows its own replies."""

_INCOMPLETE = object()


class RedisConnection:
    """One connection, which does one round trip at a time, and is made anew where it was lost.

    Args:
        pool: Makes the connection, and makes sure that it is fit for use.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        self._end: ReplyProtocol | None = None

    @property
    def is_open(self) -> bool:
        """Whether `ask` may be called; otherwise it takes `open_and_ask`."""
        return self._end is not None and self._end.is_open

    def retire(self) -> None:
        """Let the round trip under way end, and connect again for the next one."""
        if self._end is not None:
            self._end.is_open = False

    def ask(self, commands: bytes, replies: int) -> "asyncio.Future[list[Reply]]":
        """Send commands, as `packed` has them, and await so many replies.

        Returns:
            A future of the replies, of which each may be a `ResponseError`. It raises redis-py's
            `ConnectionError` where the connection is lost. Who cancels it has to `abort`.
        """
        assert self._end is not None
        return self._end.ask(commands, replies)

    async def open_and_ask(self, commands: bytes, replies: int) -> list[Reply]:
        """Connect, and `ask`. The host's name is looked up each time.

        Raises:
            Exception: Whatever kept the connection from being made: redis-py, the system and Redis each have
                their own.
        """
        if self._end is not None:  # an earlier connection, lost or retired
            await self._connection.disconnect(nowait=True)
        await self._connection.connect()  # type: ignore[no-untyped-call]
        await _next_turn()
        if await self._connection.can_read():  # Redis refuses before it is asked: it has too many clients, …
            raise RedisConnectionError(str(await self._streamed()))
        transport = getattr(self._connection._writer, "transport", None)  # noqa: SLF001 -- told nowhere else
        if transport is None:  # of a fakeredis
            await self._connection.send_packed_command(commands, check_health=False)
            return [await self._streamed() for _ in range(replies)]
        self._end = ReplyProtocol(transport)
        return await self._end.ask(commands, replies)

    def abort(self) -> None:
        """Give up whatever is still to come."""
        if self._end is not None:
            self._end.abort()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.disconnect()

    async def _streamed(self) -> Reply:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error


class ReplyProtocol(asyncio.Protocol):
    """Our end of a transport that redis-py has opened.

    Attributes:
        is_open: Whether it can be asked.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.is_open = True
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._streams = transport.get_protocol()  # redis-py's end, which it waits for when it disconnects
        transport.set_protocol(self)
        self._reader = hiredis.Reader(
            protocolError=RedisConnectionError,
            replyError=reply_error,
            notEnoughData=_INCOMPLETE,
        )
        self._answer: asyncio.Future[list[Reply]] | None = None
        self._replies: list[Reply] = []
        self._wanted = 0

    def ask(self, commands: bytes, replies: int) -> "asyncio.Future[list[Reply]]":
        """Send `commands` and return a future of their `replies` replies."""
        self._answer = answer = self._loop.create_future()
        self._replies, self._wanted = [], replies
        self._transport.write(commands)
        return answer

    def abort(self) -> None:
        """Close the connection and fail the caller that waits."""
        self._lose(RedisConnectionError("given up"))

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and finish the answer when all replies have arrived."""
        if self._answer is None:
            self._lose(_unasked())
            return
        self._reader.feed(data)
        try:
            while len(self._replies) < self._wanted:
                reply = self._reader.gets(False)
                if reply is _INCOMPLETE:
                    return
                self._replies.append(reply)
                if isinstance(reply, RedisError):
                    self._take_error(reply)
        except RedisConnectionError as error:
            self._lose(error)
            return
        answer, self._answer = self._answer, None
        if not answer.done():  # else it was given up
            answer.set_result(self._replies)
        if not self.is_open:  # retired meanwhile
            self._transport.abort()
        elif self._reader.has_data():
            self._lose(_unasked())

    def _take_error(self, error: RedisError) -> None:
        """Act on an error that concerns more than its own command."""
        if isinstance(error, RedisConnectionError):  # no reply, but the reason why none will come
            raise error
        if leaves_transaction_open(error):  # what follows is not run: its replies would be "QUEUED"
            self._replies += [error] * (self._wanted - len(self._replies))
            self.is_open = False

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the caller that waits."""
        self._lose(RedisConnectionError(f"connection lost: {error or 'closed by Redis'}"))
        self._streams.connection_lost(error)

    def _lose(self, error: RedisConnectionError) -> None:
        self.is_open = False
        self._transport.abort()
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)


def packed(commands: Sequence[Command]) -> bytes:
    """Return `commands` as Redis reads them. Raises UnicodeEncodeError of text that is none."""
    return b"".join(map(hiredis.pack_command, commands))  # type: ignore[arg-type]


async def _next_turn() -> None:
    """Wait for a turn of the event loop, in which it reads what has arrived."""
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()
    loop.call_soon(turn.cancel)
    await asyncio.wait([turn])


def _unasked() -> RedisConnectionError:
    return RedisConnectionError("Redis spoke unasked")
