"""The contestants: this API, the stacks and databases beside it, and the bare server and framework."""

import hashlib
import json
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bench.peers.databases import DATABASES, Database
from bench.processes import CACHE, CHECKOUT, SERVER_CORE, free_port, running

REQUIREMENTS = CHECKOUT / "bench" / "requirements.txt"


@dataclass(frozen=True, slots=True)
class Application:
    """An application in Python.

    Attributes:
        name: The name in the tables.
        module: `src` for this API, else the module of an ASGI `app`.
        packages: The distributions that it needs from the benchmark's requirements.
        is_bare: Whether the application only answers each request with 200.
    """

    name: str
    module: str
    packages: tuple[str, ...] = ()
    is_bare: bool = False

    def command(self, python: Path, port: int) -> list[str]:
        """Return the command that starts one worker. Like this API, it logs each request unless bare."""
        if self.module == "src":
            return [str(python), "-m", "src"]
        serve = ["-m", "uvicorn", f"{self.module}:app", "--host", "127.0.0.1", "--port", str(port)]
        return [str(python), *serve, *(["--no-access-log"] if self.is_bare else [])]

    def environment(self, port: int) -> dict[str, str]:
        """Return the settings with which it serves on `port`."""
        return {"APP_HOST": "127.0.0.1", "APP_PORT": str(port), "WEB_CONCURRENCY": "1"}


Contestant: TypeAlias = Application | Database

OURS = Application("this API", "src")
ASSEMBLED = Application(
    "assembled", "bench.peers.assembled", ("slowapi", "fastapi-cache2", "aiobreaker", "redis", "fastapi")
)
OFFICIAL = Application("Redis' SDK", "bench.peers.official", ("fastapi-redis-sdk", "redis", "fastapi"))
FASTAPI = Application("FastAPI, hello", "bench.peers.bare_fastapi", is_bare=True)
UVICORN = Application("uvicorn, bare", "bench.peers.bare_uvicorn", is_bare=True)

STACKS = (ASSEMBLED, OFFICIAL)
APPLICATIONS = (OURS, *STACKS, FASTAPI, UVICORN)


@contextmanager
def serving(
    contestant: Contestant, program: Path, environment: Mapping[str, str]
) -> Iterator[tuple[int, int]]:
    """Serve with `contestant` on the server's core until the block ends.

    Args:
        contestant: The contestant.
        program: The interpreter of an application, or the server of a database.
        environment: Settings in addition to its own.

    Yields:
        The process id and the port of the contestant.
    """
    port = free_port()
    settings = {**contestant.environment(port), **environment}
    with running(contestant.command(program, port), SERVER_CORE, settings, port) as process:
        if isinstance(contestant, Database):
            contestant.prepare(port)
        yield process.pid, port


def programs(peers: Path | None) -> dict[Contestant, Path]:
    """Return the program of each available contestant. Print a line on stderr for each missing one.

    Args:
        peers: The interpreter with the peers; None creates an environment with them.
    """
    found: dict[Contestant, Path] = {}
    peers = peers or _peer_python()
    for application in APPLICATIONS:
        if not application.packages:
            found[application] = Path(sys.executable)
        elif peers is not None:
            had = versions(peers, application.packages)
            if missing := [package for package, version in had.items() if version is None]:
                print(f"{application.name} is left out: {', '.join(missing)} missing", file=sys.stderr)
            else:
                found[application] = peers
    for database in DATABASES:
        if (program := database.find()) is not None:
            found[database] = program
    return found


def _peer_python() -> Path | None:
    """Return an interpreter with the peers. Return None after a message on stderr if that fails.

    The environment is created on first use, in the user's cache folder. Its name is a hash of the
    requirements and of the Python version.
    """
    known = REQUIREMENTS.read_bytes() + sys.version.encode()
    folder = CACHE / hashlib.sha256(known).hexdigest()[:12]
    python = folder / "bin" / "python"
    is_complete = folder / "complete"
    if not is_complete.exists():
        print(f"Installing {REQUIREMENTS.relative_to(CHECKOUT)} into {folder}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*install, "-r", str(REQUIREMENTS)], check=False).returncode:
            print("The peers could not be installed: see above", file=sys.stderr)
            return None
        is_complete.touch()
    return python


def versions(python: Path, packages: tuple[str, ...]) -> dict[str, str | None]:
    """Return the versions of `packages` that `python` has; None for a missing package."""
    program = """
import importlib.metadata, json, sys
found = {}
for package in sys.argv[1:]:
    try:
        found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        found[package] = None
print(json.dumps(found))
"""
    command = [str(python), "-c", program, *packages]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str | None] = json.loads(completed.stdout)
    return found
