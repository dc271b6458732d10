"""The library `standfast` as a wheel that is built from this checkout and has no dependencies."""

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.end_to_end.test_install import ROOT, needs_a_registry, pythons, run_checked
from tests.support.library import cpu_seconds
from tests.support.redis_server import RedisServer
from tests.unit.resilience.test_types import WRONG_FILES, files_in_error

pytestmark = pytest.mark.skipif(find_spec("hatchling") is None, reason="there is no hatchling here")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run_checked(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    [built] = folder.glob("standfast-*-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with only the installed wheel."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_contains_exactly_the_files_of_the_library(wheel: Path) -> None:
    library = ROOT / "src" / "resilience"
    own = {
        f"standfast/{path.relative_to(library).as_posix()}"
        for path in library.rglob("*")
        if path.is_file() and not {"__pycache__", "docs"} & set(path.relative_to(library).parts)
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == own
    assert {"standfast/py.typed", "standfast/__init__.py"} <= names


def test_the_wheel_has_the_page_as_description_and_no_dependencies(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        described = Parser().parsestr(archive.read(metadata).decode())
    assert described.get_payload().strip() == (ROOT / "src/resilience/README.md").read_text("utf-8").strip()
    assert [need for need in described.get_all("Requires-Dist") if "extra ==" not in need] == []
    assert {"redis", "fastapi"} <= set(described.get_all("Provides-Extra"))


LOADED_MODULES = "import sys, standfast; print(*{name.partition('.')[0] for name in sys.modules})"


@pytest.mark.parametrize("python", pythons(), ids=str)
def test_importing_the_library_loads_only_the_standard_library(installed: Path, python: Path) -> None:
    ran = subprocess.run(
        [
            python,
            "-S",
            "-W",
            "error",
            "-c",
            LOADED_MODULES,
        ],  # -S: modules that other packages load at the start must not count
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(ran.stdout.split()) - sys.stdlib_module_names <= {"standfast", "__main__"}


def environment_with(python: Path, folder: Path, *packages: str | Path) -> Path:
    """Create a virtual environment in `folder`, install `packages`, and return its Python."""
    run_checked(python, "-m", "venv", folder)
    run_checked(folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages)
    return folder / "bin" / "python"


@needs_a_registry
@pytest.mark.parametrize("python", pythons(), ids=str)
def test_it_installs_alone_and_its_import_takes_less_than_60_ms_and_than_that_of_asyncio(
    wheel: Path, tmp_path: Path, python: Path
) -> None:
    fresh = environment_with(python, tmp_path, "--no-deps", wheel)
    loaded = set(run_checked(fresh, "-W", "error", "-c", LOADED_MODULES, cwd=tmp_path).split())
    known_at_start = set(run_checked(fresh, "-c", "import sys; print(*sys.modules)").split())
    assert loaded - sys.stdlib_module_names - known_at_start == {"standfast"}
    assert cpu_seconds(fresh, "import standfast") < min(0.06, cpu_seconds(fresh, "import asyncio"))


@needs_a_registry
def test_the_scripts_of_the_page_share_state_in_a_new_environment(
    wheel: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    fresh = environment_with(Path(sys.executable), tmp_path / "venv", f"{wheel}[redis]")
    assert run_scripts(fresh, tmp_path, redis_server) == [output for _, output in RUNS]


@pytest.mark.slow
def test_a_type_checker_finds_the_types_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    run_checked(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    packages = run_checked(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)

    rejected, output = files_in_error(tmp_path, "standfast", "--python-executable", python)

    assert rejected == WRONG_FILES, output
    assert "import-untyped" not in output


def test_the_stores_in_redis_find_their_scripts_in_the_wheel(
    installed: Path, redis_server: RedisServer
) -> None:
    program = """
import asyncio, sys
import redis.asyncio
from standfast import CacheOptions, CircuitBreakerOptions, PacedQueueOptions, Quota, SystemClock
from standfast.redis import RedisBreakerStore, RedisCacheStore, RedisPaceStore, RedisRateLimiter

async def main():
    async with redis.asyncio.from_url(sys.argv[1]) as client:
        await RedisBreakerStore(client).admit("b", CircuitBreakerOptions())
        await RedisRateLimiter("token_bucket", Quota(1, 1), client, SystemClock()).hit("k")
        await RedisCacheStore(client).read_last_good("k", CacheOptions())
        await RedisPaceStore("q", PacedQueueOptions(), client).status()

asyncio.run(main())
assert "src" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", program, redis_server.url]
    subprocess.run(command, cwd=installed, check=True)


def test_each_of_its_modules_is_imported_without_the_checkout(installed: Path) -> None:
    program = """
import importlib, pkgutil, sys, standfast
for module in pkgutil.walk_packages(standfast.__path__, "standfast."):
    importlib.import_module(module.name)
    print(module.name)
assert not [name for name in sys.modules if name.partition(".")[0] in {"src", "tests"}]
"""
    files = [*(installed / "standfast").rglob("*.py")]
    assert len(run_python(installed, program).split()) == len(files) - 1  # all but the package itself


EDGES = {
    "standfast.fastapi": "fastapi",
    "standfast.httpx": "httpx",
    "standfast.pytest_plugin": "pytest",
    "standfast.telemetry.opentelemetry": "opentelemetry",
    "standfast.telemetry.prometheus": "prometheus_client",
    "standfast.testing": "asyncio",
}
"""Modules for one framework each, and that framework."""


@pytest.mark.parametrize(("edge", "framework"), EDGES.items(), ids=EDGES)
def test_an_adapter_loads_only_its_framework(installed: Path, edge: str, framework: str) -> None:
    program = f"import sys, {edge}; print(*(name for name in sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ran.stdout.split())
    assert {edge, framework} <= loaded
    assert loaded & EDGES.keys() <= {edge, "standfast.testing"}
    assert not any(name.startswith("src.") for name in loaded)


README = (ROOT / "src/resilience/README.md").read_text("utf-8")
SAMPLE = re.compile(
    r"(?:^`(\w+\.py)`:\n\n)?^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)
SAMPLES = [(match[2], match[3]) for match in SAMPLE.finditer(README) if match[1] is None]
SCRIPTS = {match[1]: match[2] for match in SAMPLE.finditer(README) if match[1] is not None}
"""The samples that print what the page shows, and those that are scripts, by their names."""

RUNS = re.findall(r"^```console\n\$ (.+)\n((?:.|\n)*?)^```$", README, re.MULTILINE)
"""The commands that run the scripts, with what they print."""

ROWS = re.findall(r"^\| (\w+) \| `(.+)`[^|`]* \| `(.+)` \|$", README, re.MULTILINE)
"""The table of what is written in other packages and here."""


def run_python(installed: Path, program: str, *arguments: str) -> str:
    """Run `program` with the wheel as the only `standfast`, with warnings as errors; return its output."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(("sample", "output"), SAMPLES)
def test_a_sample_of_the_page_prints_the_shown_output(installed: Path, sample: str, output: str) -> None:
    assert run_python(installed, sample) == output


def run_scripts(python: Path, folder: Path, server: RedisServer, **variables: str) -> list[str]:
    """Run the commands of the page in `folder`, with `server`, and return the output of each script."""
    for name, script in SCRIPTS.items():
        (folder / name).write_text(script)
    return [
        run_checked(
            "sh",
            "-c",
            command.replace("python ", f"'{python}' -W error ").replace("redis://localhost", server.url),
            cwd=folder,
            **variables,
        )
        for command, _ in RUNS
    ]


def test_the_scripts_of_the_page_share_state_between_processes(
    installed: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    printed = run_scripts(Path(sys.executable), tmp_path, redis_server, PYTHONPATH=str(installed))
    assert printed == [output for _, output in RUNS]
    assert sorted(SCRIPTS) == ["bank.py", "race.py"]


def test_the_table_has_code_that_replaces_nine_packages(installed: Path) -> None:
    """Evaluate each cell on the right, without the syntax of a decorator or of a block."""
    cells = [re.sub(r"^(@|async with |with )", "", cell) for _, _, cell in ROWS]
    program = f"""
import ast, asyncio, inspect, redis.asyncio
from fastapi import Depends
from standfast import *
from standfast.circuit_breaker import ThreadSafeBreakerStore
from standfast.clock import BlockingClock
from standfast.fastapi import RequestLimit
from standfast.redis import RedisBreakerStore, RedisRateLimiter
from standfast.testing import policies_off

client = redis.asyncio.Redis()
is_busy = bool

async def main():
    for cell in {cells!r}:
        result = eval(compile(cell, cell, "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        if inspect.iscoroutine(result):
            await result

asyncio.run(main())
"""
    run_python(installed, program)
    packages = "tenacity stamina pybreaker aiobreaker purgatory slowapi limits aiolimiter cashews"
    assert [*dict.fromkeys(package for package, _, _ in ROWS)] == packages.split()
