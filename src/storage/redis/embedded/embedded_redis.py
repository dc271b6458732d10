"""The embedded server: a private redis-server in a child process (`REDIS_URL=embedded://`).

Several workers share one server. File locks in the data folder show which processes run:

- `workers.lock`, shared: every worker that needs the server holds it. Only a holder starts the server.
- `serving.lock`, shared: every worker whose start has succeeded holds it.
- `server.lock`, exclusive: the server inherits it.
- `guard.lock`, exclusive: the guard inherits it. The guard is the process that stops the server after the
  last worker has ended (`guard.py`).

`server.lock` and `guard.lock` contain the process id of their holder. The kernel releases a lock when its
holder ends, even if it is killed, so that no lock is stale. While a worker waits for the server, it holds no
lock that the start of another worker needs.
"""

import asyncio
import logging
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from src.resilience.clock import Clock, SystemClock
from src.storage.redis.embedded import guard
from src.storage.redis.embedded.folder import EmbeddedFolder, EmbeddedRedisError
from src.storage.redis.embedded.guard import SERVER_LOCK, STOP_GRACE_SECONDS, WORKERS_LOCK, is_same_file
from src.storage.redis.embedded.server import FsyncPolicy, ServerProcess, spawn

_log = logging.getLogger(__name__)

SERVING_LOCK = "serving.lock"
GUARD_LOCK = "guard.lock"

START_WAIT_SECONDS = 5.0
"""The longest time that the start of a worker waits for the server. Then the worker starts without it."""
STOP_WAIT_SECONDS = 2 * STOP_GRACE_SECONDS + 1
"""The longest time that a worker waits until the guard has stopped the server."""
REMINDER_SECONDS = 60.0
"""The shortest time between two log entries with the same reason."""
POLL_SECONDS = 0.02


class EmbeddedRedis:
    """The part of one worker: it starts the shared server if necessary, and leaves the server at the end.

    Args:
        folder: The data folder, with the log of the running server and the locks. A missing folder is
            created.
        appendfsync: The rule by which the server syncs its append-only file. With "always", a write is on the
            disk before the server acknowledges it.
        clock: Measures the wait for the server. None: the clock of the machine.
    """

    def __init__(self, folder: Path, appendfsync: FsyncPolicy = "always", clock: Clock | None = None) -> None:
        self._folder = EmbeddedFolder(folder)
        self._clock = clock or SystemClock()
        self._server = ServerProcess(self._folder, appendfsync, self._clock, self._report)
        self._workers_lock: int | None = None
        self._serving_lock: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._reported: tuple[str, float] = ("", -math.inf)

    @property
    def url(self) -> str:
        """The `unix://` URL of the server's socket."""
        return f"unix://{quote(str(self._folder.socket))}"

    async def start(self) -> str:
        """Join the server, start the server if it does not run, and return its URL.

        This waits up to `START_WAIT_SECONDS` for an answer of the server. The worker then starts without the
        server, for example if the server is frozen or still loads its data. The worker also starts without
        the server if it cannot be started while another worker serves: one failed start must not end the
        other workers.

        Raises:
            EmbeddedRedisError: No other worker serves, and the server cannot be started: the folder cannot be
                written, there is no redis-server, or the redis-server cannot read the data.
        """
        try:
            async with self._clock.timeout(START_WAIT_SECONDS):
                await self.ensure_running()
                while not await self._answers():
                    await self._clock.sleep(POLL_SECONDS)
                    await self.ensure_running()
        except TimeoutError:
            self._report("embedded_redis_silent", f"no answer within {START_WAIT_SECONDS:g} s")
        except EmbeddedRedisError:
            if not self._another_worker_serves():
                with suppress(EmbeddedRedisError):  # it has the same cause as the error that is raised below
                    await self.stop()
                raise
        except BaseException:
            self._leave()
            raise
        self._serving_lock = self._folder.lock(SERVING_LOCK, exclusive=False)
        return self.url

    async def ensure_running(self) -> None:
        """Start the server and its guard if they do not run. A deleted data folder is created again.

        This does not wait for an answer of the server, and does nothing while the server process runs.

        Raises:
            EmbeddedRedisError: The server cannot be started. The reason is logged.
        """
        try:
            self._folder.make()
            if self._join():
                self._start_guard()
                self._server.start()
        except EmbeddedRedisError as error:
            self._report("embedded_redis_failed", str(error))
            raise

    async def stop(self) -> None:
        """Leave the server. If this was the last worker, wait until the guard has stopped the server.

        A caller that has not joined the server may call this too. It stops a server whose workers and guard
        were killed.
        """
        self._leave()
        if not self._folder.path.exists() or self._is_needed():
            return
        self._start_guard()
        try:
            async with self._clock.timeout(STOP_WAIT_SECONDS):
                while not self._folder.can_lock(SERVER_LOCK, exclusive=False):
                    await self._clock.sleep(POLL_SECONDS)
                    if self._is_needed():
                        return
        except TimeoutError:
            self._report("embedded_redis_does_not_stop", f"still runs after {STOP_WAIT_SECONDS:g} s")
            return
        self._server.wait()
        if self._guard is not None:
            self._guard.wait()
            self._guard = None

    # ------------------------------------------------------------ the locks of the workers

    def _join(self) -> bool:
        """Lock `workers.lock`.

        Return False while the guard holds it to stop the server of earlier workers.
        """
        if self._workers_lock is not None and not is_same_file(
            self._workers_lock, self._folder.path / WORKERS_LOCK
        ):
            self._report("embedded_redis_folder_deleted", f"{self._folder.path} was deleted, with all data")
            self._leave()
        if self._workers_lock is None:
            self._workers_lock = self._folder.lock(WORKERS_LOCK, exclusive=False)
        return self._workers_lock is not None

    def _leave(self) -> None:
        descriptors = (self._serving_lock, self._workers_lock)
        self._serving_lock = self._workers_lock = None
        for descriptor in descriptors:
            if descriptor is not None:
                os.close(descriptor)

    def _is_needed(self) -> bool:
        """Return whether a worker holds `workers.lock`: only an exclusive lock then fails."""
        can_lock = self._folder.can_lock
        return not can_lock(WORKERS_LOCK, exclusive=True) and can_lock(WORKERS_LOCK, exclusive=False)

    def _another_worker_serves(self) -> bool:
        try:
            return not self._folder.can_lock(SERVING_LOCK, exclusive=True)
        except EmbeddedRedisError:
            return False

    # ------------------------------------------------------------ the server and its guard

    def _start_guard(self) -> None:
        with self._folder.try_lock(GUARD_LOCK) as lock:
            if lock is None:
                return
            if self._guard is not None:
                self._guard.wait()  # the earlier guard was killed
            with (
                self._folder.open_log() as log,
                os.fdopen(self._folder.open_lock(WORKERS_LOCK)) as workers,
                os.fdopen(self._folder.open_lock(SERVER_LOCK)) as server,
            ):
                inherited = (lock, workers.fileno(), server.fileno())
                command = [sys.executable, "-I", "-S", guard.__file__, str(self._folder.path)]
                command += map(str, inherited)
                self._guard = spawn(self._folder, command, log, *inherited)

    async def _answers(self) -> bool:
        """Return whether the server answers.

        A refusal counts as an answer, except while the data is loading.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(self._folder.socket)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            answer = await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
        return answer != b"" and not answer.startswith(b"-LOADING")

    def _report(self, event: str, reason: str) -> None:
        """Log `reason`, but the same reason at most once in `REMINDER_SECONDS`."""
        now = self._clock.monotonic()
        if reason != self._reported[0] or now - self._reported[1] >= REMINDER_SECONDS:
            self._reported = (reason, now)
            _log.error(event, extra={"folder": str(self._folder.path), "reason": reason})
