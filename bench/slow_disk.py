"""Simulates a slow disk for a redis-server: each sync is delayed. It needs Linux and a C compiler."""

import shutil
import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).with_name("slow_fdatasync.c")


def slow_disk(folder: Path, seconds: float) -> dict[str, str] | None:
    """Return environment variables that delay each sync of a process.

    Args:
        folder: The folder for the compiled library.
        seconds: The delay of each `fdatasync`.

    Returns:
        The variables, or None without a C compiler or on a system other than Linux.
    """
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "slow_fdatasync.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE)]
    subprocess.run(command, check=True, capture_output=True)
    return {"LD_PRELOAD": str(library), "FDATASYNC_DELAY_US": str(round(seconds * 1_000_000))}
