"""Commands of one loop tick share one round trip.

Whoever wants something of Redis during a tick of the event loop adds a command and gets a future; at the end
of the tick all that was added leaves as one pipeline. While `MAX_IN_FLIGHT` pipelines are under way the
next ones wait and grow, so that a burst costs fewer, larger round trips instead of more connections.

How long Redis may take is counted in short waits, between which the loop reads what has arrived. So a loop
that is itself late, under load, blames its lateness on nobody: Redis is slow when it is silent, wait after
wait, and not when its answer lies unread.

A command's time begins when it is added, wherever it then waits, and its end is its caller's affair alone;
but once one that was in a hurry has waited in vain, none of its kind waits any more until Redis has spoken.
A round trip's time begins when it leaves, and its end says that Redis is lost.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextvars import Context
from itertools import islice
from typing import NamedTuple, TypeAlias

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from src.storage.redis.connection import Command, RedisConnection, Reply, packed

RoundTripObserver: TypeAlias = Callable[[int, float], object]

MAX_IN_FLIGHT = 2
"""Round trips under way at once, those of long commands not counted: one that Redis works on, and one on its
way. Redis does one thing at a time, so that more would only be smaller."""

MAX_DEDICATED = 2
"""Long commands under way at once. Together with the others, the most connections one process opens."""

BUDGET_SECONDS = 0.25
"""How long a command that is `short_deadline` waits for its answer."""

_WAIT_SECONDS = 0.025

_Sending: TypeAlias = "asyncio.Future[list[Reply]]"


class _Pending(NamedTuple):
    commands: bytes
    replies: int
    future: "asyncio.Future[list[Reply]]"
    ends_at: float
    """Count of waits at which its caller is told that its time is over."""
    has_short_deadline: bool = False


class _RoundTrip(NamedTuple):
    batch: list[_Pending]
    replies: int
    wire: RedisConnection
    left_at: float
    ends_at: int
    """Count of waits at which it is given up."""


class Batcher:
    """Joins commands into pipelines.

    Args:
        pool: Makes the connections. They are kept here: to hand each back after its round trip, and be handed
            it again, would cost more than to talk to Redis.
        timeout_seconds: The longest a command may take from when it was added, and a round trip from when it
            left, connecting included.
        on_lost: Told, once for each round trip that found it so, that Redis cannot be reached or is silent;
            before the callers are, and even where they have all gone.
        observe: Told of each round trip that ended, well or not: its commands, and the seconds since it left.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        timeout_seconds: float,
        on_lost: Callable[[RedisError], object],
        observe: RoundTripObserver,
    ) -> None:
        self._pool = pool
        self._idle: list[RedisConnection] = []
        self._patience = _waits(timeout_seconds)
        self._on_lost = on_lost
        self._observe = observe
        self._waiting: list[_Pending] = []
        self._waiting_dedicated: deque[tuple[_Pending, int]] = deque()
        self._in_flight: dict[_Sending, _RoundTrip] = {}
        self._dedicated: dict[_Sending, _RoundTrip] = {}
        self._waits = 0
        self._flush_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        # Of whoever adds. Up to Python 3.11, to ask which one runs is a system call.
        self._loop: asyncio.AbstractEventLoop
        self._is_silent = False
        self.round_trips = 0

    def add(self, *commands: Command, short_deadline: bool = False) -> "asyncio.Future[list[Reply]]":
        """Send `commands` at the end of this tick, with nothing between them.

        Args:
            commands: Each its name and arguments.
            short_deadline: Fail the commands after `BUDGET_SECONDS`, or at once after others waited that
                long in vain.

        Returns:
            A future of their replies, of which each may be the server's refusal of that one command, a
            `RedisError`. It raises the error of the connection, which then all commands of the round trip
            share, or a `TimeoutError` of Redis when its time is over; what has not left by then never does.

        Raises:
            UnicodeEncodeError: An argument is text that can't be said, such as half a surrogate pair.
        """
        future = self._future()
        if short_deadline and self._is_silent:
            _fail(future, _over_budget())
            return future
        ends_at = self._waits + (_HURRIED_PATIENCE if short_deadline else self._patience)
        self._waiting.append(_Pending(packed(commands), len(commands), future, ends_at, short_deadline))
        self._flush_soon()
        return future

    def add_dedicated(self, *commands: Command, timeout_seconds: float) -> "asyncio.Future[list[Reply]]":
        """Send `commands` in a round trip of their own that may take `timeout_seconds` from when it leaves.

        At most `MAX_DEDICATED` of these are under way at once; the next ones wait for as long as it takes.
        While one is under way, other round trips that time out do not mean that Redis is lost.
        """
        future = self._future()
        pending = _Pending(packed(commands), len(commands), future, math.inf)
        self._waiting_dedicated.append((pending, _waits(timeout_seconds)))
        self._flush_soon()
        return future

    def abandon(self, error: RedisError) -> None:
        """Answer everything that has not left yet with `error`.

        Where that is a timeout, end what is under way too: it waits for the same silent server.
        """
        waiting = [*self._waiting, *(pending for pending, _ in self._waiting_dedicated)]
        self._waiting.clear()
        self._waiting_dedicated.clear()
        for pending in waiting:
            _fail(pending.future, error)
        if isinstance(error, RedisTimeoutError):
            for sending in (*self._in_flight, *self._dedicated):
                sending.cancel()

    async def aclose(self) -> None:
        """Wait for the round trips under way, and close every connection."""
        while under_way := (*self._in_flight, *self._dedicated):
            await asyncio.wait(under_way)
        if self._timer is not None:
            self._timer.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(wire.aclose() for wire in idle), return_exceptions=True)

    def _future(self) -> "asyncio.Future[list[Reply]]":
        self._loop = asyncio.get_running_loop()
        return self._loop.create_future()

    def _flush_soon(self) -> None:
        # Neither a round trip nor a wait belongs to the caller that happened to be first: clean contexts.
        if self._timer is None:
            self._timer = self._loop.call_later(_WAIT_SECONDS, self._end_wait, context=Context())
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush, context=Context())

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._waiting and len(self._in_flight) < MAX_IN_FLIGHT:
            batch, self._waiting = self._waiting, []
            self._begin(self._in_flight, batch, self._patience)
        while self._waiting_dedicated and len(self._dedicated) < MAX_DEDICATED:
            pending, patience = self._waiting_dedicated.popleft()
            if not pending.future.done():
                self._begin(self._dedicated, [pending], patience)

    def _begin(self, lane: dict[_Sending, _RoundTrip], batch: list[_Pending], patience: int) -> None:
        self.round_trips += 1
        commands = b"".join([pending.commands for pending in batch])
        replies = sum([pending.replies for pending in batch])
        wire = self._idle.pop() if self._idle else RedisConnection(self._pool)
        if wire.is_open:
            sending = wire.ask(commands, replies)
        else:
            sending = self._loop.create_task(wire.open_and_ask(commands, replies))
        lane[sending] = _RoundTrip(batch, replies, wire, self._loop.time(), self._waits + patience)
        sending.add_done_callback(self._landed)

    def _landed(self, sending: _Sending) -> None:
        trip = self._in_flight.pop(sending, None) or self._dedicated.pop(sending)
        self._idle.append(trip.wire)
        if error := self._error(sending):
            trip.wire.abort()
            for pending in trip.batch:
                _fail(pending.future, error)
        else:
            self._is_silent = False
            replies = iter(sending.result())
            for pending in trip.batch:
                own = list(islice(replies, pending.replies))
                if not pending.future.done():  # else its caller has gone
                    pending.future.set_result(own)
        self._flush()
        self._observe(trip.replies, self._loop.time() - trip.left_at)

    def _error(self, sending: _Sending) -> BaseException | None:
        """Return why a round trip came to nothing, and have it known if Redis is lost."""
        if sending.cancelled():
            return RedisTimeoutError("no answer in time")
        error = sending.exception()
        if isinstance(error, OSError):
            error = RedisConnectionError(str(error))
        # A timeout here is a connection that was not made in time; a long command may be why.
        lost = RedisConnectionError if self._dedicated else (RedisConnectionError, RedisTimeoutError)
        if isinstance(error, lost):
            self._on_lost(error)
        return error

    def _end_wait(self) -> None:
        """Count one more wait, and give up whatever has had its last."""
        self._waits += 1
        self._timer = None
        self._give_up_round_trips()
        batches = [self._waiting, *(trip.batch for trip in self._in_flight.values())]
        pending = [each for batch in batches for each in batch if not each.future.done()]
        self._is_silent |= any(each.has_short_deadline and each.ends_at <= self._waits for each in pending)
        for each in pending:
            if each.ends_at <= self._waits or (each.has_short_deadline and self._is_silent):
                _fail(each.future, _over_budget())
        # Whose caller has gone, for that or another reason, need not leave.
        self._waiting = [pending for pending in self._waiting if not pending.future.done()]
        if self._waiting or self._waiting_dedicated or self._in_flight or self._dedicated:
            self._timer = self._loop.call_later(_WAIT_SECONDS, self._end_wait)

    def _give_up_round_trips(self) -> None:
        over = {
            sending
            for lane in (self._in_flight, self._dedicated)
            for sending, trip in lane.items()
            if trip.ends_at <= self._waits
        }
        if over and over.issuperset(self._dedicated):  # else a long command may be what keeps Redis busy
            self._on_lost(RedisTimeoutError("no answer in time"))
        for sending in over:
            sending.cancel()


def _waits(seconds: float) -> int:
    return math.ceil(seconds / _WAIT_SECONDS)


_HURRIED_PATIENCE = _waits(BUDGET_SECONDS)


def _over_budget() -> RedisTimeoutError:
    return RedisTimeoutError("no answer within the budget")


def _fail(future: "asyncio.Future[Reply]", error: BaseException) -> None:
    if not future.done():  # else its caller has gone
        future.set_exception(error)
        future.exception()  # counts as seen, though its caller may not want it any more
