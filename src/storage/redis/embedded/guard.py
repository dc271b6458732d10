"""The guard: a process that stops an embedded server after the last worker has ended.

Every worker has a shared lock on `workers.lock`. The guard waits until it gets an exclusive lock on that
file. The kernel releases a lock when its holder ends, even if the worker is killed. The guard also stops a
server whose data folder was deleted: the server would acknowledge writes that cannot be read after its end.

The guard is run by its path, without site-packages, and imports only the standard library. It therefore
starts in milliseconds and uses little memory. It inherits the descriptors of the lock files, because the
files may be deleted before it could open them.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

WORKERS_LOCK = "workers.lock"
SERVER_LOCK = "server.lock"

STOP_GRACE_SECONDS = 5.0
"""The time between SIGTERM and SIGKILL, and the longest wait for the end of a killed server."""

FOLDER_CHECK_SECONDS = 1.0
"""The time between two checks that the folder still exists."""


class _FolderDeletedError(Exception):
    pass


def is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether `path` is still the path of the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def signal_server(pid: int, number: signal.Signals) -> None:
    """Send a signal to the server `pid` and to its child process that rewrites the append-only file.

    Call it only while one of these processes holds the server's lock. The id then belongs to no other
    process.
    """
    with suppress(ProcessLookupError):  # the processes may end at this moment
        os.killpg(pid, number)


def main(folder: Path, guard_lock: int, workers: int, server: int) -> None:
    """Wait until the last worker has ended or `folder` was deleted, then stop the server.

    Args:
        folder: The data folder.
        guard_lock: The descriptor of `guard.lock`, which shows that a guard runs. It is locked.
        workers: The descriptor of `workers.lock`. It is not locked.
        server: The descriptor of `server.lock`. It is not locked.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the guard must outlive the workers
    workers_lock = folder / WORKERS_LOCK
    with suppress(_FolderDeletedError):
        _wait_for_last_worker(workers, workers_lock)
    if is_same_file(workers, workers_lock):
        _stop(server, signal.SIGTERM, signal.SIGKILL)
    else:  # on SIGTERM the server would delete the socket, which may belong to a new server in a new folder
        _stop(server, signal.SIGKILL)
    os.close(guard_lock)  # before the workers' lock is released: the next worker needs a new guard


def _wait_for_last_worker(workers: int, path: Path) -> None:
    def check_folder() -> None:
        if not is_same_file(workers, path):
            raise _FolderDeletedError

    with _interval(FOLDER_CHECK_SECONDS, check_folder):
        fcntl.flock(workers, fcntl.LOCK_EX)


def _stop(server: int, *signals: signal.Signals) -> None:
    """Send one signal after another until the server has released its lock."""

    def end_wait() -> None:
        raise TimeoutError

    for number in signals:
        with suppress(BlockingIOError):
            fcntl.flock(server, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        with suppress(ValueError):  # the worker that started the server was killed before it wrote the id
            signal_server(int(os.pread(server, 32, 0)), number)
        with suppress(TimeoutError), _interval(STOP_GRACE_SECONDS, end_wait):
            fcntl.flock(server, fcntl.LOCK_SH)
            return


@contextmanager
def _interval(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Call `call` every `seconds` during the block. The block raises the errors of `call`."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: call())
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
