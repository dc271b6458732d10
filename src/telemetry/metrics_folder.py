"""The folder in which the workers of one parent process share their metrics.

The name of the folder comes from a random key of the parent, so all its workers use the same folder. Each
running worker holds a shared lock on the folder. The last worker to stop gets an exclusive lock, and removes
the folder. The next worker that starts removes the folders of killed workers. Windows has no such locks, so
folders remain there.
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
"""The environment variable with which prometheus-client finds the folder."""

_PREFIX = "resilient-analytics-"


def join_folder() -> Callable[[], None]:
    """Set `MULTIPROC_DIR` to the folder if this process is a worker and the variable is not set.

    Returns:
        A function that releases the folder, and removes it unless another worker uses it.

    Raises:
        PermissionError: Another user has a folder of this name.
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
        """Create `folder` and lock it, and return the function that releases it."""
        while True:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()  # any user can create the folder first
            if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
                raise PermissionError(f"{folder} belongs to another user; set {MULTIPROC_DIR}")
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if folder.stat().st_ino == os.fstat(descriptor).st_ino:
                    return lambda: _remove_if_alone(folder, descriptor)
            os.close(descriptor)  # another worker removed the folder before it was locked

    def _remove_if_alone(folder: Path, descriptor: int) -> None:
        """Release the lock of `folder`, and remove the folder unless another worker holds a lock."""
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)

    def _remove_abandoned(parent: Path) -> None:
        for folder in parent.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # the folder belongs to another user, or was removed in the meantime
                _remove_if_alone(folder, os.open(folder, os.O_RDONLY))
