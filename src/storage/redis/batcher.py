"""Commands of one loop tick share one round trip.

A caller adds a command during a tick of the event loop and gets a future. At the end of the tick all commands
that were added leave as one pipeline. While `MAX_IN_FLIGHT` pipelines are under way the next commands wait
and gather, so that a burst costs fewer, larger round trips instead of more connections.

How long Redis may take is counted in short waits, between which the loop reads what has arrived. So a loop
that is late under load does not blame Redis: Redis is slow when it is silent, wait after wait, and not when
its reply has arrived and is not read yet.

Each command's timeout starts when the command is added and fails only its caller. After one command with a
short deadline timed out, all of that kind fail at once until Redis answers. A round trip's timeout starts
when it leaves, and its end means that Redis is lost.

Whatever goes wrong when a round trip begins, is sent or is answered reaches every caller in it.
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

from src.storage.redis.connection import Command, RedisConnection, packed
from src.storage.redis.round_trip import PendingCommands, Replies, RoundTrip, fail, round_trip_error

RoundTripObserver: TypeAlias = Callable[[int, float], object]

MAX_IN_FLIGHT = 2
"""Round trips under way at once, those of long commands not counted: one that Redis works on, and one on its
way. Redis does one thing at a time, so that more would only be smaller."""

MAX_DEDICATED = 2
"""Long commands under way at once. Together with the others, the most connections one process opens."""

BUDGET_SECONDS = 0.25
"""How long a command that is `short_deadline` waits for its answer."""

_WAIT_SECONDS = 0.025
_TICK_SECONDS = 0.005
_SILENT_TICKS = 3
"""Ticks without a reply after which Redis counts as silent. A round trip may have left just before the first
tick, and by the third the loop has read what had arrived at the second: the silence lasted for a tick."""


class Batcher:
    """Joins commands into pipelines.

    Args:
        pool: Makes the connections. They are kept here: to give each back after its round trip would cost
            more than the round trip.
        timeout_seconds: The longest a command may take from when it was added, and a round trip from when it
            left, connecting included.
        on_lost: Called once for each round trip that found Redis silent or not to be reached, before its
            callers get their error, and even if none of them waits any more.
        observe: Called after each round trip, failed or not, with its number of commands and its seconds.
        on_silence: Called every `_TICK_SECONDS` while there has been no reply for some 10 ms.
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
        # Of whoever adds. Up to Python 3.11, to ask which one runs is a system call.
        self._loop: asyncio.AbstractEventLoop
        self._is_silent = False
        self.round_trips = 0

    def add(self, *commands: Command, short_deadline: bool = False) -> Replies:
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
            fail(future, _over_budget())
            return future
        ends_at = self._waits + (_BUDGET_WAITS if short_deadline else self._timeout_waits)
        self._waiting.append(
            PendingCommands(packed(commands), len(commands), future, ends_at, short_deadline)
        )
        self._flush_soon()
        return future

    def add_dedicated(self, *commands: Command, timeout_seconds: float) -> Replies:
        """Send `commands` in a round trip of their own that may take `timeout_seconds` from when it leaves.

        At most `MAX_DEDICATED` of these are under way at once; the next ones wait for as long as it takes.
        While one is under way, other round trips that time out do not mean that Redis is lost.
        """
        future = self._future()
        pending = PendingCommands(packed(commands), len(commands), future, math.inf)
        self._waiting_dedicated.append((pending, _waits(timeout_seconds)))
        self._flush_soon()
        return future

    def abandon(self, error: RedisError) -> None:
        """Answer everything that has not left yet with `error`.

        Where that is a timeout, end what is under way too, and every connection: all of them lead to the same
        silent server, or to none.
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
        """Use new connections from now on. The round trips under way end on those that they left by."""
        for wire in self._idle:
            wire.abort()
        for trip in (*self._in_flight.values(), *self._dedicated.values()):
            trip.wire.retire()

    async def aclose(self) -> None:
        """Wait for every command that was added, and close every connection."""
        while unfinished := self._unfinished():
            await asyncio.wait(unfinished)
        self._waiting.clear()
        self._waiting_dedicated.clear()
        if self._timer is not None:
            self._timer.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(wire.aclose() for wire in idle), return_exceptions=True)

    def _unfinished(self) -> list[Replies]:
        """Return the round trips under way, and the commands that have not left and are still waited for."""
        waiting = [*self._waiting, *(pending for pending, _ in self._waiting_dedicated)]
        futures = [pending.future for pending in waiting if not pending.future.done()]
        return [*self._in_flight, *self._dedicated, *futures]

    def _future(self) -> Replies:
        self._loop = asyncio.get_running_loop()
        return self._loop.create_future()

    def _flush_soon(self) -> None:
        # Neither a round trip nor a wait belongs to the caller that happened to be first: clean contexts.
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
        self, lane: dict[Replies, RoundTrip], batch: list[PendingCommands], timeout_waits: int
    ) -> None:
        self.round_trips += 1
        wire = None
        try:
            commands = b"".join([pending.commands for pending in batch])
            replies = sum([pending.replies for pending in batch])
            wire = self._idle.pop() if self._idle else RedisConnection(self._pool)
            if wire.is_open:
                sending = wire.send(commands, replies)
            else:
                sending = self._loop.create_task(wire.open_and_send(commands, replies))
            lane[sending] = RoundTrip(batch, replies, wire, self._loop.time(), self._waits + timeout_waits)
            sending.add_done_callback(self._end_round_trip)
        except BaseException as error:
            if wire is not None:
                self._drop(wire)
            self._fail_batch(batch, error)
            if not isinstance(error, Exception):
                raise

    def _end_round_trip(self, sending: Replies) -> None:
        trip = self._in_flight.pop(sending, None) or self._dedicated.pop(sending)
        try:
            if sending.cancelled():  # given up, which has been reported
                self._drop(trip.wire)
                for pending in trip.batch:
                    fail(pending.future, RedisTimeoutError("no answer in time"))
            elif (error := sending.exception()) is not None:
                self._drop(trip.wire)
                self._fail_batch(trip.batch, error)
            else:
                self._idle.append(trip.wire)
                self._is_silent = False
                self._silent_ticks = 0
                trip.finish(sending.result())
        finally:
            self._flush()
        self._observe(trip.replies, self._loop.time() - trip.left_at)

    def _drop(self, wire: RedisConnection) -> None:
        wire.abort()
        self._idle.insert(0, wire)  # to be used when no open one is left

    def _fail_batch(self, batch: list[PendingCommands], cause: BaseException) -> None:
        """Report that Redis is lost, and fail the callers of a round trip even if that fails."""
        error = round_trip_error(cause)
        try:
            # A long command may be why a connection was not made in time.
            if not (self._dedicated and isinstance(error, RedisTimeoutError)):
                self._on_lost(error)
        finally:
            for pending in batch:
                fail(pending.future, error)

    def _tick(self) -> None:
        """Look how long Redis has been silent, as often as there is something to wait for."""
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
        """Count one more wait, and give up whatever has had its last."""
        self._waits += 1
        self._give_up_round_trips()
        batches = [self._waiting, *(trip.batch for trip in self._in_flight.values())]
        pending = [each for batch in batches for each in batch if not each.future.done()]
        self._is_silent |= any(each.has_short_deadline and each.ends_at <= self._waits for each in pending)
        for each in pending:
            if each.ends_at <= self._waits or (each.has_short_deadline and self._is_silent):
                fail(each.future, _over_budget())
        # Whose caller has gone, for that or another reason, need not leave.
        self._waiting = [pending for pending in self._waiting if not pending.future.done()]

    def _give_up_round_trips(self) -> None:
        over = {
            sending
            for lane in (self._in_flight, self._dedicated)
            for sending, trip in lane.items()
            if trip.ends_at <= self._waits
        }
        try:
            if over and over.issuperset(self._dedicated):  # else a long command may be what keeps Redis busy
                self._on_lost(RedisTimeoutError("no answer in time"))
        finally:
            for sending in over:
                sending.cancel()


def _waits(seconds: float) -> int:
    return math.ceil(seconds / _WAIT_SECONDS)


_BUDGET_WAITS = _waits(BUDGET_SECONDS)


def _over_budget() -> RedisTimeoutError:
    return RedisTimeoutError("no answer within the budget")
