"""The library `standfast` as its users get it: a wheel, built from this checkout, that needs nothing else."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.end_to_end.test_install import ROOT, checked, pythons
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.skipif(find_spec("hatchling") is None, reason="there is no hatchling here")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    checked(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    [built] = folder.glob("standfast-*-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of site-packages with the wheel in it and nothing else."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_the_library_and_nothing_else(wheel: Path) -> None:
    library = ROOT / "src" / "resilience"
    own = {
        f"standfast/{path.relative_to(library).as_posix()}"
        for path in library.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == own
    assert {"standfast/py.typed", "standfast/__init__.py"} <= names


def test_its_page_is_the_long_description_and_it_depends_on_nothing(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        described = Parser().parsestr(archive.read(metadata).decode())
    assert described.get_payload().strip() == (ROOT / "src/resilience/README.md").read_text("utf-8").strip()
    assert [need for need in described.get_all("Requires-Dist") if "extra ==" not in need] == []
    assert {"redis", "fastapi"} <= set(described.get_all("Provides-Extra"))


@pytest.mark.parametrize("python", pythons(), ids=str)
def test_importing_it_loads_the_standard_library_alone(installed: Path, python: Path) -> None:
    program = "import sys, standfast; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run(
        [python, "-S", "-W", "error", "-c", program],  # -S: what other packages load at start is not ours
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(ran.stdout.split()) - sys.stdlib_module_names <= {"standfast", "__main__"}


def test_its_stores_in_redis_find_their_scripts_in_the_wheel(
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
def test_an_edge_loads_its_framework_and_no_other_edge(installed: Path, edge: str, framework: str) -> None:
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
