"""The containers, built and driven as a user would. Takes minutes: only with RUN_COMPOSE_TESTS=1."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from src.resilience.clock import SystemClock
from tests.support.server import free_port

ROOT = Path(__file__).parents[2]
SERVICES = ("redis", "provider", "app")
HEALTHY_WITHIN_SECONDS = 60
COMMAND_TIMEOUT_SECONDS = 300


def compose_command() -> list[str] | None:
    """Either spelling of compose, or None where no engine answers."""
    if shutil.which("docker") is None:
        return None
    engine = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True, check=False
    )
    if engine.returncode != 0 or not engine.stdout.strip():
        return None
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


RUN = os.environ.get("RUN_COMPOSE_TESTS") == "1"
COMPOSE = compose_command() if RUN else None

pytestmark = [
    pytest.mark.compose,
    pytest.mark.skipif(not RUN, reason="takes minutes; asked for by RUN_COMPOSE_TESTS=1"),
    pytest.mark.skipif(RUN and COMPOSE is None, reason="no Docker engine with compose answers here"),
]


class Containers:
    """The services of docker-compose.yml, under a project name and on ports of this test's own."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": f"resilient-analytics-test-{os.getpid()}",
            "APP_PORT": str(port),
            "PROVIDER_PORT": str(free_port()),
            "ADMIN_API_KEY": "",
            "CIRCUIT_BREAKER_RESET_TIMEOUT": "2",
            "RATE_LIMIT_WINDOW_SECONDS": "5",
        }

    def compose(self, *words: str) -> str:
        return self.run(*COMPOSE, *words)

    def run(self, *command: str) -> str:
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        return result.stdout

    def health(self, service: str) -> str:
        container = self.compose("ps", "-q", service).strip()
        return self.run("docker", "inspect", "--format", "{{.State.Health.Status}}", container).strip()

    async def until_healthy(self) -> None:
        clock = SystemClock()
        async with clock.timeout(HEALTHY_WITHIN_SECONDS):
            while [self.health(service) for service in SERVICES] != ["healthy"] * 3:
                await clock.sleep(0.5)


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    containers = Containers()
    try:
        containers.compose("up", "-d", "--build")
        yield containers
    finally:
        containers.compose("down", "-v")


async def test_all_three_services_become_healthy(containers: Containers) -> None:
    await containers.until_healthy()

    assert httpx.get(f"{containers.url}/health").json()["redis_connected"] is True


async def test_what_was_posted_outlives_a_restart_of_redis(containers: Containers) -> None:
    await containers.until_healthy()
    point = {"timestamp": "2026-01-31T12:00:00Z", "value": 42.5, "type": "kept"}
    httpx.post(f"{containers.url}/api/metrics", json=point).raise_for_status()

    containers.compose("restart", "redis")
    await containers.until_healthy()

    [kept] = httpx.get(f"{containers.url}/api/metrics/list?type=kept").json()
    assert kept["value"] == 42.5


async def test_the_failure_rate_can_be_set_from_a_shell_in_the_container(containers: Containers) -> None:
    await containers.until_healthy()
    program = "from src.services.external_service import set_failure_rate; set_failure_rate(0.25)"

    containers.compose("exec", "-T", "app", "python", "-c", program)

    rate = httpx.get(f"{containers.url}/api/admin/external-service/failure-rate").json()
    assert rate == {"failure_rate": 0.25}


@pytest.mark.skipif(shutil.which("curl") is None, reason="demo.sh needs curl, which is not installed")
async def test_the_tour_passes(containers: Containers) -> None:
    await containers.until_healthy()

    told = containers.run("./demo.sh", "--no-pause", "--base-url", containers.url)

    assert "Every step went as told" in told


async def test_the_suite_runs_in_the_container(containers: Containers) -> None:
    told = containers.compose("run", "--rm", "-T", "app", "pytest", "-q", "tests/unit", "tests/contract")

    assert " passed" in told


async def test_nothing_runs_as_root(containers: Containers) -> None:
    assert containers.compose("exec", "-T", "app", "id", "-u").strip() != "0"
