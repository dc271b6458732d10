"""The reads of the operator's page: a quota of their own, and cheap questions only."""

import pytest

from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, PLENTY, metric, running_api


async def test_they_take_nothing_from_the_read_quota(redis_server):
    async with running_api(redis_server.url, rate_limit_read_requests=2, **CALM) as api:
        await api.post("/api/metrics", json=metric())
        for _ in range(10):
            types = await api.get("/api/dashboard/types")
            assert types.headers["ratelimit-policy"].startswith('"page";q=20;')
            series = await api.get("/api/dashboard/series?type=cpu&range=1h")
            assert (types.status_code, series.status_code) == (200, 200)
        assert_problem(await api.get("/api/dashboard/types"), 429, "RATE_LIMIT_EXCEEDED")
        assert (await api.get("/api/metrics/types")).status_code == 200


async def test_they_answer_as_the_public_routes_do(redis_server):
    async with running_api(redis_server.url, **PLENTY, **CALM) as api:
        await api.post("/api/metrics", json=metric(7.0))
        types = await api.get("/api/dashboard/types")
        assert types.json() == (await api.get("/api/metrics/types")).json()
        steps = (await api.get("/api/dashboard/series?type=cpu&range=1h")).json()
        assert [step["average"] for step in steps if step["count"]] == [7.0]
        public = (await api.get("/api/metrics/series?type=cpu")).json()
        assert steps[-1].keys() == public[-1].keys()


async def test_a_type_is_read_by_labels(redis_server):
    """The page's data had no labels."""
    async with running_api(redis_server.url, **PLENTY, **CALM) as api:
        points = [metric(float(n)) | {"labels": {"host": host}} for n, host in enumerate("abb")]
        await api.post("/api/metrics/batch", json=points)
        (overview,) = (await api.get("/api/dashboard/types")).json()
        assert overview["series"] == 2
        read = "/api/dashboard/series?type=cpu&range=15min"
        steps = (await api.get(f"{read}&label=host:b")).json()
        assert sum(step["count"] for step in steps) == 2
        grouped = (await api.get(f"{read}&group_by=host")).json()
        counts = [(each["labels"], [step["count"] for step in each["steps"]]) for each in grouped["groups"]]
        assert counts == [({"host": "a"}, [1]), ({"host": "b"}, [2])]
        assert (grouped["type"], grouped["step"], grouped["group_by"]) == ("cpu", 60, ["host"])


@pytest.mark.parametrize(("length", "steps"), [("15min", 16), ("1h", 61), ("6h", 73), ("24h", 73)])
async def test_each_range_has_its_number_of_steps(redis_server, length, steps):
    async with running_api(redis_server.url, **PLENTY, **CALM) as api:
        found = (await api.get(f"/api/dashboard/series?type=cpu&range={length}")).json()
    assert steps - 1 <= len(found) <= steps + 1


@pytest.mark.parametrize(
    "query",
    ["type=cpu", "type=cpu&range=7h", "range=1h", "type=cpu&range=1h&step=1", "type=cpu&range=1h&label=host"],
)
async def test_only_the_ranges_of_the_page_can_be_read(redis_server, query):
    async with running_api(redis_server.url, **PLENTY, **CALM) as api:
        assert_problem(await api.get(f"/api/dashboard/series?{query}"), 422, "VALIDATION_ERROR")
