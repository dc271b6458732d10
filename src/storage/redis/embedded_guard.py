"""The process that stops an embedded server when no worker needs the server any more.

Every worker holds `workers.lock` shared, and the guard waits until it can hold that lock alone. The kernel
drops a lock when its holder ends, so a worker that is killed needs to do nothing. The guard also stops a
server whose data folder was deleted: it would acknowledge writes into files that nobody can open again.

It is run by its path, without site-packages, and imports the standard library only, so that it starts in
milliseconds and takes little memory. It inherits its lock files, which may be deleted before it opens them.
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
"""Time between SIGTERM and SIGKILL, and the longest wait for a killed server to end."""

FOLDER_CHECK_SECONDS = 1.0
"""How often the guard looks whether the folder still exists."""


class _FolderDeletedError(Exception):
    pass


def is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def signal_server(pid: int, number: signal.Signals) -> None:
    """Send a signal to the server `pid`, and to its child that rewrites the append-only file.

    Call it only while one of them holds the server's lock: then the id belongs to no other process.
    """
    with suppress(ProcessLookupError):  # they end at this moment
        os.killpg(pid, number)


def main(folder: Path, guard_lock: int, workers: int, server: int) -> None:
    """Wait until no worker is left or `folder` is deleted, then stop the server.

    Args:
        folder: The data folder.
        guard_lock: Descriptor of the lock that shows that the guard runs.
        workers: Descriptor of `workers.lock`, not locked.
        server: Descriptor of `server.lock`, not locked.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the guard ends by itself, after the workers
    workers_lock = folder / WORKERS_LOCK
    with suppress(_FolderDeletedError):
        _wait_for_last_worker(workers, workers_lock)
    if is_same_file(workers, workers_lock):
        _stop(server, signal.SIGTERM, signal.SIGKILL)
    else:  # an orderly end would delete the socket, which may be that of a new server in a new folder
        _stop(server, signal.SIGKILL)
    os.close(guard_lock)  # before the workers' lock: the next worker that can join needs a guard of its own


def _wait_for_last_worker(workers: int, path: Path) -> None:
    def check_folder() -> None:
        if not is_same_file(workers, path):
            raise _FolderDeletedError

    with _interval(FOLDER_CHECK_SECONDS, check_folder):
        fcntl.flock(workers, fcntl.LOCK_EX)


def _stop(server: int, *signals: signal.Signals) -> None:
    """Send one signal after the other, until the server has given up its lock."""

    def give_up() -> None:
        raise TimeoutError

    for number in signals:
        with suppress(BlockingIOError):
            fcntl.flock(server, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        with suppress(ValueError):  # its starter was killed before it wrote the id
            signal_server(int(os.pread(server, 32, 0)), number)
        with suppress(TimeoutError), _interval(STOP_GRACE_SECONDS, give_up):
            fcntl.flock(server, fcntl.LOCK_SH)
            return


@contextmanager
def _interval(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Call `call` every `seconds` during the block. What it raises is raised in the block."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: call())
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
