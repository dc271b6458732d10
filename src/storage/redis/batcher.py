"""Batching: the commands of one tick of the event loop share one round trip.

A caller adds a command during a tick of the event loop and gets a future. At the end of the tick, the batcher
sends all added commands as one pipeline. While `MAX_IN_FLIGHT` pipelines are running, further commands wait
and form the next pipeline. A burst therefore causes fewer, larger round trips and no additional connections.

Timeouts are counted in short waits. The event loop reads the replies that have arrived between two waits. An
event loop that is late under load therefore does not report a timeout while the reply is already in its
buffer.

The timeout of a command starts when the command is added, and fails only its caller. After one command with a
short deadline has timed out, all commands with a short deadline fail at once until Redis answers. The timeout
of a round trip starts when it is sent. Its expiry means that Redis is unavailable.

An error while a round trip begins, is sent or is answered fails every caller in the round trip.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TypeAlias

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from src.storage.redis.connection import Command, RedisConnection, pack_commands
from src.storage.redis.round_trip import PendingCommands, Replies, RoundTrip, fail, round_trip_error

RoundTripObserver: TypeAlias = Callable[[int, float], object]

MAX_IN_FLIGHT = 2
"""The largest number of running round trips, without those of long commands: Redis executes one while the
other is on the network. Redis executes one command at a time, so more round trips would only be smaller."""

MAX_DEDICATED = 2
"""The largest number of running long commands. A process opens at most `MAX_IN_FLIGHT + MAX_DEDICATED`
connections."""

BUDGET_SECONDS = 0.25
"""The timeout of a command with a short deadline."""

_WAIT_SECONDS = 0.025
_TICK_SECONDS = 0.005
_SILENT_TICKS = 3
"""The number of ticks without a reply after which Redis counts as silent: at least one whole tick has then
passed. The first tick may follow the sending immediately, and the replies present at the second tick are read
before the third."""


class Batcher:
    """Joins commands into pipelines.

    Args:
        pool: Makes the connections. The batcher keeps them open: returning a connection to the pool would
            cost more than a round trip.
        timeout_seconds: The timeout of a command, counted from when it is added, and of a round trip, counted
            from when it is sent. The time to open a connection is included.
        on_lost: Called with the error once for each round trip that failed because Redis was silent or
            unreachable. The call comes before the callers get their error, even if no caller is waiting.
        observe: Called after each round trip with the number of its commands and its duration in seconds.
        on_silence: Called every `_TICK_SECONDS` while Redis has not replied for about 10 ms.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        timeout_seconds: float,
        on_lost: Callable[[RedisError], object],
        observe: RoundTripObserver,
        on_silence: Callable[[], object] = lambda: None,
    ) -> None:
        self._pool = pool
        self._idle: list[RedisConnection] = []
        self._timeout_waits = _waits(timeout_seconds)
        self._on_lost = on_lost
        self._observe = observe
        self._on_silence = on_silence
        self._waiting: list[PendingCommands] = []
        self._waiting_dedicated: deque[tuple[PendingCommands, int]] = deque()
        self._in_flight: dict[Replies, RoundTrip] = {}
        self._dedicated: dict[Replies, RoundTrip] = {}
        self._waits = 0
        self._wait_began_at = 0.0
        self._silent_ticks = 0
        self._flush_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop: (
            asyncio.AbstractEventLoop
        )  # that of the last caller: get_running_loop is slow in Python 3.11
        self._is_silent = False
        self.round_trips = 0

    def add(self, *commands: Command, short_deadline: bool = False) -> Replies:
        """Send `commands` at the end of this tick. No other command comes between them.

        Args:
            commands: The name and the arguments of each command.
            short_deadline: Fail the commands after `BUDGET_SECONDS`. They fail at once if another command
                with a short deadline has timed out and Redis has not answered since.

        Returns:
            A future of the replies. A reply is a `RedisError` if the server refused that command. The future
            raises a `RedisError` if the connection failed, and redis-py's `TimeoutError` if the commands
            timed out. Commands that time out before they are sent are never sent.

        Raises:
            UnicodeEncodeError: An argument cannot be encoded as UTF-8, such as half a surrogate pair.
        """
        future = self._new_future()
        if short_deadline and self._is_silent:
            fail(future, _short_deadline_timeout())
            return future
        ends_at = self._waits + (_BUDGET_WAITS if short_deadline else self._timeout_waits)
        self._waiting.append(
            PendingCommands(pack_commands(commands), len(commands), future, ends_at, short_deadline)
        )
        self._flush_soon()
        return future

    def add_dedicated(self, *commands: Command, timeout_seconds: float) -> Replies:
        """Send long commands in a separate round trip.

        At most `MAX_DEDICATED` such round trips are running. Further ones wait without a timeout. While
        such a round trip is running, a timeout of another round trip does not mean that Redis is
        unavailable.

        Args:
            commands: The name and the arguments of each command.
            timeout_seconds: The timeout of the round trip, counted from when it is sent.

        Returns:
            A future of the replies, as for `add`.

        Raises:
            UnicodeEncodeError: As for `add`.
        """
        future = self._new_future()
        pending = PendingCommands(pack_commands(commands), len(commands), future, math.inf)
        self._waiting_dedicated.append((pending, _waits(timeout_seconds)))
        self._flush_soon()
        return future

    def abandon(self, error: RedisError) -> None:
        """Fail the commands that have not been sent yet with `error`.

        If `error` is a timeout, also fail the running round trips and close every connection: all
        connections lead to the same silent server.
        """
        waiting = [*self._waiting, *(pending for pending, _ in self._waiting_dedicated)]
        self._waiting.clear()
        self._waiting_dedicated.clear()
        for pending in waiting:
            fail(pending.future, error)
        if isinstance(error, RedisTimeoutError):
            for sending in (*self._in_flight, *self._dedicated):
                sending.cancel()
            self.reconnect()

    def reconnect(self) -> None:
        """Use new connections from now on. The running round trips finish on their old connections."""
        for connection in self._idle:
            connection.abort()
        for trip in (*self._in_flight.values(), *self._dedicated.values()):
            trip.connection.retire()

    async def aclose(self) -> None:
        """Wait until every added command is finished, then close every connection."""
        while unfinished := self._unfinished():
            await asyncio.wait(unfinished)
        self._waiting.clear()
        self._waiting_dedicated.clear()
        if self._timer is not None:
            self._timer.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.aclose() for connection in idle), return_exceptions=True)

    def _unfinished(self) -> list[Replies]:
        """Return the futures of the running round trips, and of unsent commands with waiting callers."""
        waiting = [*self._waiting, *(pending for pending, _ in self._waiting_dedicated)]
        futures = [pending.future for pending in waiting if not pending.future.done()]
        return [*self._in_flight, *self._dedicated, *futures]

    def _new_future(self) -> Replies:
        self._loop = asyncio.get_running_loop()
        return self._loop.create_future()

    def _flush_soon(self) -> None:
        # The callbacks serve several callers: they must not inherit the context variables of the first one.
        if self._timer is None:
            self._silent_ticks = 0
            self._wait_began_at = self._loop.time()
            self._timer = self._loop.call_later(_TICK_SECONDS, self._tick, context=Context())
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush, context=Context())

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._waiting and len(self._in_flight) < MAX_IN_FLIGHT:
            batch, self._waiting = self._waiting, []
            self._begin(self._in_flight, batch, self._timeout_waits)
        while self._waiting_dedicated and len(self._dedicated) < MAX_DEDICATED:
            pending, timeout_waits = self._waiting_dedicated.popleft()
            if not pending.future.done():
                self._begin(self._dedicated, [pending], timeout_waits)

    def _begin(
        self, trips: dict[Replies, RoundTrip], batch: list[PendingCommands], timeout_waits: int
    ) -> None:
        self.round_trips += 1
        connection = None
        try:
            commands = b"".join([pending.commands for pending in batch])
            replies = sum([pending.replies for pending in batch])
            connection = self._idle.pop() if self._idle else RedisConnection(self._pool)
            if connection.is_open:
                sending = connection.send(commands, replies)
            else:
                sending = self._loop.create_task(connection.open_and_send(commands, replies))
            ends_at = self._waits + timeout_waits
            trips[sending] = RoundTrip(batch, replies, connection, self._loop.time(), ends_at)
            sending.add_done_callback(self._end_round_trip)
        except BaseException as error:
            if connection is not None:
                self._close(connection)
            self._fail_batch(batch, error)
            if not isinstance(error, Exception):
                raise

    def _end_round_trip(self, sending: Replies) -> None:
        trip = self._in_flight.pop(sending, None) or self._dedicated.pop(sending)
        try:
            if sending.cancelled():  # it timed out, and `on_lost` was called
                self._close(trip.connection)
                for pending in trip.batch:
                    fail(pending.future, _round_trip_timeout())
            elif (error := sending.exception()) is not None:
                self._close(trip.connection)
                self._fail_batch(trip.batch, error)
            else:
                self._idle.append(trip.connection)
                self._is_silent = False
                self._silent_ticks = 0
                trip.finish(sending.result())
        finally:
            self._flush()
        self._observe(trip.replies, self._loop.time() - trip.sent_at)

    def _close(self, connection: RedisConnection) -> None:
        connection.abort()
        self._idle.insert(0, connection)  # at the front: open connections are taken first, from the end

    def _fail_batch(self, batch: list[PendingCommands], cause: BaseException) -> None:
        """Call `on_lost`, then fail the callers of a round trip even if `on_lost` raises."""
        error = round_trip_error(cause)
        try:
            # A long command can be the reason for a timeout while connecting.
            if not (self._dedicated and isinstance(error, RedisTimeoutError)):
                self._on_lost(error)
        finally:
            for pending in batch:
                fail(pending.future, error)

    def _tick(self) -> None:
        """Count the ticks without a reply, and end a wait when it is over.

        Repeat while commands are unfinished.
        """
        self._timer = None
        now = self._loop.time()
        try:
            if self._in_flight:
                self._silent_ticks += 1
            if self._silent_ticks >= _SILENT_TICKS:
                self._on_silence()
            if now - self._wait_began_at >= _WAIT_SECONDS:
                self._wait_began_at = now
                self._end_wait()
        finally:
            if self._waiting or self._waiting_dedicated or self._in_flight or self._dedicated:
                self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)

    def _end_wait(self) -> None:
        """Count one more wait, and fail the round trips and commands that have timed out."""
        self._waits += 1
        self._cancel_overdue_round_trips()
        batches = [self._waiting, *(trip.batch for trip in self._in_flight.values())]
        pending = [each for batch in batches for each in batch if not each.future.done()]
        self._is_silent |= any(each.has_short_deadline and each.ends_at <= self._waits for each in pending)
        for each in pending:
            if each.ends_at <= self._waits or (each.has_short_deadline and self._is_silent):
                fail(each.future, _short_deadline_timeout())
        # Commands without a waiting caller are not sent.
        self._waiting = [pending for pending in self._waiting if not pending.future.done()]

    def _cancel_overdue_round_trips(self) -> None:
        overdue = {
            sending
            for trips in (self._in_flight, self._dedicated)
            for sending, trip in trips.items()
            if trip.ends_at <= self._waits
        }
        try:
            # A long command whose time is not over can be the reason for the timeout of another round trip.
            if overdue and overdue.issuperset(self._dedicated):
                self._on_lost(_round_trip_timeout())
        finally:
            for sending in overdue:
                sending.cancel()


def _waits(seconds: float) -> int:
    return math.ceil(seconds / _WAIT_SECONDS)


_BUDGET_WAITS = _waits(BUDGET_SECONDS)


def _short_deadline_timeout() -> RedisTimeoutError:
    return RedisTimeoutError(f"no answer within {BUDGET_SECONDS:g} s")


def _round_trip_timeout() -> RedisTimeoutError:
    return RedisTimeoutError("no answer in time")
