"""The rate limit, over HTTP."""

import asyncio

import pytest

from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, metric, running_api


async def test_the_quota_is_exact_and_in_the_headers(redis_server):
    async with running_api(redis_server.url, **CALM) as api:
        answers = [await api.post("/api/metrics", json=metric()) for _ in range(12)]
    assert [answer.status_code for answer in answers] == [201] * 10 + [429] * 2
    first, refused = answers[0], answers[-1]
    assert first.headers["ratelimit-policy"] == '"ingest";q=10;w=60'
    assert first.headers["ratelimit"] == '"ingest";r=9;t=60'
    assert first.headers["x-ratelimit-limit"] == "10"
    assert first.headers["x-ratelimit-remaining"] == "9"
    assert int(first.headers["x-ratelimit-reset"]) > 1_700_000_000
    problem = assert_problem(refused, 429, "RATE_LIMIT_EXCEEDED")
    assert problem["message"] == "Rate limit exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit"].startswith('"ingest";r=0;t=')


async def test_a_hundred_concurrent_requests_share_ten_permits(redis_server):
    async with running_api(redis_server.url, **CALM) as api:
        answers = await asyncio.gather(*(api.post("/api/metrics", json=metric()) for _ in range(100)))
        listed = await api.get("/api/metrics/list")
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [429] * 90
    assert len(listed.json()) == 10


async def test_reads_have_a_separate_quota(redis_server):
    async with running_api(redis_server.url, rate_limit_read_requests=2, **CALM) as api:
        paths = ["/api/metrics/summary?type=a", "/api/metrics/list", "/api/metrics/types"]
        answers = [await api.get(path) for path in paths]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["ratelimit-policy"] == '"read";q=2;w=60'
        assert (await api.post("/api/metrics", json=metric())).status_code == 201
        for path in ("/health", "/api/circuit-breaker/status", "/metrics"):
            assert (await api.get(path)).status_code == 200


async def test_a_batch_is_one_request(redis_server):
    async with running_api(redis_server.url, rate_limit_requests=1, **CALM) as api:
        assert (await api.post("/api/metrics/batch", json=[metric()] * 50)).status_code == 201
        assert (await api.post("/api/metrics/batch", json=[metric()])).status_code == 429


async def test_a_rejected_request_stores_nothing_and_is_rejected_before_its_body_is_read(redis_server):
    async with running_api(redis_server.url, rate_limit_requests=1, **CALM) as api:
        await api.post("/api/metrics", json=metric())
        refused = await api.post("/api/metrics", content=b"not json", headers={"Content-Type": "text/plain"})
        assert refused.status_code == 429
        assert len((await api.get("/api/metrics/list")).json()) == 1


async def test_a_client_over_its_quota_is_rejected_before_its_body_arrives(redis_server):
    async def stalled():
        yield b"{"
        await asyncio.Future()

    async with (
        running_api(redis_server.url, rate_limit_requests=1, **CALM) as other,
        running_api(
            redis_server.url, rate_limit_requests=1, **CALM
        ) as api,  # this worker has not received a refusal yet
        asyncio.timeout(5),
    ):
        await other.post("/api/metrics", json=metric())
        answer = await api.post("/api/metrics", content=stalled())
    assert_problem(answer, 429, "RATE_LIMIT_EXCEEDED")


@pytest.mark.parametrize(
    "wrong", [{"content": b"{"}, {"json": {}}, {"json": metric(), "headers": {"Idempotency-Key": ""}}]
)
async def test_a_client_over_its_quota_gets_the_429_before_other_errors(redis_server, wrong):
    async with (
        running_api(redis_server.url, rate_limit_requests=1, **CALM) as other,
        running_api(redis_server.url, rate_limit_requests=1, **CALM) as api,
    ):
        await other.post("/api/metrics", json=metric())
        assert_problem(await api.post("/api/metrics", **wrong), 429, "RATE_LIMIT_EXCEEDED")


async def test_each_client_has_a_separate_quota(redis_server):
    async with running_api(redis_server.url, rate_limit_requests=1, **CALM) as api:
        statuses = []
        for chain in ("198.51.100.1", "198.51.100.2", "6.6.6.6, 198.51.100.1", "2001:db8::1", "2001:db8::2"):
            answer = await api.post("/api/metrics", json=metric(), headers={"X-Forwarded-For": chain})
            statuses.append(answer.status_code)
    assert statuses == [201, 201, 429, 201, 429]


async def test_an_untrusted_client_cannot_choose_its_address(redis_server):
    async with running_api(redis_server.url, peer="203.0.113.9", rate_limit_requests=1, **CALM) as api:
        for n, expected in enumerate([201, 429]):
            headers = {"X-Forwarded-For": f"198.51.100.{n}"}
            assert (await api.post("/api/metrics", json=metric(), headers=headers)).status_code == expected


READS_THAT_ARE_WRONG = [
    "/api/metrics/summary",
    "/api/metrics/summary?type=a&period=weekly",
    "/api/metrics/list?limit=0",
    "/api/metrics/list?cursor=junk",
]


@pytest.mark.parametrize("path", READS_THAT_ARE_WRONG)
async def test_an_invalid_read_counts_and_gets_its_quota_headers(redis_server, path):
    """In the past, parameters were validated before the limiter, so such requests had no quota headers."""
    async with running_api(redis_server.url, rate_limit_read_requests=2, **CALM) as api:
        answers = [await api.get(path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [422, 422, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=1", "r=0", "r=0"]
    assert len(answers[0].headers.get_list("ratelimit")) == 1


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"content": b"{"}, 400),
        ({"content": b" " * 5_300_000}, 413),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"json": {}}, 422),
    ],
)
async def test_an_invalid_measurement_gets_its_quota_headers(redis_server, wrong, status):
    async with running_api(redis_server.url, **CALM) as api:
        answer = await api.post("/api/metrics", **wrong)
    assert answer.status_code == status
    assert answer.headers["ratelimit"] == '"ingest";r=9;t=60'


async def test_every_algorithm_holds_the_quota(redis_server):
    for name in (
        "sliding_window_log",
        "sliding_window_counter",
        "fixed_window",
        "token_bucket",
        "leaky_bucket",
    ):
        settings = {"rate_limit_algorithm": name, "rate_limit_requests": 3, "rate_limit_window_seconds": 3600}
        async with running_api(redis_server.url, **settings, **CALM) as api:
            answers = [await api.post("/api/metrics", json=metric()) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [201, 201, 201, 429], name
        assert int(answers[-1].headers["retry-after"]) >= 1
