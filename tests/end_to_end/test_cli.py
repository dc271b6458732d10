"""`python -m src.cli` as a user would run it: a process, without a terminal."""

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.support.provider import Provider, running_provider

COMMAND = [sys.executable, "-m", "src.cli"]

pytestmark = pytest.mark.slow


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Yield the URL of a server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, encoding="utf-8", timeout=60, check=False
    )


def faults_of(provider: Provider) -> dict[str, object]:
    return httpx.get(f"{provider.url}/faults").json()


def test_the_demonstration_needs_no_server_and_no_terminal():
    ended = run("demo", "--seed", "1")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", ended.stdout)  # no control codes
    for text in ("HALF_OPEN -> CLOSED", "/delay/3: timed out", "ok         60", "fallback answers"):
        assert text in ended.stdout


def test_an_experiment_restores_the_faults_of_the_provider(provider: Provider):
    found = {"pattern": "SF", "latency_ms": 1, "status": 500, "kind": "cut", "failure_rate": 0.5}
    httpx.put(f"{provider.url}/faults", json=found)

    ended = run("experiment", "--url", provider.url, "--scenario", "all", "--interval", "0")

    assert ended.returncode == 0
    assert "CLOSED -> OPEN" in ended.stdout
    assert faults_of(provider) == found


def test_an_experiment_can_use_the_faults_of_the_provider():
    with running_provider("--pattern", "SF", "--kind", "hang") as provider:
        ended = run(
            "experiment", "--url", provider.url, "--number_requests", "4", "--interval", "0",
            "--timeout", "0.2",
        )  # fmt: skip

    assert ended.returncode == 0
    assert len(re.findall("timed out after 0.2 s", ended.stdout)) == 2


def test_an_outage_of_the_provider_is_part_of_the_experiment(provider: Provider):
    with _experiment("--url", provider.url, "--interval", "0.2", "--number_requests", "8") as experiment:
        _await_line(experiment, "failed 503")
        provider.stop()
        output, _ = experiment.communicate(timeout=30)

    assert experiment.returncode == 0
    assert "no answer (no connection)" in output
    assert "could not be restored" in output


def test_an_unreachable_provider_is_reported_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ended = run("experiment", "--url", url)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"python -m src.cli: no provider at {url}: no connection\n"


def test_a_server_that_does_not_respond_is_an_error(silent_server: str):
    ended = run("experiment", "--url", silent_server)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals a program could catch here")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_an_experiment_with_its_results_and_restored_faults(
    provider: Provider, number: signal.Signals, code: int
):
    found = faults_of(provider)
    with _experiment("--url", provider.url, "--interval", "60") as experiment:
        _await_line(experiment, "failed 503")
        experiment.send_signal(number)
        output, errors = experiment.communicate(timeout=30)

    assert (experiment.returncode, errors) == (code, "")
    assert "Stopped after 1 of 10 calls." in output
    assert faults_of(provider) == found


def _experiment(*arguments: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "experiment", "--scenario", "all", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _await_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    deadline = threading.Timer(30, process.kill)
    deadline.start()
    try:
        assert any(words in line for line in process.stdout), f"the output never contained {words!r}"
    finally:
        deadline.cancel()
