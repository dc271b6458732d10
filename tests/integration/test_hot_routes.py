"""The busiest routes: the same answers as the ordinary way, for less work."""

import asyncio

import pytest

from src.api.routes import ingest, metrics, overview, series
from tests.support.api import CALM, metric, running_api

VARYING = {"date", "x-request-id", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "age"}
NOBODYS = {"timestamp", "request_id"}
"""Members of a problem that are each one's own."""


@pytest.fixture
def round_trips(api):
    link = api.state["redis_answers"].__self__
    return lambda: link.round_trips


def gist(answer):
    return answer.status_code, answer.content, {k: v for k, v in answer.headers.items() if k not in VARYING}


@pytest.mark.parametrize(
    ("plain", "elaborate"),
    [
        ("type=cpu", "%74ype=cpu"),
        ("type=cpu&period=hourly", "period=hourly&type=cpu"),
        ("type=a/b:c.d_e-f", "type=a%2Fb%3Ac.d_e-f"),
    ],
)
async def test_a_summary_is_the_same_however_the_query_is_written(api, plain, elaborate):
    await api.post("/api/metrics", json=metric())
    await api.get(f"/api/metrics/summary?{plain}")
    by_lane = await api.get(f"/api/metrics/summary?{plain}")
    assert by_lane.headers["x-cache"] == "HIT"
    assert gist(by_lane) == gist(await api.get(f"/api/metrics/summary?{elaborate}"))


@pytest.mark.parametrize("query", ["", "type=", "type=cpu&period=weekly", "type=-cpu", "type=" + "a" * 129])
async def test_what_is_wrong_is_told_as_ever_and_counts(api, query):
    answer = await api.get(f"/api/metrics/summary?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    assert "ratelimit" in answer.headers


async def test_a_cached_summary_is_one_round_trip_and_so_is_a_measurement(api, round_trips):
    await api.post("/api/metrics", json=metric())
    await api.get("/api/metrics/summary?type=cpu")
    before = round_trips()
    await api.get("/api/metrics/summary?type=cpu")
    assert round_trips() == before + 1
    await api.post("/api/metrics", json=metric())
    assert round_trips() == before + 2


async def test_measurements_that_come_at_once_share_their_round_trips(api, round_trips):
    await api.post("/api/metrics", json=metric())
    before = round_trips()
    answers = await asyncio.gather(*(api.post("/api/metrics", json=metric(n)) for n in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert round_trips() - before <= 5, "twenty alone would take twenty"
    summary = await api.get("/api/metrics/summary?type=cpu", headers={"Cache-Control": "no-cache"})
    assert summary.json()["count"] == 21


@pytest.mark.parametrize("query", ["type=cpu", "%74ype=cpu", "type="])
async def test_who_is_known_to_be_over_the_quota_is_refused_at_the_entrance_as_ever(redis_server, query):
    async with running_api(redis_server.url, rate_limit_read_requests=1, **CALM) as api:
        await api.get("/api/metrics/list")
        asked = await api.get("/api/metrics/list")  # which has no lane
        link = api.state["redis_answers"].__self__
        before = link.round_trips
        known = await api.get(f"/api/metrics/summary?{query}", headers={"X-Request-ID": "abc"})
        assert link.round_trips == before
        assert (asked.status_code, known.status_code, known.headers["x-request-id"]) == (429, 429, "abc")
        assert [name for name in known.headers if name not in asked.headers] == []
        assert [name for name in asked.headers if name not in known.headers] == []
        for name in ("content-type", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining"):
            assert known.headers[name] == asked.headers[name]
        assert abs(int(known.headers["retry-after"]) - int(asked.headers["retry-after"])) <= 1
        told, ever = known.json(), asked.json()
        assert (told["request_id"], told.keys()) == ("abc", ever.keys())
        assert {name: told[name] for name in told.keys() - NOBODYS} == {
            name: ever[name] for name in ever.keys() - NOBODYS
        }
        counted = (await api.get("/metrics")).text
        for route in ("/api/metrics/list", "/api/metrics/summary"):
            assert f'http_requests_total{{method="GET",route="{route}",status="429"}}' in counted
        assert (await api.post("/api/metrics", json=metric())).status_code == 201, "another quota"


BY_ADMISSION = {
    "ingest": [("POST", "/api/metrics"), ("POST", "/api/metrics/batch")],
    "read": [("GET", "/api/metrics/summary?type=cpu"), ("GET", "/api/metrics/series?type=cpu&step=60")],
    None: [("GET", "/api/overview")],
}


@pytest.mark.parametrize("spent", ["ingest", "read"])
async def test_each_lane_stands_before_the_admission_that_is_further_in(redis_server, spent):
    limits = {"rate_limit_requests": 100, "rate_limit_read_requests": 100}
    limits["rate_limit_requests" if spent == "ingest" else "rate_limit_read_requests"] = 1
    async with running_api(redis_server.url, **limits, **CALM) as api:
        for _ in range(2):  # the second one is refused by Redis, and so known
            last = await (api.post("/api/metrics") if spent == "ingest" else api.get("/api/metrics/list"))
        assert last.status_code == 429
        for admission, requests in BY_ADMISSION.items():
            for method, path in requests:
                status = (await api.request(method, path)).status_code
                assert (status == 429) == (admission == spent), (method, path)


def test_every_lane_is_among_them():
    routes = (ingest, metrics, series, overview)
    lanes = {(lane.method, lane.path) for module in routes for lane in module.LANES}
    assert lanes == {
        (method, path.partition("?")[0]) for some in BY_ADMISSION.values() for method, path in some
    }
