"""The installation has exactly the pinned packages, with each version of pip and Python, at any time.

Most of these tests need a package registry, about a minute, and RUN_INSTALL_TESTS=1.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from math import inf
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest
from packaging.requirements import Requirement

from tests.support.checkout import ROOT, Checkout

REQUIREMENTS = ["requirements.txt", "requirements-test.txt", "requirements-dev.txt"]
OLDEST_PIP = "23.0.1"
PIPS = [OLDEST_PIP, "23.2.1", "newest"]
"""Debian 12 has 23.0, CPython 3.11.7 has 23.2."""

COLD_START_SECONDS = 15
COLD_START_ATTEMPTS = 3

RUN = os.environ.get("RUN_INSTALL_TESTS") == "1"


def needs_a_registry(test: Callable[..., None]) -> Callable[..., None]:
    no_bash = sys.platform == "win32" or shutil.which("bash") is None
    for mark in (
        pytest.mark.install,
        pytest.mark.skipif(not RUN, reason="takes a minute and a registry; asked for by RUN_INSTALL_TESTS=1"),
        pytest.mark.skipif(no_bash, reason="there is no bash here"),
    ):
        test = mark(test)
    return test


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def run_checked(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    result = run(*command, cwd=cwd, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def minor_version(python: str | Path) -> tuple[int, int] | None:
    """Return the version of a Python, or None if the command runs no Python."""
    try:
        answer = run(python, "-c", "import sys; print(sys.version_info[1])")
    except OSError:
        return None
    return (3, int(answer.stdout)) if answer.returncode == 0 else None


@cache
def pythons() -> list[Path]:
    """Return the installed CPythons from 3.11 on, one of each version."""
    if not RUN:
        return [Path(sys.executable)]  # finding the other servers takes time, and only these tests need them
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = [shutil.which(f"python3.{minor}") for minor in range(11, 15)]
    candidates = [sys.executable, *filter(None, on_path), *sorted(pyenv.glob("3.*/bin/python"))]
    found: dict[tuple[int, int], Path] = {}
    for candidate in candidates:
        version = minor_version(candidate)
        if version is not None and version >= (3, 11):
            found.setdefault(version, Path(candidate))
    return [found[version] for version in sorted(found)]


class Environment:
    """A virtual environment with a given version of pip, and a copy of the scripts' files."""

    def __init__(self, folder: Path, python: Path, pip: str) -> None:
        shutil.copytree(ROOT / "scripts", folder / "scripts")
        for name in [*REQUIREMENTS, "requirements-installer.txt"]:
            shutil.copy(ROOT / name, folder)
        self.folder = folder
        self.python = folder / ".venv" / "bin" / "python"
        run_checked(python, "-m", "venv", folder / ".venv")
        wanted = ["--upgrade", "pip"] if pip == "newest" else [f"pip=={pip}"]
        run_checked(self.python, "-m", "pip", "install", "--quiet", *wanted)

    def install(self, requirements: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        script = '. scripts/environment.sh; make_venv "$1"'
        return run("bash", "-c", script, "bash", requirements, cwd=self.folder, VENV=".venv", **variables)

    def installed(self) -> dict[str, str]:
        frozen = run_checked(self.python.with_name("uv"), "pip", "freeze", "--python", self.python)
        return dict(line.split("==") for line in frozen.splitlines())

    def pinned(self, requirements: str) -> dict[str, str]:
        """Return the pins of a file that apply to this Python."""
        version = run_checked(self.python, "-c", "import platform; print(platform.python_version())").strip()
        marks = {"python_full_version": version, "python_version": version.rpartition(".")[0]}
        lines = (self.folder / requirements).read_text().splitlines()
        pins = [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalpha()]
        return {
            pin.name: str(pin.specifier).removeprefix("==")
            for pin in pins
            if pin.marker is None or pin.marker.evaluate(marks)
        }


@needs_a_registry
@pytest.mark.parametrize("pip", PIPS)
@pytest.mark.parametrize("python", pythons(), ids=str)
def test_exactly_the_pinned_packages_are_installed(tmp_path: Path, python: Path, pip: str) -> None:
    if pip == OLDEST_PIP and minor_version(python) > (3, 11):
        pytest.skip("pip before 23.1.2 does not run on CPython 3.12, which has no pkgutil.ImpImporter")
    environment = Environment(tmp_path, python, pip)

    for requirements in ("requirements.txt", "requirements-dev.txt"):
        result = environment.install(requirements)
        assert result.returncode == 0, result.stdout + result.stderr
        beside = {"pip", "setuptools", "uv"}
        found = {name: version for name, version in environment.installed().items() if name not in beside}
        assert found == environment.pinned(requirements)
    run_checked(environment.python, "-W", "error", "-c", "import src.main, src.provider.app")


@needs_a_registry
def test_a_cold_local_start_is_healthy_within_15_seconds(tmp_path: Path) -> None:
    """The fastest of three attempts counts, so a machine that is busy for a while does not fail the test."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))}
    durations: list[float] = []
    while len(durations) < COLD_START_ATTEMPTS and min(durations, default=inf) > COLD_START_SECONDS:
        checkout = Checkout(tmp_path / f"checkout-{len(durations)}")  # it has no .venv
        began = monotonic()
        started = checkout.start(HOME=str(checkout.folder), **variables)  # an empty home folder has no caches
        durations.append(monotonic() - began)
        checkout.stop()
        assert started.returncode == 0, started.stdout + started.stderr

    assert min(durations) <= COLD_START_SECONDS, durations


@needs_a_registry
def test_a_newer_release_of_a_pinned_package_changes_nothing(tmp_path: Path) -> None:
    oldest_that_runs = OLDEST_PIP if sys.version_info < (3, 12) else "23.2.1"
    environment = Environment(tmp_path / "checkout", Path(sys.executable), oldest_that_runs)
    index = index_with_newer_releases(tmp_path / "index", "coverage", "fakeredis", "uv")
    download = [environment.python, "-m", "pip", "download", "--no-deps", "--dest", tmp_path]
    run_checked(*download, "coverage", PIP_EXTRA_INDEX_URL=index)
    assert (tmp_path / "coverage-999.0-py3-none-any.whl").exists(), "pip finds the newer release"

    result = environment.install("requirements-dev.txt", PIP_EXTRA_INDEX_URL=index)

    assert result.returncode == 0, result.stdout + result.stderr
    assert environment.pinned("requirements-dev.txt").items() <= environment.installed().items()


def index_with_newer_releases(folder: Path, *names: str) -> str:
    """Yield the URL of a package index with a release 999.0 of each package."""
    for name in names:
        (folder / name).mkdir(parents=True)
        wheel = folder / name / f"{name}-999.0-py3-none-any.whl"
        (folder / name / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
        info = f"{name}-999.0.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 999.0\n")
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
    return folder.as_uri()


@pytest.fixture
def mirror() -> Iterator[tuple[str, list[str]]]:
    """Yield the URL of an empty package index, and the list of requested paths."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # uv requests all packages concurrently

    with Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/mirror/simple", paths
        server.shutdown()


@pytest.mark.skipif(find_spec("uv") is None, reason="there is no uv here")
def test_uv_uses_the_index_of_pips_configuration(tmp_path: Path, mirror: tuple[str, list[str]]) -> None:
    url, paths = mirror
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {url}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}

    install = [sys.executable, "scripts/install.py", "requirements.txt", "--target", tmp_path, "--no-cache"]

    result = subprocess.run(
        install,
        cwd=ROOT,
        env=environment | {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode != 0
    assert "/mirror/simple/annotated-doc/" in paths
