"""Commands of one loop tick share one round trip.

Whoever wants something of Redis during a tick of the event loop adds a command and gets a future; at the end
of the tick all that was added leaves as one pipeline. While `MAX_IN_FLIGHT` pipelines are under way the
next ones wait and grow, so that a burst costs fewer, larger round trips instead of more connections.

How long Redis may take is counted in short waits, between which the loop reads what has arrived. So a loop
that is itself late, under load, blames its lateness on nobody: Redis is slow when it is silent, wait after
wait, and not when its answer lies unread.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

Argument: TypeAlias = bytes | str | int | float
Command: TypeAlias = Sequence[Argument]
Reply: TypeAlias = Any
"""What RESP2 can say: bytes, int, None, or a list of these. Each store narrows its own replies."""

MAX_IN_FLIGHT = 8
"""Round trips under way at once, and so the most connections one process opens for commands."""

BUDGET_SECONDS = 0.25
"""How long a command that is `hurried` waits for its answer."""

_WAIT_SECONDS = 0.025


class OverBudgetError(RedisTimeoutError):
    """A hurried command's time is over. The round trip goes on for the others."""


class _Pending(NamedTuple):
    command: Command
    future: "asyncio.Future[Reply]"
    hurried: bool


class Batcher:
    """Joins commands into pipelines.

    Args:
        client: Whose replies are raw: no response callbacks, nothing decoded.
        timeout_seconds: The longest a round trip may take, connecting included.
    """

    def __init__(self, client: "Redis", timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._waiting: list[_Pending] = []
        self._flush_is_due = False
        self._in_flight: set[asyncio.Task[None]] = set()
        self._alone: set[asyncio.Task[None]] = set()
        self.round_trips = 0

    @property
    def expects_delay(self) -> bool:
        """Whether a command is under way that may keep the server busy for longer than others wait."""
        return bool(self._alone)

    def add(self, command: Command, *, hurried: bool = False) -> "asyncio.Future[Reply]":
        """Send `command` at the end of this tick.

        Args:
            command: Its name and arguments.
            hurried: Give up on it after `BUDGET_SECONDS`, with an `OverBudgetError`.

        Returns:
            A future of its reply. It raises the server's answer to this one command as a `RedisError`, or
            the error of the connection, which then all commands of the round trip share.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append(_Pending(command, future, hurried))
        if not self._flush_is_due:
            self._flush_is_due = True
            loop.call_soon(self._flush)
        return future

    def add_alone(self, command: Command, timeout_seconds: float) -> "asyncio.Future[Reply]":
        """Send `command` now, in a round trip of its own that may take `timeout_seconds`."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._round_trip([_Pending(command, future, False)], timeout_seconds))
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)
        return future

    def abandon(self, error: Exception) -> None:
        """Answer everything that has not left yet with `error`."""
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            _fail(pending.future, error)

    async def aclose(self) -> None:
        """Wait for the round trips under way."""
        while under_way := self._in_flight | self._alone:
            await asyncio.wait(under_way)

    def _flush(self) -> None:
        self._flush_is_due = False
        if not self._waiting or len(self._in_flight) >= MAX_IN_FLIGHT:
            return
        batch, self._waiting = self._waiting, []
        task = asyncio.create_task(self._round_trip(batch, self._timeout_seconds))
        self._in_flight.add(task)
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._flush()

    async def _round_trip(self, batch: list[_Pending], timeout_seconds: float) -> None:
        sending = asyncio.create_task(self._send([pending.command for pending in batch]))
        try:
            await self._wait_for(sending, batch, timeout_seconds)
        finally:
            sending.cancel()  # no more than a word where it is done
        replies: Sequence[Reply]
        try:
            replies = await sending
        except asyncio.CancelledError:
            replies = [RedisTimeoutError("no answer in time")] * len(batch)
        except RedisError as error:
            replies = [error] * len(batch)
        except OSError as error:
            replies = [RedisConnectionError(str(error))] * len(batch)
        for pending, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception):
                _fail(pending.future, reply)
            elif not pending.future.done():
                pending.future.set_result(reply)

    async def _wait_for(
        self, sending: "asyncio.Task[Sequence[Reply]]", batch: list[_Pending], timeout_seconds: float
    ) -> None:
        """Wait until `sending` is done or its time is over, and tell the hurried when theirs is."""
        hurried_waits = round(BUDGET_SECONDS / _WAIT_SECONDS)
        for wait in range(1, math.ceil(timeout_seconds / _WAIT_SECONDS) + 1):
            done, _ = await asyncio.wait((sending,), timeout=_WAIT_SECONDS)
            if done:
                return
            if wait == hurried_waits:
                for pending in batch:
                    if pending.hurried:
                        _fail(pending.future, OverBudgetError("no answer within the budget"))

    async def _send(self, commands: Sequence[Command]) -> Sequence[Reply]:
        self.round_trips += 1
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return cast("Sequence[Reply]", await pipeline.execute(raise_on_error=False))


def _fail(future: "asyncio.Future[Reply]", error: Exception) -> None:
    if not future.done():  # else its caller has gone
        future.set_exception(error)
