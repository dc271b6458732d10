"""The hot routes of the complete API."""

import asyncio

import httpx
import pytest

from src.api.routes import overview
from src.api.routes.metrics import ingest, reads, series
from src.config.settings import Settings
from src.wiring import create_app
from tests.support.api import CALM, metric, running_api

NOBODYS = {"timestamp", "request_id"}
"""Members of a problem that are each one's own."""


@pytest.fixture
def round_trips(api):
    link = api.state["is_redis_connected"].__self__
    return lambda: link.round_trips


@pytest.mark.parametrize(
    "query",
    [
        "%74ype=cpu",
        "period=all&type=cpu",
        "type=gpu&type=cpu",
        "type=cpu&unknown=1",
        "type=cpu&unknown=" + "x" * 1000,
    ],
)
async def test_equivalent_queries_get_the_same_summary(api, query):
    await api.post("/api/metrics", json=metric())
    first = await api.get("/api/metrics/summary?type=cpu")
    again = await api.get(f"/api/metrics/summary?{query}")
    assert (again.status_code, again.headers["x-cache"], again.content) == (200, "HIT", first.content)


@pytest.mark.parametrize("query", ["", "type=", "type=cpu&period=weekly", "type=-cpu", "type=" + "a" * 129])
async def test_a_wrong_query_is_a_422_and_counts(api, query):
    answers = [await api.get(f"/api/metrics/summary?{query}") for _ in range(2)]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers]
    assert left[0] - left[1] == 1


async def test_a_cached_summary_is_one_round_trip_and_so_is_a_measurement(api, round_trips):
    await api.post("/api/metrics", json=metric())
    await api.get("/api/metrics/summary?type=cpu")
    before = round_trips()
    await api.get("/api/metrics/summary?type=cpu")
    assert round_trips() == before + 1
    await api.post("/api/metrics", json=metric())
    assert round_trips() == before + 2


async def test_concurrent_measurements_share_their_round_trips(api, round_trips):
    await api.post("/api/metrics", json=metric())
    before = round_trips()
    answers = await asyncio.gather(*(api.post("/api/metrics", json=metric(n)) for n in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert round_trips() - before <= 5, "twenty separate requests would take twenty round trips"
    summary = await api.get("/api/metrics/summary?type=cpu", headers={"Cache-Control": "no-cache"})
    assert summary.json()["count"] == 21


@pytest.mark.parametrize("query", ["type=cpu", "%74ype=cpu", "type="])
async def test_a_client_known_to_be_over_its_quota_is_rejected_before_the_handler(redis_server, query):
    async with running_api(redis_server.url, rate_limit_read_requests=1, **CALM) as api:
        await api.get("/api/metrics/list")
        asked = await api.get("/api/metrics/list")  # this route is not performance-critical
        link = api.state["is_redis_connected"].__self__
        before = link.round_trips
        known = await api.get(f"/api/metrics/summary?{query}", headers={"X-Request-ID": "abc"})
        assert link.round_trips == before
        assert (asked.status_code, known.status_code, known.headers["x-request-id"]) == (429, 429, "abc")
        assert [name for name in known.headers if name not in asked.headers] == []
        assert [name for name in asked.headers if name not in known.headers] == []
        for name in ("content-type", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining"):
            assert known.headers[name] == asked.headers[name]
        assert abs(int(known.headers["retry-after"]) - int(asked.headers["retry-after"])) <= 1
        known_problem, new_problem = known.json(), asked.json()
        assert (known_problem["request_id"], known_problem.keys()) == ("abc", new_problem.keys())
        assert {name: known_problem[name] for name in known_problem.keys() - NOBODYS} == {
            name: new_problem[name] for name in new_problem.keys() - NOBODYS
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
async def test_each_hot_route_uses_the_quota_of_its_handler(redis_server, spent):
    limits = {"rate_limit_requests": 100, "rate_limit_read_requests": 100}
    limits["rate_limit_requests" if spent == "ingest" else "rate_limit_read_requests"] = 1
    async with running_api(redis_server.url, **limits, **CALM) as api:
        for _ in range(2):  # Redis refuses the second one, so the worker repeats the refusal
            last = await (api.post("/api/metrics") if spent == "ingest" else api.get("/api/metrics/list"))
        assert last.status_code == 429
        for admission, requests in BY_ADMISSION.items():
            for method, path in requests:
                status = (await api.request(method, path)).status_code
                assert (status == 429) == (admission == spent), (method, path)


HOT_ROUTES = [route for module in (ingest, reads, series, overview) for route in module.HOT_ROUTES]


def test_every_hot_route_is_tested():
    assert {(route.method, route.path) for route in HOT_ROUTES} == {
        (method, path.partition("?")[0]) for some in BY_ADMISSION.values() for method, path in some
    }


async def test_the_documents_and_the_allowed_methods_are_those_of_the_same_handlers(api):
    """FastAPI registers the handlers of the hot routes, and no others for these paths."""
    routers = (ingest.router, reads.router, series.router, overview.router)
    registered = {
        (method, route.path): route.endpoint
        for router in routers
        for route in router.routes
        for method in route.methods
    }
    for route in HOT_ROUTES:
        assert registered[route.method, route.path] is route.handle
        refused = await api.patch(route.path)
        assert (refused.status_code, refused.headers["allow"]) == (
            405,
            "GET, HEAD" if route.method == "GET" else "POST",
        )


async def test_below_the_path_of_a_proxy_the_framework_serves_the_same_handler(api):
    app = create_app(Settings(_env_file=None, log_level="CRITICAL"))

    async def below(scope, receive, send):
        prefixed = {**scope, "path": f"/below{scope['path']}", "root_path": "/below"}
        await app({**prefixed, "state": dict(api.state)}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(below), base_url="http://localhost") as client:
        assert (await client.post("/api/metrics", json=metric())).status_code == 201
        assert (await client.get("/api/metrics/summary?type=cpu")).json()["count"] == 1
        assert (await client.head("/api/metrics/summary?type=cpu")).headers["x-cache"] == "HIT"
        wrong = await client.get("/api/metrics/summary?period=weekly")
        assert (wrong.status_code, wrong.json()["code"]) == (422, "VALIDATION_ERROR")
