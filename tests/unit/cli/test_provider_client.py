"""The provider's client."""

import httpx
import pytest

from src.cli.provider_client import (
    FailedAnswerError,
    NoAnswerError,
    ProviderClient,
    ProviderError,
    RefusedAnswerError,
    is_failure,
)
from src.provider.faults import Faults
from src.resilience import CallTimeoutError


def client_of(handler) -> ProviderClient:
    return ProviderClient(
        httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://provider")
    )


async def test_keys_are_written_read_and_deleted(provider: ProviderClient):
    calls = [("PUT", b'{"a": 1}'), ("GET", None), ("PUT", b"2"), ("DELETE", None)]

    answers = [await provider.call(method, "/kv/some/key", body) for method, body in calls]

    assert [answer.status_code for answer in answers] == [201, 200, 200, 204]
    assert answers[1].json() == {"a": 1}


async def test_a_missing_key_is_no_error(provider: ProviderClient):
    assert (await provider.call("GET", "/kv/nothing")).status_code == 404


@pytest.mark.parametrize(
    ("path", "error"), [("/status/500", FailedAnswerError), ("/status/400", RefusedAnswerError)]
)
async def test_an_error_is_classified_for_the_breaker(
    provider: ProviderClient, path: str, error: type[Exception]
):
    with pytest.raises(error, match=path.rpartition("/")[2]):
        await provider.call("GET", path)


async def test_a_cut_connection_is_an_error(provider: ProviderClient):
    await provider.set_faults(Faults(failure_rate=1, kind="cut"))

    with pytest.raises(NoAnswerError, match="cut off"):
        await provider.call("GET", "/get")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (httpx.ConnectError("refused"), "no connection"),
        (httpx.RemoteProtocolError("incomplete"), "cut off"),
        (httpx.ReadError("reset"), "cut off"),
    ],
)
async def test_a_network_error_is_an_unavailable_provider(raised: httpx.HTTPError, message: str):
    def raise_network_error(_request: httpx.Request) -> httpx.Response:
        raise raised

    with pytest.raises(NoAnswerError, match=message):
        await client_of(raise_network_error).call("GET", "/get")


async def test_set_faults_replace_all_earlier_faults(provider: ProviderClient):
    await provider.set_faults(Faults(pattern="SF", latency_ms=7, kind="cut"))
    await provider.set_faults(Faults(failure_rate=0.5))

    assert await provider.faults() == Faults(failure_rate=0.5)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"detail": "Not Found"}', b"[]"])
async def test_a_response_of_another_server_is_an_error(body: bytes):
    stranger = client_of(lambda _request: httpx.Response(200, content=body))

    with pytest.raises(ProviderError, match="not that of a provider"):
        await stranger.faults()


async def test_the_provider_counts_its_calls(provider: ProviderClient):
    before = await provider.count_calls()
    await provider.call("GET", "/get")

    assert await provider.count_calls() == before + 1


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (FailedAnswerError("503"), True),
        (NoAnswerError("cut off"), True),
        (CallTimeoutError(1.0), True),
        (RefusedAnswerError("400"), None),
    ],
)
def test_a_client_error_is_no_failure_of_the_provider(error: Exception, verdict: bool | None):
    assert is_failure(error) is verdict
