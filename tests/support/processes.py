"""The state of other processes."""

import time
from collections.abc import Callable
from pathlib import Path


def runs(pid: int) -> bool:
    """Return whether the process runs. A zombie does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until a condition on other processes is met, and fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
