"""The folder in which the workers of one parent keep their metrics for each other.

All workers of a parent find the same folder, by a key that the parent draws when it starts. Each worker holds
a shared lock on the folder as long as it runs. So the last one to stop knows that it is the last, and removes
the folder. A folder that killed workers left behind is removed by the next worker that starts. On Windows,
which has no such locks, folders stay.
"""

import hashlib
import multiprocessing
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus-client is told the folder."""

_PREFIX = "resilient-analytics-"


def join_folder() -> Callable[[], None]:
    """Name the folder in the environment, where this process is a worker and the environment names none.

    Returns:
        What leaves the folder, and removes it unless another worker is there.

    Raises:
        PermissionError: The folder's name is taken by another user.
    """
    if MULTIPROC_DIR in os.environ or multiprocessing.parent_process() is None:
        return lambda: None
    key = hashlib.sha256(multiprocessing.current_process().authkey).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{key[:32]}"
    leave = _hold(folder)
    os.environ[MULTIPROC_DIR] = str(folder)
    _remove_abandoned(folder.parent)
    return leave


if sys.platform == "win32":

    def _hold(folder: Path) -> Callable[[], None]:
        folder.mkdir(exist_ok=True)
        return lambda: None

    def _remove_abandoned(parent: Path) -> None:
        pass

else:

    def _hold(folder: Path) -> Callable[[], None]:
        """Make `folder` and lock it, and return what gives it up."""
        while True:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()  # the temporary folder is everybody's: the name may have been taken
            if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
                raise PermissionError(f"{folder} belongs to another user; set {MULTIPROC_DIR}")
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if folder.stat().st_ino == os.fstat(descriptor).st_ino:
                    return lambda: _remove_if_alone(folder, descriptor)
            os.close(descriptor)  # its last worker removed it before we had the lock

    def _remove_if_alone(folder: Path, descriptor: int) -> None:
        """Remove `folder` if nobody else holds it. Its lock is given up in any case."""
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)

    def _remove_abandoned(parent: Path) -> None:
        for folder in parent.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # another user's, or removed meanwhile
                _remove_if_alone(folder, os.open(folder, os.O_RDONLY))
