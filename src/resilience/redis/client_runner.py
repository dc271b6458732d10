"""Runs scripts through a client of redis-py: of one server, of a master from Sentinel, or of a cluster.

**Timeouts.** Each run ends after `timeout_seconds`. The client may have its own shorter timeouts.

**Retries.** A client that retries sends a script again after a lost answer, and may count a hit or an outcome
twice. Create the client with `retry=Retry(NoBackoff(), 0)`.

**Replies** are bytes, even from a client with `decode_responses=True`.

**Errors.** This module alone converts the errors of redis-py into errors of this package. It logs the reason
at most once a minute.
"""

import logging
import math
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

from redis.asyncio import Redis, RedisCluster
from redis.client import NEVER_DECODE
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from ..clock import Clock, SystemClock
from ..errors import StoreRefusedError, StoreUnavailableError
from .failures import Meaning, failure_of, reason_of
from .port import Argument, Reply, ScriptRunner
from .scripts import Script

Client: TypeAlias = Redis | RedisCluster

TIMEOUT_SECONDS = 1.0
REMINDER_SECONDS = 60.0
"""The shortest time between two log entries about failed runs."""

_log = logging.getLogger(__name__)


class ClientRunner:
    """A `ScriptRunner` over a client of redis-py.

    Args:
        client: A `redis.asyncio.Redis`, for example from `Sentinel.master_for`, or a
            `redis.asyncio.RedisCluster`. The caller closes it.
        clock: The clock for the timeouts. None: the clock of the machine.
        timeout_seconds: The longest time of a run, above 0.

    Raises:
        ValueError: `timeout_seconds` is not above 0.
    """

    def __init__(
        self, client: Client, clock: Clock | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be above 0, not {timeout_seconds}")
        self._client = client
        self._clock = clock or SystemClock()
        self._timeout_seconds = timeout_seconds
        self._logged_at = -math.inf

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Reply:
        """Run `script` on `keys` and return its reply.

        If the server does not have the script, send its source.
        """
        tail = (len(keys), *keys, *arguments)
        try:
            async with self._clock.timeout(self._timeout_seconds):
                try:
                    return await self._execute("EVALSHA", script.sha, *tail)
                except NoScriptError:
                    return await self._execute("EVAL", script.source, *tail)
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            self._raise(error)

    def checked(self, reply: Reply) -> Reply:
        """Return `reply`, a part of a script's reply. If it is an error of Redis, raise it as `run` does."""
        if isinstance(reply, RedisError):
            self._raise(reply)
        return reply

    async def _execute(self, *command: Argument) -> Reply:
        return await self._client.execute_command(*command, **{NEVER_DECODE: True})

    def _raise(self, error: Exception) -> NoReturn:
        failure = failure_of(error)
        if failure.meaning is Meaning.MISTAKE:
            raise error
        reason = reason_of(error)
        now = self._clock.monotonic()
        if now - self._logged_at >= REMINDER_SECONDS:
            self._logged_at = now
            _log.warning("redis_store_fails", extra={"code": failure.code, "reason": reason})
        if failure.meaning is Meaning.REFUSED:
            raise StoreRefusedError(f"Redis refuses: {reason}") from error
        raise StoreUnavailableError(f"Redis is unavailable: {reason}") from error


def script_runner(redis: object) -> ScriptRunner:
    """Return `redis` if it is a `ScriptRunner`, or a `ClientRunner` over it if it is a client of redis-py.

    Raises:
        TypeError: `redis` is neither a `ScriptRunner` nor a client of `redis.asyncio`.
    """
    if isinstance(redis, (Redis, RedisCluster)):
        return ClientRunner(redis)
    if isinstance(redis, ScriptRunner):
        return redis
    kind = f"{type(redis).__module__}.{type(redis).__qualname__}"
    raise TypeError(f"redis must be a client of redis.asyncio or a ScriptRunner, not {kind}")
