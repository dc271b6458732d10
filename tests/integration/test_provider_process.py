"""The provider as a process, with its flags and signals."""

import signal
import subprocess
import sys

import httpx
import pytest

from tests.support.provider import COMMAND, running_provider


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=30, check=False)


def port_of(url: str) -> str:
    return url.rpartition(":")[2]


def test_a_pattern_in_a_flag_applies():
    with running_provider("--pattern", "SSFFF", "--status", "500") as provider, httpx.Client() as client:
        statuses = [client.get(f"{provider.url}/get").status_code for _ in range(7)]
    assert statuses == [200, 200, 500, 500, 500, 200, 200]


@pytest.mark.parametrize("flag", ["--fail_chance", "--fail-chance"])
def test_dashes_and_underscores_are_equivalent(flag):
    with running_provider(
        flag, "0.3", flag.replace("fail", "latency").replace("chance", "ms"), "1"
    ) as provider:
        faults = httpx.get(f"{provider.url}/faults").json()
    assert (faults["failure_rate"], faults["latency_ms"]) == (0.3, 1)


def test_a_seed_makes_the_failures_repeatable():
    def statuses() -> list[int]:
        with running_provider("--fail_chance", "0.5", "--seed", "7") as provider, httpx.Client() as client:
            return [client.get(f"{provider.url}/get").status_code for _ in range(20)]

    first = statuses()
    assert set(first) == {200, 503}
    assert statuses() == first


def test_a_hanging_call_ends_with_the_timeout_of_the_client():
    with running_provider("--pattern", "F", "--kind", "hang") as provider:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{provider.url}/get", timeout=httpx.Timeout(5, read=0.1))
        assert httpx.get(f"{provider.url}/health").status_code == 200
        provider.stop()
    assert "Cancel" not in provider.log  # nothing was left to cancel


def test_a_cut_connection_is_a_protocol_error_and_no_stack_trace():
    with running_provider("--pattern", "FS", "--kind", "cut") as provider:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            httpx.get(f"{provider.url}/get")
        assert httpx.get(f"{provider.url}/get").status_code == 200
        provider.stop()
    assert "Traceback" not in provider.log


def test_the_second_of_two_quick_scores_is_rejected():
    with running_provider() as provider, httpx.Client() as client:
        answers = [client.get(f"{provider.url}/score?cpf=12345678909") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["retry-after"] == "1"


def test_faults_are_changed_while_it_runs():
    with running_provider() as provider, httpx.Client(base_url=provider.url) as client:
        client.put("/faults", json={"failure_rate": 1})
        assert client.get("/kv/metric-types/cpu_usage").status_code == 503
        client.put("/faults", json={"failure_rate": 0})
        assert client.get("/kv/metric-types/cpu_usage").status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals a program could catch here")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_frees_the_port(number):
    with running_provider() as provider:
        httpx.get(f"{provider.url}/health")
        assert provider.stop(number) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{provider.url}/health")
    assert "Traceback" not in provider.log


def test_a_taken_port_is_reported():
    with running_provider() as provider:
        second = run("--port", port_of(provider.url))
    assert second.returncode == 3
    assert "address already in use" in second.stderr
    assert port_of(provider.url) in second.stderr


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--fail_chance", "1.5"], "--fail_chance"),
        (["--fail-chance", "often"], "--fail-chance"),
        (["--pattern", "SXF"], "--pattern"),
        (["--kind", "explode"], "--kind"),
        (["--status", "200"], "--status"),
        (["--latency-ms", "-1"], "--latency-ms"),
        (["--seed", "x"], "--seed"),
        (["--port", "70000"], "--port"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_a_wrong_flag_ends_with_one_line_that_names_it(flags, named):
    ended = run(*flags)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert named in ended.stderr
