"""A metric type over time, over HTTP."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, running_api

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def point(seconds: float, value: float, kind: str = "cpu") -> dict[str, object]:
    return {"timestamp": (START + timedelta(seconds=seconds)).isoformat(), "value": value, "type": kind}


async def post(api, *points):
    assert (await api.post("/api/metrics/batch", json=list(points))).status_code == 201


async def test_a_series_has_the_figures_of_each_step(api):
    await post(api, point(0, 1), point(59.999999, 4), point(60, 9), point(180, 7), point(0, 5, "mem"))
    query = "type=cpu&from=2026-01-31T12:00:00Z&to=2026-01-31T12:03:00Z"
    answer = await api.get(f"/api/metrics/series?{query}")
    nothing = dict.fromkeys(("average", "min", "max", "p50", "p95", "p99"))
    four, nine = {"p50": 1.0, "p95": 4.0, "p99": 4.0}, {"p50": 9.0, "p95": 9.0, "p99": 9.0}
    assert answer.json() == [
        {"time": "2026-01-31T12:00:00Z", "count": 2, "average": 2.5, "min": 1.0, "max": 4.0, **four},
        {"time": "2026-01-31T12:01:00Z", "count": 1, "average": 9.0, "min": 9.0, "max": 9.0, **nine},
        {"time": "2026-01-31T12:02:00Z", "count": 0, **nothing},
    ]


async def test_steps_can_be_as_short_as_a_second(api):
    await post(api, point(0.5, 1), point(1.5, 2), point(1.6, 4))
    query = "type=cpu&from=2026-01-31T12:00:00.6Z&to=2026-01-31T12:00:02Z&step=1"
    steps = (await api.get(f"/api/metrics/series?{query}")).json()
    assert [(step["time"], step["count"]) for step in steps] == [
        ("2026-01-31T12:00:00Z", 0),  # its point lies before `from`
        ("2026-01-31T12:00:01Z", 2),
    ]


async def test_the_default_is_the_last_hour_by_minutes(api):
    now = datetime.now(UTC)
    await post(api, {"timestamp": now.isoformat(), "value": 3, "type": "cpu"})
    steps = (await api.get("/api/metrics/series?type=cpu")).json()
    assert len(steps) == 60
    assert sum(step["count"] for step in steps) == 1


async def test_an_offset_and_two_thousand_steps_are_accepted(api):
    bounds = {"from": "2026-01-31T14:00:00+02:00", "to": "2026-01-31T12:33:20Z"}
    steps = (await api.get("/api/metrics/series", params={"type": "cpu", "step": 1} | bounds)).json()
    assert (len(steps), steps[0]["time"]) == (2000, "2026-01-31T12:00:00Z")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "type"),
        ("type=a%20b", "type"),
        ("type=cpu&step=0", "step"),
        ("type=cpu&step=-60", "step"),
        ("type=cpu&step=1.5", "step"),
        ("type=cpu&step=minute", "step"),
        ("type=cpu&step=1", "step"),  # 3,600 of them
        ("type=cpu&from=2000-01-01T00:00:00Z", "step"),
        ("type=cpu&from=0001-01-01T00:00:00Z&step=400000000", "step"),
        ("type=cpu&step=" + "9" * 40, "step"),
        ("type=cpu&from=1769860800", "from"),
        ("type=cpu&to=1769860800.5", "to"),
        ("type=cpu&from=yesterday", "from"),
        ("type=cpu&from=2026-01-31T12:00:00Z&to=2026-01-31T12:00:00Z", "from"),
        ("type=cpu&from=2026-01-31T12:00:01Z&to=2026-01-31T12:00:00Z", "from"),
        ("type=cpu&from=9999-12-31T00:00:00Z", "from"),
        ("type=cpu&steps=60", "steps"),
    ],
)
async def test_an_invalid_query_is_reported(api, query, field):
    problem = assert_problem(await api.get(f"/api/metrics/series?{query}"), 422, "VALIDATION_ERROR")
    assert [error["field"] for error in problem["errors"]] == [field]


async def test_valid_and_invalid_requests_count_as_reads(redis_server):
    async with running_api(redis_server.url, rate_limit_read_requests=3, **CALM) as api:
        for query, status in (("type=cpu", 200), ("type=cpu&step=0", 422), ("type=cpu&step=1", 422)):
            answer = await api.get(f"/api/metrics/series?{query}")
            assert answer.status_code == status
            assert answer.headers["ratelimit-policy"] == '"read";q=3;w=60'
        assert_problem(await api.get("/api/metrics/series?type=cpu"), 429, "RATE_LIMIT_EXCEEDED")


async def test_a_series_takes_one_round_trip(api):
    await post(api, point(0, 1))
    link = api.state["is_redis_connected"].__self__
    await api.get("/api/metrics/series?type=cpu")
    before = link.round_trips
    await api.get("/api/metrics/series?type=cpu&step=300")
    assert link.round_trips - before == 1


async def test_without_redis_the_answer_is_a_503(own_redis):
    async with running_api(own_redis.url, **CALM) as api:
        own_redis.kill()
        answer = await api.get("/api/metrics/series?type=cpu")
        assert_problem(answer, 503, "REDIS_UNAVAILABLE")
