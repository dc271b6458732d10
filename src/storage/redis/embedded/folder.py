"""The files of an embedded server: the data folder, the socket, the locks and the log."""

import errno
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

MAX_SOCKET_PATH_BYTES = 100
"""The longest socket path that is used. The lowest limit, on macOS, is 104 bytes with the NUL (unix(4),
`sun_path`)."""

LOG_BYTES = 2**16
"""The number of bytes at the end of a log that `messages` reads."""

_LOG_PREFIX = re.compile(r"^\d+:\w .*?\d [.\-*#] ")
"""Matches the process id, role, time and level before each message in the server's log."""


class EmbeddedRedisError(OSError):
    """The embedded server cannot be run. The message names the folder and the reason.

    This is an `OSError`, like a refused connection, so that `RedisLink` treats it as an outage.
    """


class EmbeddedFolder:
    """The data folder of an embedded server.

    Args:
        path: The folder. `make` creates it if it is missing.

    Attributes:
        path: The absolute path of the folder.
        socket: The path of the server's unix socket: in the data folder, or in a temporary folder of this
            user if the path of the data folder is too long.
        log: The path of the running server's log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.socket = _socket_path(self.path)
        self.log = self.path / "redis.log"

    def make(self) -> None:
        """Create the data folder and the folder of the socket, if they are missing.

        Raises:
            EmbeddedRedisError: A folder cannot be created, or other users can write to the socket's folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.socket.parent.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise self.error(f"the folder cannot be created: {error.strerror}") from error
        if self.socket.parent == self.path:
            return
        found = self.socket.parent.lstat()  # another user may have created this name in /tmp
        if found.st_uid != os.getuid() or found.st_mode & 0o077 or self.socket.parent.is_symlink():
            raise self.error(f"the socket's folder {self.socket.parent} is not private to this user")

    def open_lock(self, name: str) -> int:
        """Open the lock file `name` and return its descriptor. A missing file is created.

        On a read-only file system, the descriptor can be locked but not written.

        Raises:
            EmbeddedRedisError: The file can be neither opened nor created.
        """
        path, flags = self.path / name, os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(path, os.O_RDWR | flags, 0o600)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise self.cannot_be_written(error) from error
        try:
            return os.open(path, os.O_RDONLY | flags, 0o600)
        except OSError as error:
            raise self.cannot_be_written(error) from error

    def lock(self, name: str, *, exclusive: bool) -> int | None:
        """Lock the file `name` and return its descriptor, or None if another process has a conflicting lock.

        The lock lasts until the descriptor and every inherited copy of it are closed.

        Args:
            name: The name of a file in the folder. A missing file is created.
            exclusive: True for an exclusive lock, False for a shared lock.

        Raises:
            EmbeddedRedisError: The file can be neither opened nor created.
        """
        descriptor = self.open_lock(name)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def can_lock(self, name: str, *, exclusive: bool) -> bool:
        """Return whether `lock` would succeed."""
        descriptor = self.lock(name, exclusive=exclusive)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None

    @contextmanager
    def try_lock(self, name: str) -> Iterator[int | None]:
        """Lock the file `name` exclusively during the block.

        Yield None if another process has a lock on it.
        """
        descriptor = self.lock(name, exclusive=True)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def open_log(self, *, new: bool = False) -> IO[bytes]:
        """Open the log for appending.

        Args:
            new: Whether to begin an empty log. A process that has the earlier log open can still read it.

        Raises:
            EmbeddedRedisError: The log cannot be opened.
        """
        try:
            if new:
                self.log.unlink(missing_ok=True)
            return self.log.open("ab+", buffering=0)
        except OSError as error:
            raise self.cannot_be_written(error) from error

    @staticmethod
    def messages(log: IO[bytes]) -> list[str]:
        """Return the messages in the last `LOG_BYTES` of a log, without their times and process ids."""
        end = os.fstat(log.fileno()).st_size
        text = os.pread(log.fileno(), LOG_BYTES, max(0, end - LOG_BYTES)).decode(errors="replace")
        return [_LOG_PREFIX.sub("", line.strip()) for line in text.splitlines()]

    def cannot_be_written(self, cause: OSError) -> EmbeddedRedisError:
        """Return the error for a file that cannot be opened, created or written."""
        return self.error(f"the folder cannot be written: {cause.strerror}")

    def error(self, reason: str) -> EmbeddedRedisError:
        """Return an error whose message names the folder."""
        return EmbeddedRedisError(f"embedded Redis in {self.path}: {reason}")


def _socket_path(folder: Path) -> Path:
    in_folder = folder / "redis.sock"
    if len(os.fsencode(in_folder)) <= MAX_SOCKET_PATH_BYTES:
        return in_folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"redis-{os.getuid()}-{digest}" / in_folder.name
