"""Commands of one loop tick share one round trip.

Whoever wants something of Redis during a tick of the event loop adds a command and gets a future; at the end
of the tick all that was added leaves as one pipeline. While `MAX_IN_FLIGHT` pipelines are under way the
next ones wait and grow, so that a burst costs fewer, larger round trips instead of more connections.

How long Redis may take is counted in short waits, between which the loop reads what has arrived. So a loop
that is itself late, under load, blames its lateness on nobody: Redis is slow when it is silent, wait after
wait, and not when its answer lies unread.

A command's time begins when it is added, wherever it then waits, and its end is its caller's affair alone.
A round trip's time begins when it leaves, and its end says that Redis is lost.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, NamedTuple, TypeAlias, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

Argument: TypeAlias = bytes | str | int | float
Command: TypeAlias = Sequence[Argument]
Reply: TypeAlias = Any
"""What RESP2 can say: bytes, int, None, or a list of these. Each store narrows its own replies."""

MAX_IN_FLIGHT = 8
"""Round trips under way at once, those of long commands not counted."""

MAX_ALONE = 2
"""Long commands under way at once. Together with the others, the most connections one process opens."""

BUDGET_SECONDS = 0.25
"""How long a command that is `hurried` waits for its answer."""

_WAIT_SECONDS = 0.025

_Sending: TypeAlias = "asyncio.Task[Sequence[Reply]]"


class _Pending(NamedTuple):
    command: Command
    future: "asyncio.Future[Reply]"
    ends_at: float
    """Count of waits at which its caller is told that its time is over."""


class _RoundTrip(NamedTuple):
    batch: list[_Pending]
    ends_at: int
    """Count of waits at which it is given up."""


class Batcher:
    """Joins commands into pipelines.

    Args:
        client: Whose replies are raw: no response callbacks, nothing decoded.
        timeout_seconds: The longest a command may take from when it was added, and a round trip from when it
            left, connecting included.
        on_lost: Told, once for each round trip that found it so, that Redis cannot be reached or is silent;
            before the callers are, and even where they have all gone.
    """

    def __init__(
        self, client: "Redis", timeout_seconds: float, on_lost: Callable[[RedisError], object]
    ) -> None:
        self._client = client
        self._patience = _waits(timeout_seconds)
        self._on_lost = on_lost
        self._waiting: list[_Pending] = []
        self._waiting_alone: deque[tuple[_Pending, int]] = deque()
        self._in_flight: dict[_Sending, _RoundTrip] = {}
        self._alone: dict[_Sending, _RoundTrip] = {}
        self._waits = 0
        self._flush_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self.round_trips = 0

    def add(self, command: Command, *, hurried: bool = False) -> "asyncio.Future[Reply]":
        """Send `command` at the end of this tick.

        Args:
            command: Its name and arguments.
            hurried: Give up on it after `BUDGET_SECONDS`.

        Returns:
            A future of its reply. It raises the server's answer to this one command as a `RedisError`, the
            error of the connection, which then all commands of the round trip share, or a `TimeoutError` of
            Redis when its time is over; a command that has not left by then never does.
        """
        patience = _waits(BUDGET_SECONDS) if hurried else self._patience
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Pending(command, future, self._waits + patience))
        self._flush_soon()
        return future

    def add_alone(self, command: Command, timeout_seconds: float) -> "asyncio.Future[Reply]":
        """Send `command` in a round trip of its own that may take `timeout_seconds` from when it leaves.

        At most `MAX_ALONE` of these are under way at once; the next ones wait for as long as it takes. While
        one is under way, that others get no answer is no sign that Redis is lost.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting_alone.append((_Pending(command, future, math.inf), _waits(timeout_seconds)))
        self._flush_soon()
        return future

    def abandon(self, error: RedisError) -> None:
        """Answer everything that has not left yet with `error`.

        Where that is a timeout, end what is under way too: it waits for the same silent server.
        """
        waiting = [*self._waiting, *(pending for pending, _ in self._waiting_alone)]
        self._waiting.clear()
        self._waiting_alone.clear()
        for pending in waiting:
            _fail(pending.future, error)
        if isinstance(error, RedisTimeoutError):
            for task in (*self._in_flight, *self._alone):
                task.cancel()

    async def aclose(self) -> None:
        """Wait for the round trips under way."""
        while under_way := (*self._in_flight, *self._alone):
            await asyncio.wait(under_way)
        if self._timer is not None:
            self._timer.cancel()

    def _flush_soon(self) -> None:
        # Neither a round trip nor a wait belongs to the caller that happened to be first: clean contexts.
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(_WAIT_SECONDS, self._end_wait, context=Context())
        if not self._flush_is_due:
            self._flush_is_due = True
            loop.call_soon(self._flush, context=Context())

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._waiting and len(self._in_flight) < MAX_IN_FLIGHT:
            batch, self._waiting = self._waiting, []
            self._begin(self._in_flight, batch, self._patience)
        while self._waiting_alone and len(self._alone) < MAX_ALONE:
            pending, patience = self._waiting_alone.popleft()
            if not pending.future.done():
                self._begin(self._alone, [pending], patience)

    def _begin(self, lane: dict[_Sending, _RoundTrip], batch: list[_Pending], patience: int) -> None:
        task = asyncio.create_task(self._send([pending.command for pending in batch]))
        lane[task] = _RoundTrip(batch, self._waits + patience)
        task.add_done_callback(self._landed)

    def _landed(self, task: _Sending) -> None:
        trip = self._in_flight.pop(task, None) or self._alone.pop(task)
        replies: Sequence[Reply]
        if task.cancelled():
            replies = [RedisTimeoutError("no answer in time")] * len(trip.batch)
        elif error := task.exception():
            if isinstance(error, OSError):
                error = RedisConnectionError(str(error))
            if isinstance(error, RedisConnectionError):
                if not isinstance(error, MaxConnectionsError):  # which would be our own doing
                    self._on_lost(error)
            elif isinstance(error, RedisTimeoutError) and not self._alone:  # no connection in time
                self._on_lost(error)
            replies = [error] * len(trip.batch)
        else:
            replies = task.result()
        for pending, reply in zip(trip.batch, replies, strict=True):
            if isinstance(reply, BaseException):
                _fail(pending.future, reply)
            elif not pending.future.done():
                pending.future.set_result(reply)
        self._flush()

    def _end_wait(self) -> None:
        """Count one more wait, and give up whatever has had its last."""
        self._waits += 1
        self._timer = None
        self._give_up_round_trips()
        batches = (trip.batch for trip in self._in_flight.values())
        for pending in (*self._waiting, *(pending for batch in batches for pending in batch)):
            if pending.ends_at <= self._waits:
                _fail(pending.future, RedisTimeoutError("no answer within the budget"))
        # Whose caller has gone, for that or another reason, need not leave.
        self._waiting = [pending for pending in self._waiting if not pending.future.done()]
        if self._waiting or self._waiting_alone or self._in_flight or self._alone:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_WAIT_SECONDS, self._end_wait)

    def _give_up_round_trips(self) -> None:
        over = {
            task
            for lane in (self._in_flight, self._alone)
            for task, trip in lane.items()
            if trip.ends_at <= self._waits
        }
        if over and over.issuperset(self._alone):  # else a long command may be what keeps Redis busy
            self._on_lost(RedisTimeoutError("no answer in time"))
        for task in over:
            task.cancel()

    async def _send(self, commands: Sequence[Command]) -> Sequence[Reply]:
        self.round_trips += 1
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return cast("Sequence[Reply]", await pipeline.execute(raise_on_error=False))


def _waits(seconds: float) -> int:
    return math.ceil(seconds / _WAIT_SECONDS)


def _fail(future: "asyncio.Future[Reply]", error: BaseException) -> None:
    if not future.done():  # else its caller has gone
        future.set_exception(error)
