"""The internal proxy through the API, on a real Redis and over real sockets."""

import asyncio
import gzip

import httpx
import pytest

from tests.support.api import CALM, PLENTY, running_api
from tests.support.upstream import running_upstream

QUICK = {"proxy_rate_limit_seconds": 0.05}


@pytest.fixture
def start_api(redis_server):
    def start(**settings):
        return running_api(redis_server.url, **(PLENTY | CALM | QUICK | settings))

    return start


@pytest.fixture
async def upstream():
    async with running_upstream() as upstream:
        yield upstream


@pytest.fixture
async def api(start_api, upstream):
    async with start_api(proxy_upstream_url=f"{upstream.url}/base") as client:
        yield client


async def until_waiting(api, size):
    """Wait until the given number of calls is in the queue."""
    async with asyncio.timeout(5):
        while (await api.get("/api/proxy/status")).json()["queue_size"] != size:
            await asyncio.sleep(0.005)


async def test_a_request_is_passed_on_and_its_answer_passed_back(api, upstream):
    sent = {"client-id": "billing", "X-API-Key": "secret", "Range": "bytes=0-1", "X-Request-ID": "trace-1"}
    sent |= {"X-Original-URL": "/admin", "X-Forwarded-For": "10.0.0.1"}
    answer = await api.get("/proxy/a%20b//c?x=%2F&priority=7&y=1&y=2", headers=sent)
    assert (answer.status_code, answer.text) == (200, "GET /base/a%20b//c?x=%2F&y=1&y=2 HTTP/1.1")
    assert answer.headers["x-cache"] == "MISS"
    assert int(answer.headers["x-queue-wait-ms"]) >= 0
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"] == "trace-1"
    (headers,) = upstream.headers
    assert {"client-id: billing", "x-request-id: trace-1", "accept-encoding: identity"} <= set(headers)
    assert f"host: {upstream.url.removeprefix('http://')}" in headers
    assert not [header for header in headers if header.startswith(("x-api-key", "range", "x-orig", "x-forw"))]


async def test_the_second_request_is_answered_by_a_copy(api, upstream):
    first, second = await api.get("/proxy/a"), await api.get("/proxy/a?priority=3")
    assert second.headers["x-cache"] == "HIT"
    assert second.headers["age"] == "0"
    assert second.headers["x-queue-wait-ms"] == "0"
    assert second.content == first.content
    assert "age" not in first.headers
    assert len(upstream.arrivals) == 1


async def test_a_head_is_passed_on_as_a_head(api, upstream):
    answer = await api.head("/proxy/a")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "21")
    assert upstream.arrivals[0][1] == "HEAD /base/a HTTP/1.1"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_another_method_is_a_405_that_names_the_allowed_ones(api, method):
    answer = await api.request(method, "/proxy/a")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "path",
    ["/proxy//evil.example/", "/proxy/http://evil.example/", "/proxy/%2e%2e/a", "/proxy/a%2f..%2fb",
     "/proxy/a%5cb", "/proxy/a%0d%0aHost:x", "/%70roxy/a"],
)  # fmt: skip
async def test_a_path_that_tries_to_leave_is_a_400(api, upstream, path):
    answer = await api.get(httpx.URL("http://localhost", raw_path=path.encode()))
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert not upstream.arrivals


@pytest.mark.parametrize("priority", ["high", "1.5", "", "-1001", "1001", "99999999999999999999"])
async def test_an_invalid_priority_is_a_422(api, upstream, priority):
    answer = await api.get(f"/proxy/a?priority={priority}")
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    assert answer.json()["errors"][0]["field"] == "priority"
    assert not upstream.arrivals


@pytest.mark.parametrize("client_id", ["a b", "x" * 129, "a\tb", "ä"])
async def test_an_invalid_client_id_is_not_passed_on(api, upstream, client_id):
    answer = await api.get("/proxy/a", headers={"client-id": client_id.encode()})
    assert answer.status_code == 200
    assert not [header for header in upstream.headers[0] if header.startswith("client-id")]


async def test_the_client_id_is_in_the_log(start_api, capfdbinary):
    async with start_api(log_level="INFO") as api:
        await api.get("/proxy/get", headers={"client-id": "billing"})
        await api.get("/proxy/get")
    lines = [line for line in capfdbinary.readouterr().out.splitlines() if b'"event":"request"' in line]
    assert [b'"client_id":"billing"' in line for line in lines] == [True, False]


async def test_the_default_upstream_is_the_external_service(start_api):
    async with start_api() as api:
        answer = await api.get("/proxy/get?a=1")
        assert answer.json()["args"] == {"a": ["1"]}
        assert (await api.get("/proxy/stats")).json()["by_endpoint"]["get"] == 1


async def test_client_errors_are_passed_on(start_api):
    async with start_api() as api:
        for _ in range(4):  # none of them is a failure
            answer = await api.get("/proxy/status/404")
            assert (answer.status_code, answer.json()["detail"]) == (404, "the requested status")
            assert "code" not in answer.json()


async def test_a_redirect_is_passed_on_and_not_followed(start_api):
    async with start_api() as api:
        assert (await api.get("/proxy/status/302")).status_code == 302


async def test_failures_open_the_breaker_and_each_has_a_retry_after(start_api):
    async with start_api(proxy_circuit_breaker_reset_timeout=20) as api:
        answers = [await api.get(f"/proxy/status/500?n={n}") for n in range(4)]
        codes = [answer.json()["code"] for answer in answers]
        assert codes == ["EXTERNAL_SERVICE_UNAVAILABLE"] * 3 + ["CIRCUIT_OPEN"]
        assert {answer.status_code for answer in answers} == {503}
        assert [int(answer.headers["retry-after"]) for answer in answers] == [1, 1, 20, 20]
        status = (await api.get("/api/proxy/status")).json()
        assert status["breaker"]["state"] == "OPEN"
        assert 0 < status["breaker"]["retry_after"] <= 20
        # the external service has its own breaker
        assert (await api.get("/api/circuit-breaker/status")).json()["state"] == "CLOSED"


async def test_a_stale_copy_takes_the_place_of_a_503(start_api):
    async with start_api(proxy_cache_ttl_seconds=1) as api:
        fresh = await api.get("/proxy/get")
        await api.put("/api/admin/external-service/failure-rate", json={"failure_rate": 1})
        await asyncio.sleep(1.05)
        stale = await api.get("/proxy/get")
        assert (stale.status_code, stale.headers["x-cache"], stale.content) == (200, "STALE", fresh.content)
        assert stale.headers["age"] == "1"
        assert (await api.get("/api/proxy/status")).json()["fallbacks"] == 1


async def test_a_full_queue_is_a_503(start_api):
    settings = {"proxy_rate_limit_seconds": 30, "queue_max_size": 2, "proxy_request_timeout_seconds": 600}
    async with start_api(**settings) as api:
        await api.get("/proxy/get?n=0")
        waiting = [asyncio.create_task(api.get(f"/proxy/get?n={n}")) for n in (1, 2)]
        await until_waiting(api, 2)
        full = await api.get("/proxy/get?n=3")
        assert (full.status_code, full.json()["code"]) == (503, "QUEUE_FULL")
        assert 25 <= int(full.headers["retry-after"]) <= 31  # until there is a place
        for task in waiting:
            task.cancel()
        await until_waiting(api, 0)


async def test_a_request_that_would_wait_too_long_is_a_503_at_once(start_api):
    settings = {"proxy_rate_limit_seconds": 30, "proxy_request_timeout_seconds": 20}
    async with start_api(**settings) as one, start_api(**settings) as other:
        await one.get("/proxy/get?n=0")
        for api in (one, other):
            late = await api.get("/proxy/get?n=1")
            assert (late.status_code, late.json()["code"]) == (503, "QUEUE_FULL")
            assert 5 <= int(late.headers["retry-after"]) <= 13  # until a new request gets a slot in time
        statuses = [(await api.get("/api/proxy/status")).json() for api in (one, other, one)]
        status = statuses[-1]  # each worker has sent its counts by now
        assert (status["queue_size"], status["failures"], status["requests"]) == (0, 2, 3)


async def test_an_answer_that_does_not_begin_in_time_is_a_504(start_api):
    async def slow(_upstream, _line, _writer):
        await asyncio.sleep(30)

    async with (
        running_upstream(slow) as upstream,
        start_api(proxy_upstream_url=upstream.url, proxy_request_timeout_seconds=0.3) as api,
    ):
        answer = await api.get("/proxy/a")
        assert (answer.status_code, answer.json()["code"]) == (504, "QUEUE_TIMEOUT")
        assert "retry-after" not in answer.headers


async def test_an_answer_that_is_too_long_is_a_502(start_api):
    async def long(_upstream, _line, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000)

    async with (
        running_upstream(long) as upstream,
        start_api(proxy_upstream_url=upstream.url, proxy_max_body_bytes=1999) as api,
    ):
        answer = await api.get("/proxy/a")
        assert (answer.status_code, answer.json()["code"]) == (502, "UPSTREAM_ANSWER_TOO_LARGE")


@pytest.mark.parametrize(
    "head",
    [b"600 Odd\r\n", b"999 Odd\r\n", b"200 OK\r\nX-Odd: a\x01b\r\n", b"404 Not Found\r\nX-Odd: \x7f\r\n"],
)
async def test_an_answer_that_is_not_http_is_a_503_and_not_kept(start_api, head):
    async def answer_with_unusual_headers(_upstream, _line, writer):
        writer.write(b"HTTP/1.1 " + head + b"Content-Length: 2\r\n\r\nhi")

    async with (
        running_upstream(answer_with_unusual_headers) as upstream,
        start_api(proxy_upstream_url=upstream.url) as api,
    ):
        for asked in (1, 2):
            answer = await api.get("/proxy/a")
            assert (answer.status_code, answer.json()["code"]) == (503, "EXTERNAL_SERVICE_UNAVAILABLE")
            assert len(upstream.arrivals) == asked


async def test_a_length_beside_a_transfer_encoding_is_dropped(start_api):
    async def both(_upstream, _line, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"5\r\nhello\r\n0\r\n\r\n")

    async with running_upstream(both) as upstream, start_api(proxy_upstream_url=upstream.url) as api:
        for copy in ("MISS", "HIT"):
            answer = await api.get("/proxy/a")
            assert (answer.headers["x-cache"], answer.text) == (copy, "hello")
            assert "content-length" not in answer.headers


async def test_an_encoded_body_is_passed_on_unchanged(start_api):
    packed = gzip.compress(b"hello")

    async def encoded(_upstream, _line, writer):
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        writer.write(head + packed)

    async with running_upstream(encoded) as upstream, start_api(proxy_upstream_url=upstream.url) as api:
        for _ in range(2):
            answer = await api.get("/proxy/a")
            assert (answer.headers["content-encoding"], answer.text) == ("gzip", "hello")


async def test_no_cookie_of_the_upstream_reaches_another_caller(start_api):
    async def answer_with_cookie(_upstream, _line, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=first\r\nContent-Length: 0\r\n\r\n")

    async with (
        running_upstream(answer_with_cookie) as upstream,
        start_api(proxy_upstream_url=upstream.url) as api,
    ):
        first = await api.get("/proxy/a")
        api.cookies.clear()
        assert first.headers["set-cookie"] == "who=first"
        await api.get("/proxy/b")
        assert not [header for header in upstream.headers[1] if header.startswith("cookie")]


async def test_a_429_postpones_the_calls_of_all_workers(start_api):
    async def refuse_once(upstream, line, writer):
        status = b"429 Too Many Requests\r\nRetry-After: 1" if len(upstream.arrivals) == 1 else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)

    async with (
        running_upstream(refuse_once) as upstream,
        start_api(proxy_upstream_url=upstream.url) as one,
        start_api(proxy_upstream_url=upstream.url) as other,
    ):
        refused = await one.get("/proxy/a")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert (await other.get("/proxy/b")).status_code == 200
        assert upstream.gaps[0] >= 1


async def test_the_overview_shows_a_queue_that_is_postponed(start_api):
    async def refuse(_upstream, _line, writer):
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 200\r\nContent-Length: 0\r\n\r\n")

    async with running_upstream(refuse) as upstream, start_api(proxy_upstream_url=upstream.url) as api:
        await api.get("/proxy/a")
        rejected = await api.get("/proxy/b")
        assert (rejected.status_code, rejected.json()["code"]) == (503, "QUEUE_FULL")
        assert 100 < int(rejected.headers["retry-after"]) <= 200
        assert 100 < (await api.get("/api/proxy/status")).json()["next_turn_seconds"] <= 200
        overview = (await api.get("/api/overview")).json()
        assert overview["status"]["code"] == "PROXY_QUEUE_PAUSED"
        assert 100 < overview["proxy"]["next_turn_seconds"] <= 200


async def test_a_new_policy_applies_to_all_workers(start_api):
    async with start_api() as one, start_api() as other:
        assert (await one.get("/api/admin/proxy/policy")).json() == {"policy": "fifo"}
        answer = await one.put("/api/admin/proxy/policy", json={"policy": "priority"})
        assert (answer.status_code, answer.json()) == (200, {"policy": "priority"})
        assert (await other.get("/api/proxy/status")).json()["policy"] == "priority"
        for wrong in ({"policy": "lifo"}, {"policy": 1}, {}, []):
            answer = await one.put("/api/admin/proxy/policy", json=wrong)
            assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")


async def test_only_an_admin_sets_the_policy(start_api):
    async with start_api(peer="203.0.113.9") as api:
        answer = await api.put("/api/admin/proxy/policy", json={"policy": "priority"})
        assert answer.status_code == 403
        assert (await api.get("/api/admin/proxy/policy")).json() == {"policy": "fifo"}


async def test_with_the_policy_priority_a_lower_number_is_served_sooner(start_api, upstream):
    async with start_api(proxy_upstream_url=upstream.url, proxy_rate_limit_seconds=0.3) as api:
        await api.put("/api/admin/proxy/policy", json={"policy": "priority"})
        await api.get("/proxy/first")
        waiting = [asyncio.create_task(api.get(f"/proxy/{n}?priority={n}")) for n in (5, -5, 0)]
        await until_waiting(api, 3)
        await asyncio.gather(*waiting)
        assert [line.split()[1] for _, line in upstream.arrivals] == ["/first", "/-5", "/0", "/5"]


async def test_the_status_shows_every_member(api):
    await api.get("/proxy/a")
    await api.get("/proxy/a")
    status = (await api.get("/api/proxy/status")).json()
    latency, next_turn = status.pop("mean_latency_ms"), status.pop("next_turn_seconds")
    assert status == {
        "policy": "fifo", "interval_seconds": 0.05, "queue_size": 0, "capacity": 100,
        "oldest_age_seconds": None, "requests": 2, "successes": 1, "failures": 0, "fallbacks": 0,
        "cache_hits": 1, "breaker": {"state": "CLOSED", "retry_after": None},
    }  # fmt: skip
    assert latency > 0
    assert 0 <= next_turn < 0.06


async def test_without_redis_a_worker_keeps_its_own_pace(own_redis, upstream):
    settings = PLENTY | CALM | {"proxy_upstream_url": upstream.url, "proxy_rate_limit_seconds": 0.2}
    async with running_api(own_redis.url, **settings) as api:
        await api.get("/proxy/before")
        own_redis.kill()
        answers = await asyncio.gather(*(api.get(f"/proxy/{n}") for n in range(3)))
        assert [answer.status_code for answer in answers] == [200] * 3
        assert min(upstream.gaps) >= 0.2
        status = await api.get("/api/proxy/status")
        assert (status.status_code, status.json()["successes"]) == (200, 4)
        refused = await api.put("/api/admin/proxy/policy", json={"policy": "priority"})
        assert (refused.status_code, refused.json()["code"]) == (503, "REDIS_UNAVAILABLE")


@pytest.mark.parametrize("command", ["hgetall", "hset", "hdel", "hget", "evalsha"])
async def test_with_a_command_denied_in_redis_a_worker_keeps_its_own_pace(own_redis, upstream, command):
    with own_redis.connect() as client:
        client.execute_command("ACL", "SETUSER", "default", f"-{command}")
    settings = {"proxy_rate_limit_seconds": 0.2, "proxy_request_timeout_seconds": 10}
    settings |= PLENTY | CALM | {"proxy_upstream_url": upstream.url}
    async with running_api(own_redis.url, **settings) as api:
        answers = await asyncio.gather(*(api.get(f"/proxy/{n}") for n in range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        assert min(upstream.gaps) >= 0.2
