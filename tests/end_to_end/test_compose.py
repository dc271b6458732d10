"""The containers, built and used like by a user. These tests take minutes and need RUN_COMPOSE_TESTS=1."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import redis

from src.resilience.clock import SystemClock
from tests.support.checkout import COMMAND_TIMEOUT_SECONDS, ROOT, Checkout
from tests.support.pages import as_script, assert_output, read_page
from tests.support.server import free_port

SERVICES = ("redis", "provider", "app")
HEALTHY_WITHIN_SECONDS = 60
SUITE_TIMEOUT_SECONDS = 1200


def compose_command() -> list[str] | None:
    """Return the command of Compose v2 or v1, or None without a running engine."""
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

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


class Containers(Checkout):
    """The services of docker-compose.yml, started by start.sh, with a separate project name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.redis_port = first_of_two_free_ports()
        self.environment |= {
            "COMPOSE_PROJECT_NAME": f"resilient-analytics-test-{os.getpid()}",
            "REDIS_PORT": str(self.redis_port),
            "CIRCUIT_BREAKER_RESET_TIMEOUT": "2",
            "EXTERNAL_SERVICE_FAILURE_RATE": "0",
            "OTEL_SERVICE_NAME": "compose-test",
        }

    def compose(self, *words: str) -> str:
        return self.command(*COMPOSE, *words)

    def command(self, *words: str, timeout: float = COMMAND_TIMEOUT_SECONDS) -> str:
        result = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert result.returncode == 0, f"{words}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        return result.stdout

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", service).strip()

    def inspect(self, service: str, template: str) -> str:
        return self.command("docker", "inspect", "--format", template, self.container(service)).strip()

    async def restart_with_empty_redis(self) -> None:
        """Empty Redis and restart the API, which keeps refusals in memory, so that all quotas are free."""
        self.compose("exec", "-T", "redis", "redis-cli", "flushall")
        self.compose("restart", "app")
        await self.until_healthy()

    async def until_healthy(self) -> None:
        clock = SystemClock()
        health = "{{.State.Health.Status}}"
        async with clock.timeout(HEALTHY_WITHIN_SECONDS):
            while [self.inspect(service, health) for service in SERVICES] != ["healthy"] * 3:
                await clock.sleep(0.5)


def first_of_two_free_ports() -> int:
    """Return a free port, followed by another free port. Both are below 32768, the first client port."""
    candidates = range(20_000 + 2 * (os.getpid() % 5_000), 32_000)
    return next(port for port in candidates if is_free(port) and is_free(port + 1))


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def is_healthy(url: str) -> bool:
    with suppress(httpx.TransportError):  # no server is listening yet
        return httpx.get(f"{url}/health").is_success
    return False


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    with tempfile.TemporaryDirectory(prefix="containers-") as folder:
        containers = Containers(Path(folder))
        (containers.folder / ".env").write_text("RATE_LIMIT_REQEUSTS=3\nOTEL_METRICS_EXPORTER=none\n")
        for path in containers.folder.rglob("*"):  # as in a checkout that was made under umask 077
            path.chmod(path.stat().st_mode & 0o700)
        try:
            with socket.create_server(("127.0.0.1", containers.redis_port)):  # another program has this port
                containers.started = containers.run("start.sh")
            assert containers.started.returncode == 0, containers.started.stdout + containers.started.stderr
            yield containers
        finally:
            containers.compose("down", "-v")


async def test_all_three_services_become_healthy(containers: Containers) -> None:
    await containers.until_healthy()

    assert httpx.get(f"{containers.url}/health").json()["redis_connected"] is True


async def test_start_reports_its_new_key_and_the_free_port_for_redis(containers: Containers) -> None:
    output = containers.started.stdout

    assert f"Admin key  {containers.admin_key()}\n" in output
    assert f"Another program uses port {containers.redis_port}" in output
    port = int(re.search(r"Redis is published on port (\d+) instead", output)[1])
    with redis.Redis(port=port) as client:
        assert client.ping()

    again = containers.run("start.sh")
    assert "Already running" in again.stdout
    assert f"Redis      localhost:{port}\n" in again.stdout


async def test_start_shows_an_unknown_name_with_the_nearest_setting(containers: Containers) -> None:
    assert "RATE_LIMIT_REQEUSTS in .env is not a setting" in containers.started.stdout
    assert "Nearest: RATE_LIMIT_REQUESTS." in containers.started.stdout


@pytest.mark.parametrize("service", ["redis", "provider"])
async def test_services_behind_the_api_are_published_only_to_this_machine(
    containers: Containers, service: str
) -> None:
    template = "{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}}{{end}}{{end}}"

    assert containers.inspect(service, template) == "127.0.0.1"


@needs_curl
async def test_the_commands_of_the_readme_work(containers: Containers) -> None:
    await containers.restart_with_empty_redis()
    page = read_page((ROOT / "README.md").read_text(encoding="utf-8"))
    examples = [example for example in page.examples if example.section == "Try"]
    script = as_script(examples)
    for old, new in (
        ("http://localhost:8000", containers.url),
        ("sleep 30", "sleep 2"),
        ("docker-compose exec", f"{' '.join(COMPOSE)} exec -T"),
    ):
        assert old in script
        script = script.replace(old, new)

    assert_output(examples, containers.run_script(script))


async def test_the_variables_of_telemetry_reach_the_app_from_the_environment_and_from_the_env_file(
    containers: Containers,
) -> None:
    seen = containers.compose("exec", "-T", "app", "env").splitlines()

    assert {line for line in seen if line.startswith("OTEL_")} == {
        "OTEL_METRICS_EXPORTER=none",
        "OTEL_SERVICE_NAME=compose-test",
    }


async def test_points_survive_a_restart_of_redis(containers: Containers) -> None:
    await containers.restart_with_empty_redis()
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


@needs_curl
async def test_the_tour_passes(containers: Containers) -> None:
    await containers.restart_with_empty_redis()

    tour = containers.run("demo.sh", "--no-pause")

    assert tour.returncode == 0, tour.stdout + tour.stderr
    assert "All steps succeeded" in tour.stdout


async def test_the_suite_runs_in_the_container(containers: Containers) -> None:
    pytest_in_the_container = ["run", "--rm", "-T", "app", "pytest", "-q", "-n", "2", "--dist", "loadfile"]
    # These tests have the same result on every machine, and are slow.
    pytest_in_the_container += ["--ignore", "tests/properties", "--ignore", "tests/integration"]

    output = containers.command(*COMPOSE, *pytest_in_the_container, timeout=SUITE_TIMEOUT_SECONDS)

    assert " passed" in output
    assert "there is no playwright here" in output


async def test_no_container_runs_as_root(containers: Containers) -> None:
    assert {containers.inspect(service, "{{.Config.User}}") for service in ("app", "provider")} == {"app"}


async def test_the_production_image_runs_read_only_and_has_only_the_needed_files(
    containers: Containers,
) -> None:
    image = containers.command("docker", "build", "--quiet", ".").splitlines()[-1]
    port = free_port()
    options = [
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--tmpfs",
        "/app/data:uid=10001",
        "-p",
        f"127.0.0.1:{port}:8000",
    ]
    settings = ["-e", "REDIS_URL=embedded://", "-e", "WEB_CONCURRENCY=2"]
    container = containers.command("docker", "run", "--detach", *options, *settings, image).strip()
    try:
        clock = SystemClock()
        async with clock.timeout(HEALTHY_WITHIN_SECONDS):
            while not is_healthy(f"http://127.0.0.1:{port}"):
                await clock.sleep(0.5)
        held = containers.command("docker", "exec", container, "sh", "-c", "ls /app; ls /venv/bin")
        assert containers.command("docker", "exec", container, "id", "-u").strip() == "10001"
    finally:
        containers.command("docker", "rm", "--force", container)

    assert {"src", "python", "uvicorn"} <= set(held.split())
    assert not {"tests", "scripts", "pip", "uv", "pytest", "coverage", "ruff", "mypy"} & set(held.split())


async def test_a_stop_with_a_follower_is_graceful(containers: Containers) -> None:
    await containers.until_healthy()
    ids = [containers.container(service) for service in SERVICES]

    with httpx.stream("GET", f"{containers.url}/logs?follow=true") as follower:
        assert follower.status_code == 200
        containers.compose("stop")

    codes = containers.command("docker", "inspect", "--format", "{{.State.ExitCode}}", *ids)
    assert codes.split() == ["0"] * len(SERVICES)
