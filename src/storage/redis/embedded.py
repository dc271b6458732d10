"""A private, real redis-server as a child process (`REDIS_URL=embedded://`).

Several workers share one server. Locked files in its data folder show which processes run:

- `workers.lock`, shared: held by every worker that needs the server. Only a holder starts the server.
- `serving.lock`, shared: held by every worker whose start has succeeded.
- `server.lock`, exclusive: inherited by the server.
- `guard.lock`, exclusive: inherited by the guard, the process that stops the server after the last worker
  (`embedded_guard.py`).

The last two hold the process id of their holder. The kernel drops a lock when its holder ends, however it
ends, so nothing here can be stale. No worker waits for the server while it holds a lock that another worker's
start needs.
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
from src.storage.redis import embedded_guard
from src.storage.redis.embedded_folder import EmbeddedFolder, EmbeddedRedisError
from src.storage.redis.embedded_guard import SERVER_LOCK, STOP_GRACE_SECONDS, WORKERS_LOCK, is_same_file
from src.storage.redis.embedded_server import FsyncPolicy, ServerProcess, spawn

_log = logging.getLogger(__name__)

SERVING_LOCK = "serving.lock"
GUARD_LOCK = "guard.lock"

START_WAIT_SECONDS = 5.0
"""The longest that a worker's start waits for the server. Afterwards the worker starts without it."""
STOP_WAIT_SECONDS = 2 * STOP_GRACE_SECONDS + 1
"""The longest that a worker waits for the guard to stop the server."""
REMINDER_SECONDS = 60.0
"""How often it is logged that the server does not run, while the reason stays the same."""
POLL_SECONDS = 0.02


class EmbeddedRedis:
    """One worker's share in the redis-server of `folder`.

    Args:
        folder: Holds the data, the log of the running server and the locks; made when missing.
        appendfsync: When the server syncs its append-only file. With "always" a write is on the disk before
            it is acknowledged.
        clock: Times the waiting for the server; None is the machine's own.
    """

    def __init__(self, folder: Path, appendfsync: FsyncPolicy = "always", clock: Clock | None = None) -> None:
        self._folder = EmbeddedFolder(folder)
        self._clock = clock or SystemClock()
        self._server = ServerProcess(self._folder, appendfsync, self._clock, self._report)
        self._presence: int | None = None
        self._serving: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._reported: tuple[str, float] = ("", -math.inf)

    @property
    def url(self) -> str:
        """Where the server listens, as a `unix://` URL."""
        return f"unix://{quote(str(self._folder.socket))}"

    async def start(self) -> str:
        """Join the server, start it where it does not run, and return its URL.

        Waits for the server's answer, but only for `START_WAIT_SECONDS`: while the server is frozen or still
        loads its data, the worker starts without it. If the server cannot be started, the worker starts
        without it too where another worker serves already, so that one worker's end cannot end the others.

        Raises:
            EmbeddedRedisError: No worker serves yet, and the folder cannot be written, there is no
                redis-server, or it cannot read the data.
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
                with suppress(EmbeddedRedisError):  # of the same cause as the first, which is raised
                    await self.stop()
                raise
        except BaseException:
            self._leave()
            raise
        self._serving = self._folder.lock(SERVING_LOCK, exclusive=False)
        return self.url

    async def ensure_running(self) -> None:
        """Start the server and its guard where they do not run, in a new folder where theirs was deleted.

        Does not wait for the server's answer, and does nothing while the server's process lives.

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
        """Leave the server, and wait until the guard has stopped it where no other worker is left.

        A caller that never joined may use it too: it stops a server whose workers and guard were all killed.
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

    # ------------------------------------------------------------ which workers there are

    def _join(self) -> bool:
        """Hold `workers.lock`, and return False while the guard stops the server of earlier workers."""
        if self._presence is not None and not is_same_file(self._presence, self._folder.path / WORKERS_LOCK):
            self._report("embedded_redis_folder_deleted", f"{self._folder.path} was deleted, with all data")
            self._leave()
        if self._presence is None:
            self._presence = self._folder.lock(WORKERS_LOCK, exclusive=False)
        return self._presence is not None

    def _leave(self) -> None:
        held = (self._serving, self._presence)
        self._serving = self._presence = None
        for descriptor in held:
            if descriptor is not None:
                os.close(descriptor)

    def _is_needed(self) -> bool:
        """Return whether a worker holds `workers.lock`. If only the guard holds it, no worker can lock it."""
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
                self._guard.wait()  # it was killed
            with (
                self._folder.open_log() as log,
                os.fdopen(self._folder.open_lock(WORKERS_LOCK)) as workers,
                os.fdopen(self._folder.open_lock(SERVER_LOCK)) as server,
            ):
                inherited = (lock, workers.fileno(), server.fileno())
                command = [sys.executable, "-I", "-S", embedded_guard.__file__, str(self._folder.path)]
                command += map(str, inherited)
                self._guard = spawn(self._folder, command, log, *inherited)

    async def _answers(self) -> bool:
        """Return whether the server answers. A refusal is an answer, unless it says that data are loading."""
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
        """Log `reason`, but the same one only every `REMINDER_SECONDS`."""
        now = self._clock.monotonic()
        if reason != self._reported[0] or now - self._reported[1] >= REMINDER_SECONDS:
            self._reported = (reason, now)
            _log.error(event, extra={"folder": str(self._folder.path), "reason": reason})
