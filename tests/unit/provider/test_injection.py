"""The injected faults, with a client in the same process."""

import asyncio

import pytest

from src.provider.injection import UNTOUCHED, ConnectionCutError
from tests.support.clock import settle


async def set_faults(client, **faults):
    (await client.put("/faults", json=faults)).raise_for_status()


async def test_a_pattern_decides_about_each_call_in_order(client):
    await set_faults(client, pattern="SSFFF")
    statuses = [(await client.get("/get")).status_code for _ in range(10)]
    assert statuses == [200, 200, 503, 503, 503] * 2


async def test_an_injected_failure_has_the_configured_status_and_a_problem_document(client):
    await set_faults(client, failure_rate=1, status=418)
    answer = await client.get("/kv/metric-types/cpu_usage")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "title": "I'm a Teapot",
        "status": 418,
        "detail": "an injected fault, see /faults",
    }


async def test_a_call_that_fails_changes_nothing(client):
    await set_faults(client, pattern="FS")
    await client.put("/kv/a", json=1)
    assert (await client.get("/kv/a")).status_code == 404


async def test_latency_delays_successful_and_failed_calls(client, clock):
    await set_faults(client, pattern="SF", latency_ms=250)
    for status in (200, 503):
        answer = await clock.drive(client.get("/get"))
        assert answer.status_code == status
    assert clock.sleeps == [0.25, 0.25]


async def test_a_running_call_keeps_the_faults_of_its_arrival(client, clock):
    await set_faults(client, failure_rate=1, latency_ms=1000)
    call = asyncio.create_task(client.get("/get"))
    await settle()
    await set_faults(client, failure_rate=0, status=500)
    await clock.advance(1)
    assert (await call).status_code == 503


async def test_a_hanging_call_is_never_answered_and_can_be_cancelled(client, clock):
    await set_faults(client, failure_rate=1, kind="hang")
    call = asyncio.create_task(client.get("/get"))
    await clock.advance(3600)
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_hanging_call_ends_when_its_client_disconnects(client, provider):
    await set_faults(client, failure_rate=1, kind="hang")
    messages = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/get", "query_string": b"", "headers": []}
    await provider(scope, receive, send)
    assert (messages, sent) == ([], [])


async def test_a_cut_closes_the_connection_in_the_middle_of_the_body(client, provider):
    await set_faults(client, failure_rate=1, kind="cut")
    with pytest.raises(ConnectionCutError):
        await client.get("/get")
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/get", "query_string": b"", "headers": []}
    with pytest.raises(ConnectionResetError):
        await provider(scope, None, send)
    start, body = sent
    assert 0 < len(body["body"]) < int(dict(start["headers"])[b"content-length"])


@pytest.mark.parametrize("path", sorted(UNTOUCHED))
async def test_faults_do_not_affect_the_control_endpoints_and_docs(client, clock, path):
    await set_faults(client, pattern="F", latency_ms=1000)
    assert (await client.get(f"/{path}")).status_code == 200
    assert clock.sleeps == []


async def test_calls_are_counted_by_their_outcomes(client):
    await client.get("/kv/nothing")
    await client.get("/status/500")
    for _ in range(2):
        await client.get("/score?cpf=12345678909")
    await client.get("/nowhere")
    await set_faults(client, failure_rate=1, status=429)
    await client.get("/get")
    assert (await client.get("/stats")).json() == {
        "calls": 6,
        "failed": 2,  # requested with /status, and injected
        "refused": 1,
        "by_endpoint": {"kv": 1, "get": 1, "delay": 0, "status": 1, "score": 2, "other": 1},
    }
