"""The one way to Redis: connecting, running scripts, and knowing when it is away.

`RedisLink` is what the stores speak to. It turns every failure of the connection into
`StorageUnavailableError`, and while Redis is away it says so at once: the first failure closes the gate, a
background task asks for an answer every `PROBE_INTERVAL_SECONDS`, and the first answer opens the gate again.
So an outage costs a caller microseconds and not a timeout, and nobody's request is the probe.

A Redis that answers but refuses, for a reason of its own such as a full memory, is not away: the gate stays
open, since what it refuses to one it may grant to another. Each caller refused gets a `StorageRefusedError`.
A mistake of ours is neither: it is raised as Redis told it.
"""

import asyncio
import logging
import math
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from src.resilience.clock import Clock
from src.services.errors import StorageRefusedError, StorageUnavailableError
from src.storage.redis.batcher import Batcher, RoundTripObserver
from src.storage.redis.connection import Argument, Command, Reply
from src.storage.redis.scripts import Script

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 0.5
CALL_TIMEOUT_SECONDS = 0.6
"""With a short_deadline command's budget before it, an answer that Redis is away leaves within a second."""
PROBE_INTERVAL_SECONDS = 0.25
REMINDER_SECONDS = 60.0
"""How often it is logged that Redis refuses, for each code, while it does."""

_REFUSAL = re.compile(
    r"(?:^|-)(BUSY|CLUSTERDOWN|MASTERDOWN|MISCONF|NOPERM|NOREPLICAS|OOM|READONLY) "
    r"|The user executing the script can't |ACL failure in script: "
)
"""The codes by which Redis reports its own state, and not a fault of the command. Redis 6.2 puts them in the
middle of a script's error. Neither Redis nor Valkey sends a code if an ACL rule stopped the script."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`, credentials and database included.
    """

    url: str

    def __repr__(self) -> str:
        return "RedisAddress(…)"  # the URL may carry a password


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
        observe: Told of each round trip: its commands and its seconds.
    """

    def __init__(
        self,
        client: "Redis",
        clock: Clock,
        revive: Callable[[], Awaitable[None]] | None = None,
        observe: RoundTripObserver = lambda _commands, _seconds: None,
    ) -> None:
        self._clock = clock
        self._revive = revive
        self._batcher = Batcher(client.connection_pool, CALL_TIMEOUT_SECONDS, self._went_down, observe)
        self._prober: asyncio.Task[None] | None = None
        self._is_closing = False
        self._reminded_at: dict[str, float] = {}

    @property
    def is_up(self) -> bool:
        """Whether Redis answered when last asked."""
        return self._prober is None

    async def until_up(self) -> None:
        """Return when Redis answers again, or the link is closed; at once while Redis answers."""
        if self._prober is not None:
            await asyncio.wait((self._prober,))

    @property
    def round_trips(self) -> int:
        """Round trips begun so far."""
        return self._batcher.round_trips

    async def send(self, *command: Argument) -> Reply:
        """Send one command with this tick's batch and return its reply.

        Raises:
            StorageUnavailableError: Redis is away, or takes longer than `CALL_TIMEOUT_SECONDS`.
            StorageRefusedError: It refuses: its memory is full, it is a replica, …
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

        A server that does not know the script (it was restarted, or its scripts were flushed) is taught it,
        in one more round trip.

        Args:
            script: What to run.
            keys: Its KEYS.
            arguments: Its ARGV.
            short_deadline: Fail the run after `BUDGET_SECONDS`, or at once after others waited that long
                in vain.
            timeout_seconds: For a run so large that it may take longer than `CALL_TIMEOUT_SECONDS`: how
                long from when it leaves. It has a round trip of its own then, after others of its kind, and
                while it lasts, that others get no answer is no sign that Redis is away.
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
            self._raise_if_unavailable(reply)
            raise reply
        return reply

    async def ping(self, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> bool:
        """Return whether Redis answers within `timeout_seconds`. Whether it takes writes is not asked."""
        try:
            async with self._clock.timeout(timeout_seconds):
                return bool(await self.send("PING") == b"PONG")
        except (StorageUnavailableError, RedisError, TimeoutError):
            return False

    async def warn_of_eviction(self) -> None:
        """Log a warning if the server may drop keys when its memory is full: they would be missing figures.

        A server that is away, or does not tell, is not complained of.
        """
        try:
            reply = await self.send("CONFIG", "GET", "maxmemory-policy")
        except (StorageUnavailableError, RedisError):
            return
        if reply and reply[1] != b"noeviction":
            _log.warning("redis_may_evict", extra={"maxmemory_policy": reply[1].decode()})

    async def aclose(self) -> None:
        """Finish what is under way and close every connection."""
        self._is_closing = True
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)
        await self._batcher.aclose()

    async def _send(
        self, *commands: Command, short_deadline: bool = False, dedicated: float | None = None
    ) -> list[Reply]:
        if not self.is_up:
            raise StorageUnavailableError("Redis is away")
        if dedicated is not None:
            sent = self._batcher.add_dedicated(*commands, timeout_seconds=dedicated)
        else:
            sent = self._batcher.add(*commands, short_deadline=short_deadline)
        try:
            replies = await sent
        except RedisError as error:
            self._raise_if_unavailable(error)
            raise
        for reply in replies:
            self.checked(reply)
        return replies

    def _raise_if_unavailable(self, error: RedisError) -> None:
        if isinstance(error, (RedisConnectionError, RedisTimeoutError)):
            raise StorageUnavailableError(f"Redis does not answer: {error}") from error
        told = f"{error.status_code} {error}" if error.status_code else str(error)
        if refusal := _REFUSAL.search(told):
            code = refusal[1] or "NOPERM"
            self._remind(code, told)
            raise StorageRefusedError(f"Redis refuses: {told}") from error

    def _remind(self, code: str, told: str) -> None:
        now = self._clock.monotonic()
        if now - self._reminded_at.get(code, -math.inf) >= REMINDER_SECONDS:
            self._reminded_at[code] = now
            _log.error("redis_refuses", extra={"code": code, "reason": told})

    def _went_down(self, error: RedisError) -> None:
        if self._prober is None and not self._is_closing:
            _log.error("redis_lost", extra={"reason": type(error).__name__})
            self._batcher.abandon(error)
            self._prober = asyncio.create_task(self._probe_until_back())

    async def _probe_until_back(self) -> None:
        while not await self._answers():
            await self._clock.sleep(PROBE_INTERVAL_SECONDS)
        self._prober = None
        _log.warning("redis_back")

    async def _answers(self) -> bool:
        try:
            if self._revive is not None:
                await self._revive()
            await self._batcher.add(("PING",))  # a refusal is an answer
        except (RedisError, OSError):
            return False
        return True
