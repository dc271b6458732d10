"""The stores' access to Redis: connections, commands, scripts, and a gate that closes during an outage.

`RedisLink` converts every failure of Redis into an error of this service, by the table in
`src.resilience.redis.failures`:

- **Redis is unavailable.** Each caller gets a `StorageUnavailableError`, or an `OutcomeUnknownError` if its
  commands may have reached Redis. The first failure closes the gate: all calls then fail at once, without a
  timeout. A background task sends a PING every `PROBE_INTERVAL_SECONDS`. The first answer opens the gate
  again.
- **Redis refuses a command**, for example because its memory is full. The caller gets a
  `StorageRefusedError`. The gate stays open, because Redis may accept other commands.
- **The server is a replica, or does not serve the key.** The caller gets a `StorageRefusedError`, and new
  connections are opened. They resolve the address again, so that after a failover they reach the new primary.
- **The command is wrong.** The error of redis-py is raised unchanged.
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
"""The timeout of a command. Together with `BUDGET_SECONDS` it is below one second, so that a request that
waits for both still reports an outage within a second."""
PROBE_INTERVAL_SECONDS = 0.25
RECONNECT_INTERVAL_SECONDS = 1.0
"""The shortest time between two replacements of the connections after answers of a wrong server."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of Redis.

    Attributes:
        url: A `redis://`, `rediss://` or `unix://` URL, with credentials and database.
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
    """Return a client for `address` that speaks RESP2. This opens no connection.

    The client does not retry: Redis may have executed a command whose answer was lost.
    """
    return Redis.from_url(
        address.url,
        protocol=2,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=None,  # the batcher's round trips have their own limits
        retry=Retry(NoBackoff(), 0),
        driver_info=None,  # else redis-py reads its own version from a file for each connection
    )


def connect_in_process() -> "Redis":
    """Return a client for a Redis in the memory of this process, for machines without a redis-server.

    The data ends with the process, and no other worker can read it.
    """
    import fakeredis  # noqa: PLC0415 -- the import is slow, and the module is rarely used

    os.environ.setdefault("LUA_PATH", f"{Path(__file__).parent / 'fake'}/?.lua;;")
    client: Redis = fakeredis.FakeAsyncRedis(protocol=2, lua_modules={"struct"})
    return client


class RedisLink:
    """Commands and scripts to one Redis, batched by loop tick.

    Args:
        client: The client from `connect` or `connect_in_process`. Its pool makes the connections.
        clock: Measures the time between two probes during an outage.
        revive: Awaited before each probe, for example to start an embedded server. None does nothing.
        observe: Called after each round trip with the number of its commands and its duration in seconds.
        address: The address of Redis in the log, without credentials.
        check: Awaited by the method `check`, and each time Redis answers again. Its argument is a function
            that sends commands and returns their replies, including refusals. While it raises an error, Redis
            counts as unavailable.
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
        self._batcher = Batcher(
            pool, CALL_TIMEOUT_SECONDS, self._close_gate, observe, self._notify_silence_observers
        )
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
        """Wait until Redis answers again or the link is closed. While Redis answers, return at once."""
        if self._prober is not None:
            await asyncio.wait((self._prober,))

    async def check(self) -> None:
        """Run the check that was passed to the link, and raise its errors, except if Redis is unavailable."""
        with suppress(RedisError):
            if self._check is not None:
                await self._check(self._batcher.add)

    @property
    def round_trips(self) -> int:
        """The number of round trips that have begun."""
        return self._batcher.round_trips

    def tick_loader(self, load: Callable[[list[T]], Awaitable[Sequence[A]]]) -> TickLoader[T, A]:
        """Return a `TickLoader`. `aclose` waits for its requests before it closes the connections."""
        loader = TickLoader(load)
        self._loaders.append(loader)
        return loader

    def on_silence(self, observer: Callable[[], object]) -> None:
        """Call `observer` every few milliseconds while Redis has not replied for about 10 ms."""
        self._silence_observers.append(observer)

    async def send(self, *command: Argument) -> Reply:
        """Send one command with this tick's batch and return its reply.

        Raises:
            OutcomeUnknownError: Redis took longer than `CALL_TIMEOUT_SECONDS`, or the connection was lost.
            StorageUnavailableError: Redis is unavailable, and nothing was sent.
            StorageRefusedError: Redis refuses the command: its memory is full, it is a replica, …
            RedisError: The command is wrong.
        """
        (reply,) = await self._send(command)
        return reply

    async def send_all(self, commands: Iterable[Command], *, short_deadline: bool = False) -> list[Reply]:
        """Send several commands in one round trip and return their replies in order.

        The commands are a pipeline, not a transaction.

        Args:
            commands: The name and the arguments of each command.
            short_deadline: Fail the commands after `BUDGET_SECONDS`. They fail at once if another command
                with a short deadline has timed out and Redis has not answered since.

        Raises:
            StorageUnavailableError: As for `send`.
            StorageRefusedError: Redis refused a command. The error is that of the first one.
            RedisError: A command is wrong. The error is that of the first one.
        """
        pipeline = tuple(commands)
        # An empty pipeline would still cost a round trip.
        return await self._send(*pipeline, short_deadline=short_deadline) if pipeline else []

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

        If the server does not have the script, a second round trip sends the source. This happens after a
        restart of the server, or after SCRIPT FLUSH.

        Args:
            script: The script.
            keys: The KEYS of the script.
            arguments: The ARGV of the script.
            short_deadline: Fail the run after `BUDGET_SECONDS`. It fails at once if another command with a
                short deadline has timed out and Redis has not answered since.
            timeout_seconds: The timeout of a long run, counted from when it is sent. The run then has a
                separate round trip, and waits if `MAX_DEDICATED` long runs are running. While it is running,
                a timeout of another round trip does not close the gate. None: the run is a short one, with
                the timeout `CALL_TIMEOUT_SECONDS`.

        Raises:
            StorageUnavailableError: As for `send`.
            StorageRefusedError: As for `send`.
            RedisError: As for `send`.
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
        """Return `reply`, a part of a script's reply. If it is an error, raise it as `send` does."""
        if isinstance(reply, RedisError):
            self._raise_refusal(reply)
        return reply

    async def ping(self, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> bool:
        """Return whether Redis answers within `timeout_seconds`. A refusal is an answer too."""
        try:
            async with self._clock.timeout(timeout_seconds):
                return bool(await self.send("PING") == b"PONG")
        except StorageRefusedError:
            return True
        except (StorageUnavailableError, RedisError, TimeoutError):
            return False

    async def try_send(self, *command: Argument) -> Reply | None:
        """Send an optional command and return its reply, or None if Redis refuses it or does not answer."""
        if not self._is_up:
            return None
        try:
            (reply,) = await self._batcher.add(command)
        except RedisError:
            return None
        return None if isinstance(reply, RedisError) else reply

    async def aclose(self) -> None:
        """Finish the commands that were added, and close every connection. Later calls fail."""
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
            sending = self._batcher.add_dedicated(*commands, timeout_seconds=dedicated)
        else:
            sending = self._batcher.add(*commands, short_deadline=short_deadline)
        try:
            replies = await sending
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

    def _notify_silence_observers(self) -> None:
        for observer in self._silence_observers:
            observer()

    def _close_gate(self, error: RedisError) -> None:
        if self._prober is not None:
            return
        self._batcher.abandon(error)
        if not self._is_closing:
            self._is_up = False
            self._prober = asyncio.create_task(self._probe_until_answer())
            self._failures.lost(error)

    async def _probe_until_answer(self) -> None:
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
        except Exception as error:  # noqa: BLE001 -- the next probe may succeed, whatever the error is
            self._failures.still_lost(error)
            return False
        return True
