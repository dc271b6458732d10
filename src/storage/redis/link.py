"""The one way to Redis: connecting, running scripts, and knowing when Redis is unavailable.

`RedisLink` is what the stores use. It turns every failure into an error of ours, by the one table of
`src.resilience.redis.failures`:

- Redis is unavailable: each caller gets a `StorageUnavailableError`, or an `OutcomeUnknownError` if its
  commands may have reached Redis. The first failure closes the gate, a background task sends a PING every
  `PROBE_INTERVAL_SECONDS`, and the first answer opens the gate again. So an outage costs a caller
  microseconds and not a timeout, and no caller's request is the probe.
- Redis answers and refuses, for a reason of its own such as a full memory: this caller gets a
  `StorageRefusedError`. The gate stays open, since Redis may grant another what it refuses to one.
- Redis answers as a replica, or as a node that does not serve the key: this caller is refused likewise, and
  new connections are opened, which look the address up again. After a failover they lead to the new primary.
- The command is wrong: the error of Redis is raised as it is.
"""

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from src.resilience.clock import Clock
from src.resilience.redis.failures import Meaning, failure_of, reason_of
from src.resilience.redis.port import Argument, Reply
from src.resilience.redis.scripts import Script
from src.services.errors import OutcomeUnknownError, StorageRefusedError, StorageUnavailableError
from src.storage.redis.batcher import Batcher, RoundTripObserver
from src.storage.redis.connection import Command
from src.storage.redis.failure_log import FailureLog
from src.storage.redis.round_trip import Replies
from src.storage.redis.tick_loader import TickLoader

T = TypeVar("T")
A = TypeVar("A")

CONNECT_TIMEOUT_SECONDS = 0.5
CALL_TIMEOUT_SECONDS = 0.6
"""With a short_deadline command's budget before it, an answer that Redis is away leaves within a second."""
PROBE_INTERVAL_SECONDS = 0.25
RECONNECT_INTERVAL_SECONDS = 1.0
"""Least time between two replacements of the connections, however often the wrong server answers."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`, credentials and database included.
    """

    url: str

    def __repr__(self) -> str:
        return "RedisAddress(…)"  # the URL may carry a password

    def __str__(self) -> str:
        """Return the URL without credentials and options."""
        parts = urlsplit(self.url)
        database = parse_qs(parts.query).get("db", [""])[0]
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + (
            database and f"?db={database}"
        )


def connect(address: RedisAddress) -> "Redis":
    """Return a client for `address`. Nothing is sent yet.

    It speaks RESP2, and nothing is retried: a command whose answer was lost may have been carried out,
    and only its caller knows whether it may be sent twice.
    """
    return Redis.from_url(
        address.url,
        protocol=2,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=None,  # the batcher's round trips have their own limits
        retry=Retry(NoBackoff(), 0),
        driver_info=None,  # redis-py's version, which it would read from a file for each connection
    )


def connect_in_process() -> "Redis":
    """Return a client for a Redis in this process's memory, for where no redis-server can be had.

    Its data ends with the process, and no other worker sees it.
    """
    import fakeredis  # noqa: PLC0415 -- slow to import, and hardly ever wanted

    os.environ.setdefault("LUA_PATH", f"{Path(__file__).parent / 'fake'}/?.lua;;")
    client: Redis = fakeredis.FakeAsyncRedis(protocol=2, lua_modules={"struct"})
    return client


class RedisLink:
    """Commands and scripts to one Redis, batched by loop tick.

    Args:
        client: From `connect`, or a fake of the same kind: its pool makes the connections.
        clock: Paces the probes during an outage.
        revive: Awaited before each probe: starts a server that is ours to start.
        observe: Called after each round trip with its number of commands and its seconds.
        address: Where Redis is, without credentials, for the log.
        check: Awaited by `check`, and each time Redis answers again, with a function that sends commands and
            returns their replies, refusals included. As long as it raises, Redis counts as unavailable.
    """

    def __init__(
        self,
        client: "Redis",
        clock: Clock,
        revive: Callable[[], Awaitable[None]] | None = None,
        observe: RoundTripObserver = lambda _commands, _seconds: None,
        address: str = "",
        *,
        check: Callable[[Callable[..., Replies]], Awaitable[None]] | None = None,
    ) -> None:
        self._clock = clock
        self._revive = revive
        self._check = check
        pool = client.connection_pool
        self._batcher = Batcher(pool, CALL_TIMEOUT_SECONDS, self._close_gate, observe, self._note_silence)
        self._failures = FailureLog(address, clock)
        self._loaders: list[TickLoader[Any, Any]] = []
        self._silence_observers: list[Callable[[], object]] = []
        self._prober: asyncio.Task[None] | None = None
        self._is_up = True
        self._is_closing = False
        self._reconnected_at = -math.inf

    @property
    def is_up(self) -> bool:
        """Whether Redis answered the last round trip or probe."""
        return self._is_up

    async def until_up(self) -> None:
        """Return when Redis answers again, or the link is closed; at once while Redis answers."""
        if self._prober is not None:
            await asyncio.wait((self._prober,))

    async def check(self) -> None:
        """Raise what the link's check raises. While Redis is unavailable, nothing is raised."""
        with suppress(RedisError):
            if self._check is not None:
                await self._check(self._batcher.add)

    @property
    def round_trips(self) -> int:
        """Round trips begun so far."""
        return self._batcher.round_trips

    def tick_loader(self, load: Callable[[list[T]], Awaitable[Sequence[A]]]) -> TickLoader[T, A]:
        """Return a loader whose requests are finished before the link closes."""
        loader = TickLoader(load)
        self._loaders.append(loader)
        return loader

    def on_silence(self, observer: Callable[[], object]) -> None:
        """Have `observer` called every few milliseconds while Redis has been silent for some 10 ms."""
        self._silence_observers.append(observer)

    async def send(self, *command: Argument) -> Reply:
        """Send one command with this tick's batch and return its reply.

        Raises:
            OutcomeUnknownError: Redis took longer than `CALL_TIMEOUT_SECONDS`, or the connection was lost.
            StorageUnavailableError: Redis is unavailable, and nothing was sent.
            StorageRefusedError: Redis refuses: its memory is full, it is a replica, …
            RedisError: The command is wrong.
        """
        (reply,) = await self._send(command)
        return reply

    async def send_all(self, commands: Iterable[Command], *, short_deadline: bool = False) -> list[Reply]:
        """Send several commands in one round trip and return their replies in order.

        They are a pipeline, not a transaction. Raises as `send` does, for the first that failed.

        Args:
            commands: Each its name and arguments.
            short_deadline: Fail the commands after `BUDGET_SECONDS`, or at once after others waited that
                long in vain.
        """
        wanted = tuple(commands)
        # To send nothing would be a round trip too.
        return await self._send(*wanted, short_deadline=short_deadline) if wanted else []

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument] = (),
        *,
        short_deadline: bool = False,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """Run `script` on `keys` and return its reply.

        The source is sent in one more round trip to a server that does not have the script: the server was
        restarted, or its scripts were flushed.

        Args:
            script: What to run.
            keys: Its KEYS.
            arguments: Its ARGV.
            short_deadline: Fail the run after `BUDGET_SECONDS`, or at once after others waited that long
                in vain.
            timeout_seconds: How long the run may take from when it leaves, where that is longer than
                `CALL_TIMEOUT_SECONDS`. The run has a round trip of its own then, after others of its kind.
                While it lasts, others that time out do not mean that Redis is lost.
        """
        tail = (len(keys), *keys, *arguments)
        try:
            (reply,) = await self._send(
                ("EVALSHA", script.sha, *tail), short_deadline=short_deadline, dedicated=timeout_seconds
            )
        except NoScriptError:
            (reply,) = await self._send(
                ("EVAL", script.source, *tail), short_deadline=short_deadline, dedicated=timeout_seconds
            )
        return reply

    def checked(self, reply: Reply) -> Reply:
        """Return `reply`, or raise as `send` does where it is a refusal, as a part of a script's may be."""
        if isinstance(reply, RedisError):
            self._raise_refusal(reply)
        return reply

    async def ping(self, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> bool:
        """Return whether Redis answers within `timeout_seconds`, be it with a refusal."""
        try:
            async with self._clock.timeout(timeout_seconds):
                return bool(await self.send("PING") == b"PONG")
        except StorageRefusedError:
            return True
        except (StorageUnavailableError, RedisError, TimeoutError):
            return False

    async def try_send(self, *command: Argument) -> Reply | None:
        """Send a command that the service can do without; return None where it is refused or not answered."""
        if not self._is_up:
            return None
        try:
            (reply,) = await self._batcher.add(command)
        except RedisError:
            return None
        return None if isinstance(reply, RedisError) else reply

    async def aclose(self) -> None:
        """Finish what is under way or being gathered, and close every connection; then nothing is sent."""
        self._is_closing = True
        await asyncio.gather(*(loader.finish() for loader in self._loaders))
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)
        await self._batcher.aclose()
        self._is_up = False

    async def _send(
        self, *commands: Command, short_deadline: bool = False, dedicated: float | None = None
    ) -> list[Reply]:
        if not self._is_up:
            raise StorageUnavailableError("Redis is unavailable")
        if dedicated is not None:
            sent = self._batcher.add_dedicated(*commands, timeout_seconds=dedicated)
        else:
            sent = self._batcher.add(*commands, short_deadline=short_deadline)
        try:
            replies = await sent
        except RedisError as error:
            raise OutcomeUnknownError(f"Redis does not answer: {reason_of(error)}") from error
        for reply in replies:
            self.checked(reply)
        return replies

    def _raise_refusal(self, reply: RedisError) -> NoReturn:
        meaning = failure_of(reply).meaning
        if meaning is Meaning.MISTAKE:
            raise reply
        if meaning is Meaning.UNAVAILABLE:
            raise OutcomeUnknownError(f"Redis does not answer: {reason_of(reply)}") from reply
        self._failures.refused(reply)
        if meaning is Meaning.WRONG_SERVER:
            self._reconnect()
        raise StorageRefusedError(f"Redis refuses: {reason_of(reply)}") from reply

    def _reconnect(self) -> None:
        now = self._clock.monotonic()
        if now - self._reconnected_at >= RECONNECT_INTERVAL_SECONDS:
            self._reconnected_at = now
            self._batcher.reconnect()

    def _note_silence(self) -> None:
        for observer in self._silence_observers:
            observer()

    def _close_gate(self, error: RedisError) -> None:
        if self._prober is not None:
            return
        self._batcher.abandon(error)
        if not self._is_closing:
            self._is_up = False
            self._prober = asyncio.create_task(self._probe_until_back())
            self._failures.lost(error)

    async def _probe_until_back(self) -> None:
        while not await self._answers():
            await self._clock.sleep(PROBE_INTERVAL_SECONDS)
        self._prober = None
        self._is_up = True
        self._failures.back()

    async def _answers(self) -> bool:
        try:
            if self._revive is not None:
                await self._revive()
            await self._batcher.add(("PING",))  # a refusal is an answer
            if self._check is not None:
                await self._check(self._batcher.add)
        except Exception as error:  # noqa: BLE001 -- whatever fails, the next probe may succeed
            self._failures.still_lost(error)
            return False
        return True
