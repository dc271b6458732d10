"""The modules of the embedded server on systems without an embedded server."""

import subprocess
import sys

AS_ON_WINDOWS = """
import asyncio, shutil, signal, subprocess, sys, tempfile
sys.modules["fcntl"] = None
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "ITIMER_REAL", "setitimer"):
    delattr(signal, name)
sys.platform = "win32"
import src.storage.redis.embedded.embedded_redis
from src.storage.redis.embedded.server_binary import find_redis_server
assert find_redis_server() is None
"""


def test_the_modules_can_be_imported_without_flock_and_sigkill():
    imported = subprocess.run(
        [sys.executable, "-c", AS_ON_WINDOWS], capture_output=True, text=True, check=False
    )
    assert imported.returncode == 0, imported.stderr
