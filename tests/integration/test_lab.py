"""The lab over the whole API: its calls, manual control of the breaker, and the log of events."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from src.services.events import feed
from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, PLENTY, running_api
from tests.support.server import Server

RATE = "/api/admin/external-service/failure-rate"
QUICK = {"external_service_timeout": 0.2, "external_service_attempts": 2}
"""Settings with which `/delay/3` times out quickly."""


@pytest.fixture
async def api(redis_server):
    async with running_api(redis_server.url, **QUICK, **PLENTY, **CALM) as client:
        yield client


async def lines_with_events(api, *kinds):
    """Return the lines of /logs, once it has a line of each of `kinds`."""
    async with asyncio.timeout(10):
        while True:
            lines = (await api.get("/logs")).text.splitlines()
            if set(kinds) <= {line.split()[3] for line in lines}:
                return lines
            await asyncio.sleep(0.02)


class TestInvoke:
    async def test_a_run_reports_the_outcome_of_each_call(self, api):
        answer = await api.get("/invoke?count=3")
        assert answer.status_code == 200
        run = answer.json()
        assert [(call["path"], call["outcome"], call["attempts"]) for call in run["calls"]] == [
            ("/get", "succeeded", 1),
            ("/delay/3", "fallback", 2),
            ("/status/500", "fallback", 2),
        ]
        assert [call["error"] for call in run["calls"]] == [
            None,
            "the call took longer than 0.2 s",
            "status 500",
        ]
        assert {name: run[name] for name in ("count", "succeeded", "fallback", "unfinished")} == {
            "count": 3, "succeeded": 1, "fallback": 2, "unfinished": 0,
        }  # fmt: skip
        assert answer.headers["ratelimit"].startswith('"read"')

    async def test_errors_open_the_breaker_of_the_api_and_then_the_provider_is_not_called(self, api):
        assert (await api.get("/invoke_error?count=5")).json()["fallback"] == 5
        state = (await api.get("/circuit_state")).json()
        assert state.keys() == {"state", "fail_count", "opened_at"}
        assert (state["state"], state["fail_count"]) == ("OPEN", 5)
        assert state["opened_at"].endswith("Z")
        assert_problem(await api.get("/api/metrics/summary?type=cpu"), 503, "CIRCUIT_OPEN")
        run = (await api.get("/invoke?count=50")).json()
        assert run["rejected"] == 50
        assert {(call["rejected_by"], call["attempts"]) for call in run["calls"]} == {("circuit_breaker", 0)}

    async def test_slow_calls_time_out_with_the_settings_as_they_are(self, redis_server):
        async with running_api(redis_server.url, external_service_attempts=1, **PLENTY, **CALM) as api:
            run = (await api.get("/invoke_delay")).json()
        assert [(call["outcome"], call["error"]) for call in run["calls"]] == [
            ("fallback", "the call took longer than 2 s")
        ]

    async def test_the_endpoint_for_slow_calls_makes_a_slow_call(self, api):
        run = (await api.get("/invoke_delay")).json()
        assert [(call["path"], call["outcome"]) for call in run["calls"]] == [("/delay/3", "fallback")]

    async def test_a_failure_rate_set_by_another_worker_applies(self, redis_server, api):
        async with running_api(redis_server.url, **QUICK, **PLENTY, **CALM) as other:
            await other.put(RATE, json={"failure_rate": 1.0})
        assert (await api.get("/invoke")).json()["fallback"] == 1

    @pytest.mark.parametrize("path", ["/invoke", "/invoke_delay", "/invoke_error"])
    @pytest.mark.parametrize("count", ["0", "501", "-1", "x", "1.5", ""])
    async def test_a_count_out_of_range_is_a_validation_error(self, api, path, count):
        problem = assert_problem(await api.get(f"{path}?count={count}"), 422, "VALIDATION_ERROR")
        assert problem["errors"][0]["field"] == "count"

    async def test_runs_count_against_the_read_quota(self, redis_server):
        async with running_api(redis_server.url, rate_limit_read_requests=2, **CALM) as api:
            assert (await api.get("/invoke")).status_code == 200
            assert (await api.get("/invoke")).status_code == 200
            assert_problem(await api.get("/invoke_error"), 429, "RATE_LIMIT_EXCEEDED")

    async def test_a_rejected_call_has_a_retry_after(self, redis_server):
        async with (
            running_api(redis_server.url, **PLENTY, **CALM) as api,
            client_of(api, "/invoke_delay?count=500"),
        ):
            await asyncio.sleep(0.05)
            busy = await api.get("/invoke")
            assert_problem(busy, 429, "LAB_BUSY")
            assert 100 < int(busy.headers["retry-after"]) <= 120


@asynccontextmanager
async def client_of(api, path, method="GET", **headers):
    """Send a request like a server, and yield the status and the list of received chunks.

    The client disconnects at the end of the block.
    """
    messages, chunks, status = asyncio.Queue(), [], asyncio.get_running_loop().create_future()
    messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    async def send(message):
        if message["type"] == "http.response.start":
            status.set_result(message["status"])
        elif body := message.get("body"):
            chunks.append(body)

    path, _, query = path.partition("?")
    sent = [(b"host", b"localhost")]
    sent += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": query.encode(), "headers": sent,
        "client": ("127.0.0.1", 50000), "server": ("localhost", 80), "asgi": {"spec_version": "2.3"},
    }  # fmt: skip
    serving = asyncio.create_task(api._transport.app(scope, messages.get, send))
    async with asyncio.timeout(30):
        yield status, chunks
        messages.put_nowait({"type": "http.disconnect"})
        await serving


class TestDisconnect:
    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/invoke_delay?count=500"), ("POST", "/stress?seconds=60")]
    )
    async def test_a_client_that_disconnects_leaves_no_call(self, redis_server, method, path):
        async with running_api(redis_server.url, **PLENTY, **CALM) as api:
            async with client_of(api, path, method) as (status, _):
                await asyncio.sleep(0.05)
                assert not status.done()
            assert await status == 499
            running = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
            assert not [name for name in running if name.startswith("Lab.")]
            assert (await api.post("/stress?seconds=1&concurrency=1")).status_code == 200


class TestStress:
    async def test_a_stress_test_reports_its_figures(self, redis_server):
        async with running_api(redis_server.url, **PLENTY, **CALM) as api:
            report = (await api.post("/stress?seconds=1&concurrency=5")).json()
        assert report["concurrency"] == 5
        assert report["count"] == report["succeeded"] > 0
        assert 1000 <= report["duration_ms"] < 5000
        assert report["throughput_per_second"] > 0
        assert 0 < report["p50_ms"] <= report["p95_ms"] <= report["p99_ms"]
        assert report["rejected_p50_ms"] is None

    async def test_an_open_breaker_rejects_at_once_even_if_the_limiter_delays_calls(self, redis_server):
        async with running_api(redis_server.url, **PLENTY, **CALM) as api:
            await api.post("/force_open")
            report = (await api.post("/stress?seconds=2&concurrency=50")).json()
        assert report["rejected"] == report["count"]
        assert report["rejected_p50_ms"] < report["p95_ms"]

    async def test_one_at_a_time_over_the_fleet(self, redis_server):
        async with (
            running_api(redis_server.url, **PLENTY, **CALM) as api,
            running_api(redis_server.url, **PLENTY, **CALM) as other,
            client_of(api, "/stress?seconds=60", "POST"),
        ):
            with redis_server.connect() as redis:
                while not redis.exists("lab:stress"):
                    await asyncio.sleep(0.01)
            busy = await other.post("/stress")
            assert_problem(busy, 429, "LAB_BUSY")
            assert 1 <= int(busy.headers["retry-after"]) <= 65

    @pytest.mark.parametrize("query", ["seconds=0", "seconds=61", "concurrency=0", "concurrency=201"])
    async def test_the_load_is_bounded(self, api, query):
        assert_problem(await api.post(f"/stress?{query}"), 422, "VALIDATION_ERROR")


class TestManualControl:
    async def test_a_breaker_that_is_forced_open_stays_open_until_it_is_reset(self, api):
        opened = (await api.post("/force_open")).json()
        assert opened["state"] == "OPEN"
        assert opened == (await api.get("/circuit_state")).json()
        assert (await api.get("/invoke?count=2")).json()["rejected"] == 2
        closed = (await api.post("/reset_circuit")).json()
        assert closed == {"state": "CLOSED", "fail_count": 0, "opened_at": None}
        assert (await api.get("/invoke")).json()["succeeded"] == 1

    @pytest.mark.parametrize("path", ["/force_open", "/reset_circuit", "/stress"])
    async def test_routes_that_change_state_or_make_load_are_for_admins(self, redis_server, path):
        async with running_api(redis_server.url, admin_api_key="secret", **CALM) as api:
            assert_problem(await api.post(path), 401, "UNAUTHORIZED")
            answer = await api.post(f"{path}?seconds=1", headers={"X-API-Key": "secret"})
            assert answer.status_code == 200
        async with running_api(redis_server.url, peer="203.0.113.9", **CALM) as api:
            assert_problem(await api.post(path), 403, "FORBIDDEN")
            assert (await api.get("/invoke")).status_code == 200
            assert (await api.get("/circuit_state")).status_code == 200


def sse(chunks):
    """Return the events in the chunks of a stream, as pairs of id and data."""
    events = []
    for block in b"".join(chunks).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["id"], json.loads(fields["data"])))
    return events


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


class TestEvents:
    async def test_the_log_has_the_decisions_of_the_patterns_newest_last(self, api):
        await api.get("/invoke_error?count=5")
        await api.get("/invoke_delay")
        await api.post("/reset_circuit")
        lines = await lines_with_events(
            api, "Retried", "RetriesExhausted", "FellBack", "Rejected", "StateChanged"
        )
        changes = [line.split(" ", 4)[2:] for line in lines if "StateChanged" in line]
        assert [change[0] for change in changes] == ["external-service"] * len(changes)
        assert changes[0][2].startswith('before="CLOSED" after="OPEN" reason="')
        assert any('error="ExternalServiceError: status 500"' in line for line in lines)

    async def test_the_log_is_plain_text(self, api):
        answer = await api.get("/logs")
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text == ""

    async def test_the_log_has_the_events_of_all_workers(self, redis_server, api):
        async with running_api(redis_server.url, **PLENTY, **CALM) as other:
            await other.post("/force_open")
            assert len(await lines_with_events(api, "StateChanged")) == 1

    async def test_the_text_can_be_followed(self, api):
        await api.post("/force_open")
        await lines_with_events(api, "StateChanged")
        async with client_of(api, "/logs?follow=true") as (status, chunks):
            assert await status == 200
            await until(lambda: b"OPEN" in b"".join(chunks))
            await api.post("/reset_circuit")
            await until(lambda: b'after="CLOSED"' in b"".join(chunks))

    async def test_server_sent_events_are_json_and_can_be_continued(self, api):
        await api.post("/force_open")
        async with client_of(api, "/api/events") as (_, chunks):
            await until(lambda: sse(chunks))
            [(first, event)] = sse(chunks)
            assert event["event"] == "StateChanged"
            assert (event["before"], event["after"]) == ("CLOSED", "OPEN")
        await api.post("/reset_circuit")
        async with client_of(api, "/api/events", last_event_id=first) as (_, chunks):
            await until(lambda: sse(chunks))
            assert [event["after"] for _, event in sse(chunks)] == ["CLOSED"]

    async def test_a_stream_without_events_is_kept_alive(self, api, monkeypatch):
        monkeypatch.setattr(feed, "QUIET_SECONDS", 0)
        async with client_of(api, "/api/events") as (_, chunks):
            await until(lambda: chunks.count(b": ping\n\n") > 1)

    @pytest.mark.parametrize("place", ["x", "1", "1-2-3", "-", "99999999999999999999-0"])
    async def test_an_invalid_last_event_id_is_a_validation_error(self, api, place):
        answer = await api.get("/api/events", headers={"Last-Event-ID": place})
        assert_problem(answer, 422, "VALIDATION_ERROR")

    async def test_followers_are_limited_and_their_slots_are_released(self, api, monkeypatch):
        monkeypatch.setattr(feed, "MAX_FOLLOWERS", 1)
        async with client_of(api, "/logs?follow=true") as (status, _):
            assert await status == 200
            for path in ("/api/events", "/logs?follow=true"):
                refused = await api.get(path)
                assert_problem(refused, 429, "LAB_BUSY")
                assert int(refused.headers["retry-after"]) >= 1
            assert (await api.get("/logs")).status_code == 200
        async with client_of(api, "/api/events") as (status, _):
            assert await status == 200

    async def test_reading_the_text_counts_against_the_read_quota(self, redis_server):
        async with running_api(redis_server.url, rate_limit_read_requests=1, **CALM) as api:
            assert (await api.get("/logs")).headers["ratelimit"].startswith('"read"')
            for path in ("/logs", "/logs?follow=true"):
                assert_problem(await api.get(path), 429, "RATE_LIMIT_EXCEEDED")

    async def test_the_event_stream_counts_against_the_quota_of_the_page(self, redis_server):
        async with running_api(redis_server.url, rate_limit_read_requests=1, **CALM) as api:
            for _ in range(10):
                refused = await api.get("/api/events", headers={"Last-Event-ID": "x"})
                assert refused.headers["ratelimit"].startswith('"page"')
                assert_problem(refused, 422, "VALIDATION_ERROR")
            assert_problem(await api.get("/api/events"), 429, "RATE_LIMIT_EXCEEDED")
            assert (await api.get("/logs")).status_code == 200

    async def test_a_browser_that_follows_the_log_gets_a_page_without_a_script(self, api):
        await api.post("/force_open")
        await lines_with_events(api, "StateChanged")
        accept = "text/html,application/xhtml+xml,*/*;q=0.8"
        async with client_of(api, "/logs?follow=true", accept=accept) as (status, chunks):
            assert await status == 200
            await until(lambda: b"OPEN" in b"".join(chunks))
            page = b"".join(chunks).decode()
        assert page.startswith("<!doctype html>")
        assert 'href="dashboard/logs.css"' in page
        assert "<script" not in page
        assert 'before="CLOSED" after="OPEN"' in page
        assert "//" not in page.partition("<pre>")[0]  # nothing from another host
        plain = await api.get("/logs", headers={"Accept": accept})
        assert plain.headers["content-type"].startswith("text/plain")

    async def test_waits_for_the_limiter_are_in_the_log(self, redis_server):
        settings = {"external_service_rate_per_second": 5}
        async with running_api(redis_server.url, **settings, **PLENTY, **CALM) as api:
            await api.post("/stress?seconds=1&concurrency=10")
            lines = await lines_with_events(api, "Waited")
        assert any(" external-service.rate-limiter Waited " in line for line in lines)


class TestRedisOutage:
    async def test_without_redis_the_lab_works_events_are_counted_and_the_log_is_a_503(self, own_redis):
        async with running_api(own_redis.url, **QUICK, **PLENTY, **CALM) as api:
            own_redis.kill()
            assert (await api.get("/invoke")).json()["succeeded"] == 1
            assert (await api.get("/invoke_error?count=5")).json()["fallback"] == 5
            assert (await api.get("/invoke?count=50")).json()["rejected"] == 50
            assert_problem(await api.get("/logs"), 503, "REDIS_UNAVAILABLE")
            assert_problem(await api.post("/stress"), 503, "REDIS_UNAVAILABLE")
            dropped = 'resilience_events_total{event="EventDropped",policy="event-log"}'
            async with asyncio.timeout(10):
                while dropped not in (await api.get("/metrics")).text:
                    await asyncio.sleep(0.02)
            async with client_of(api, "/api/events") as (status, chunks):
                assert await status == 200
                own_redis.start()
                while (await api.get("/health")).status_code != 200:
                    await asyncio.sleep(0.02)
                await api.post("/force_open")
                await until(lambda: [event for _, event in sse(chunks) if event["event"] == "StateChanged"])


@pytest.mark.slow
class TestProcesses:
    async def test_a_follower_does_not_delay_the_stop_of_the_service(self, redis_server, tmp_path):
        server = Server(redis_server.url, tmp_path)
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            try:
                await server.until_healthy(client)
                async with client.stream("GET", "/logs?follow=true") as text:
                    assert text.status_code == 200
                    await asyncio.to_thread(server.stop)  # the call waits, but not for long
            finally:
                server.process.kill()
        assert "Traceback" not in server.log.read_text()
        assert '"exception"' not in server.log.read_text()
