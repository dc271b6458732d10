"""The one way to Redis: connecting, running scripts, and knowing when it is away.

`RedisLink` is what the stores speak to. It turns every failure of the connection into
`StorageUnavailableError`, and while Redis is away it says so at once: the first failure closes the gate, a
background task asks for an answer every `PROBE_INTERVAL_SECONDS`, and the first answer opens the gate again.
So an outage costs a caller microseconds and not a timeout, and nobody's request is the probe.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from src.resilience.clock import Clock
from src.services.errors import StorageUnavailableError
from src.storage.batching import MAX_IN_FLIGHT, Argument, Batcher, Command, OverBudgetError, Reply
from src.storage.scripts import Script

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 0.5
CALL_TIMEOUT_SECONDS = 0.6
"""With a hurried command's budget before it, an answer that Redis is away leaves within a second."""
PROBE_INTERVAL_SECONDS = 0.25


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

    Replies are raw RESP2, and nothing is retried: a command whose answer was lost may have been carried out,
    and only its caller knows whether it may be sent twice.
    """
    client = Redis.from_url(
        address.url,
        protocol=2,
        max_connections=MAX_IN_FLIGHT + 2,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=None,  # the batcher's round trips have their own limits
        retry=Retry(NoBackoff(), 0),
    )
    client.response_callbacks.clear()
    return client


def connect_in_process() -> "Redis":
    """Return a client for a Redis in this process's memory, for where no redis-server can be had.

    Its data ends with the process, and no other worker sees it.
    """
    import fakeredis  # noqa: PLC0415 -- slow to import, and hardly ever wanted

    client: Redis = fakeredis.FakeAsyncRedis(protocol=2)
    client.response_callbacks.clear()
    return client


class RedisLink:
    """Commands and scripts to one Redis, batched by loop tick.

    Args:
        client: From `connect`, or a fake of the same kind.
        clock: Paces the probes during an outage.
        revive: Awaited before each probe: starts a server that is ours to start.
    """

    def __init__(
        self, client: "Redis", clock: Clock, revive: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._client = client
        self._clock = clock
        self._revive = revive
        self._batcher = Batcher(client, CALL_TIMEOUT_SECONDS)
        self._prober: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether Redis answered when last asked."""
        return self._prober is None

    @property
    def round_trips(self) -> int:
        """Round trips begun so far."""
        return self._batcher.round_trips

    async def send(self, *command: Argument) -> Reply:
        """Send one command with this tick's batch and return its reply.

        Raises:
            StorageUnavailableError: Redis is away.
            RedisError: The server refused this command.
        """
        return await self._send(command)

    async def send_all(self, commands: Iterable[Command]) -> list[Reply]:
        """Send several commands in one round trip and return their replies in order.

        They are a pipeline, not a transaction. Raises as `send` does, for the first that failed.
        """
        self._refuse_while_down()
        futures = [self._batcher.add(command) for command in commands]
        replies = await asyncio.gather(*futures, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, (RedisConnectionError, RedisTimeoutError)):
                raise self._went_down(reply) from reply
            if isinstance(reply, BaseException):
                raise reply
        return replies

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument] = (),
        *,
        hurried: bool = False,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """Run `script` on `keys` and return its reply.

        A server that does not know the script (it was restarted, or its scripts were flushed) is taught it,
        in one more round trip.

        Args:
            script: What to run.
            keys: Its KEYS.
            arguments: Its ARGV.
            hurried: Give up on it after `BUDGET_SECONDS`.
            timeout_seconds: For a run so large that it may take longer than `CALL_TIMEOUT_SECONDS`: how
                long. It has a round trip of its own then, and while it lasts, that others get no answer is
                no sign that Redis is away.
        """
        tail = (len(keys), *keys, *arguments)
        try:
            return await self._send(("EVALSHA", script.sha, *tail), hurried, timeout_seconds)
        except NoScriptError:
            return await self._send(("EVAL", script.source, *tail), hurried, timeout_seconds)

    async def load(self, scripts: Iterable[Script]) -> None:
        """Teach the server `scripts`, so that no first caller has to."""
        await self.send_all([("SCRIPT", "LOAD", script.source) for script in scripts])

    async def ping(self, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> bool:
        """Return whether Redis answers within `timeout_seconds`."""
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
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)
        await self._batcher.aclose()
        await self._client.aclose()

    async def _send(
        self, command: Command, hurried: bool = False, timeout_seconds: float | None = None
    ) -> Reply:
        self._refuse_while_down()
        try:
            if timeout_seconds is None:
                return await self._batcher.add(command, hurried=hurried)
            return await self._batcher.add_alone(command, timeout_seconds)
        except OverBudgetError as error:
            raise StorageUnavailableError("Redis is slower than its budget") from error
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise self._went_down(error) from error

    def _refuse_while_down(self) -> None:
        if self._prober is not None:
            raise StorageUnavailableError("Redis is away", retry_after=1.0)

    def _went_down(self, error: Exception) -> StorageUnavailableError:
        is_busy = isinstance(error, RedisTimeoutError) and self._batcher.expects_delay
        if self._prober is None and not is_busy:
            _log.error("redis_lost", extra={"reason": type(error).__name__})
            self._batcher.abandon(error)
            self._prober = asyncio.create_task(self._probe_until_back())
        return StorageUnavailableError(f"Redis is away: {error}", retry_after=1.0)

    async def _probe_until_back(self) -> None:
        while True:
            try:
                if self._revive is not None:
                    await self._revive()
                await self._batcher.add(("PING",))
            except (RedisError, OSError):
                await self._clock.sleep(PROBE_INTERVAL_SECONDS)
            else:
                break
        self._prober = None
        _log.warning("redis_back")
