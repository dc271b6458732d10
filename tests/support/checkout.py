"""A copy of the project, in which tests run its scripts like a user."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.support.server import free_port

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ("requirements-installer.txt", "requirements.txt")
COMMAND_TIMEOUT_SECONDS = 300


class Checkout:
    """A copy of the project in `folder`, with its own ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        left_behind = shutil.ignore_patterns(
            ".git", ".env", ".venv*", ".*_cache", ".hypothesis", ".coverage*", "__pycache__", "data", "run"
        )
        shutil.copytree(ROOT, folder, ignore=left_behind, dirs_exist_ok=True)
        self.port = free_port()
        self.provider_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "APP_PORT": str(self.port),
            "PROVIDER_PORT": str(self.provider_port),
        }

    def installed(self) -> "Checkout":
        """Create a `.venv` that uses this Python with its installed requirements."""
        python = self.folder / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        installed = "".join((ROOT / name).read_text() for name in REQUIREMENTS)
        (self.folder / ".venv" / "installed-requirements.txt").write_text(installed)
        return self

    def run(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a script from another working folder, since the folder must not matter."""
        return subprocess.run(
            [str(self.folder / command[0]), *command[1:]],
            cwd="/",
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )

    def run_script(self, script: str, **variables: str) -> str:
        """Run a script of bash in this folder, with the commands of `.venv`, and return what it prints."""
        path = f"{self.folder / '.venv' / 'bin'}:{self.environment['PATH']}"
        result = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment | {"PATH": path, "CURL_HOME": str(self.folder), "NO_COLOR": "1"} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
        return result.stdout

    def start(self, **variables: str) -> "subprocess.CompletedProcess[str]":
        return self.run("start.sh", "--local", **variables)

    def stop(self) -> "subprocess.CompletedProcess[str]":
        return self.run("start.sh", "stop")

    def admin_key(self) -> str:
        """Return the effective key in .env."""
        [*_, key] = re.findall(r"^ADMIN_API_KEY=(.*)$", (self.folder / ".env").read_text(), re.MULTILINE)
        return key

    def pid(self, name: str) -> int:
        return int((self.folder / "run" / f"{name}.pid").read_text().split()[0])

    def status_of_setting_the_failure_rate(self, key: str | None) -> int:
        """Set the failure rate with `key`, and return the status of the answer."""
        url = f"{self.url}/api/admin/external-service/failure-rate"
        headers = {} if key is None else {"X-API-Key": key}
        return httpx.put(url, json={"failure_rate": 0.5}, headers=headers).status_code

    def answers(self, port: int) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/health").is_success
        return False

    @property
    def redis_runs(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(self.folder / "data" / "redis.sock"))
            return True
        return False


@contextmanager
def installed_checkout() -> Iterator[Checkout]:
    """Yield a copy of the project in a temporary folder. Its processes are stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="checkout-") as folder:
        checkout = Checkout(Path(folder)).installed()
        try:
            yield checkout
        finally:
            checkout.stop()
