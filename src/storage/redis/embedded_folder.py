"""The files of an embedded server: its data folder, its socket, its locks and its log."""

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
"""The shortest limit among systems is macOS' 104, its closing NUL included (`sun_path` in unix(4))."""

LOG_BYTES = 2**16

_LOG_PREFIX = re.compile(r"^\d+:\w .*?\d [.\-*#] ")
"""Process id, role, time and level before each message in the server's log."""


class EmbeddedRedisError(OSError):
    """The server cannot be run; the message names the folder and says why.

    An `OSError`, as a refused connection is: a link that revives the server takes it for an outage.
    """


class EmbeddedFolder:
    """The data folder of an embedded server.

    Args:
        path: Made by `make`, if it is missing.

    Attributes:
        path: Absolute.
        socket: Where the server listens: in the folder, or in a temporary one of this user where the folder's
            path is too long for a socket.
        log: What the running server has logged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.socket = _socket_path(self.path)
        self.log = self.path / "redis.log"

    def make(self) -> None:
        """Make the folders that are missing.

        Raises:
            EmbeddedRedisError: One cannot be made, or others can write into the socket's folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.socket.parent.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise self.error(f"cannot be made: {error.strerror}") from error
        if self.socket.parent == self.path:
            return
        owner = self.socket.parent.lstat()  # /tmp is everybody's: the name may have been taken
        if owner.st_uid != os.getuid() or owner.st_mode & 0o077 or self.socket.parent.is_symlink():
            raise self.error(f"its socket's folder {self.socket.parent} is not ours alone")

    def open_lock(self, name: str) -> int:
        """Return a descriptor of the lock file `name`, which is made if it is missing.

        On a file system that became read-only the descriptor can be locked but not written.

        Raises:
            EmbeddedRedisError: The file can neither be opened nor made.
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
        """Lock the file `name`, and return its descriptor; None if another process's lock forbids it.

        The lock is held until the descriptor, and every copy that a process inherited, is closed.

        Args:
            name: A file in the folder, which is made if it is missing.
            exclusive: Whether no other process may hold it, or no other exclusively.

        Raises:
            EmbeddedRedisError: The file can neither be opened nor made.
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
        """Hold the file `name` exclusively during the block, unless another process's lock forbids it."""
        descriptor = self.lock(name, exclusive=True)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def open_log(self, *, new: bool = False) -> IO[bytes]:
        """Return the log, to be appended to.

        Args:
            new: Whether it begins empty. Those who hold the earlier log can still read it.
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
        """Return the error for a file that cannot be opened, made or written."""
        return self.error(f"cannot be written: {cause.strerror}")

    def error(self, reason: str) -> EmbeddedRedisError:
        """Return an error whose message names the folder."""
        return EmbeddedRedisError(f"embedded Redis in {self.path}: {reason}")


def _socket_path(folder: Path) -> Path:
    in_folder = folder / "redis.sock"
    if len(os.fsencode(in_folder)) <= MAX_SOCKET_PATH_BYTES:
        return in_folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"redis-{os.getuid()}-{digest}" / in_folder.name
