"""Summaries, lists and types, over HTTP."""

import asyncio

import pytest

from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, PLENTY, metric, running_api

FRESH = {"Cache-Control": "no-cache"}


async def post(api, *metrics):
    answer = await api.post("/api/metrics/batch", json=list(metrics))
    assert answer.status_code == 201


class TestSummary:
    async def test_the_summary_has_every_figure(self, api):
        await post(api, *(metric(value, ago=100 - value) for value in range(1, 11)))
        answer = await api.get("/api/metrics/summary?type=cpu&period=hourly")
        summary = answer.json()
        assert summary.items() >= {
            "type": "cpu", "period": "hourly", "count": 10, "average_value": 5.5, "min_value": 1.0,
            "max_value": 10.0, "latest_value": 10.0, "sum": 55.0, "reference": None, "degraded": False,
        }.items()  # fmt: skip
        assert summary["p50"] == pytest.approx(5, rel=0.01)
        assert summary["p95"] == summary["p99"] == pytest.approx(10, rel=0.01)
        assert summary["latest_timestamp"].endswith("Z")
        assert summary["generated_at"].endswith("Z")

    async def test_without_data_the_summary_is_empty(self, api):
        summary = (await api.get("/api/metrics/summary?type=nothing")).json()
        assert summary["period"] == "all"
        assert summary["count"] == 0
        for figure in ("average_value", "min_value", "max_value", "latest_value", "sum", "p50", "p95", "p99",
                       "latest_timestamp", "reference"):  # fmt: skip
            assert summary[figure] is None

    async def test_windows_are_rolling(self, api):
        await post(api, metric(1, ago=30), metric(2, ago=3700), metric(3, ago=90_000), metric(4, ago=-60))
        counts = {
            period: (await api.get(f"/api/metrics/summary?type=cpu&period={period}")).json()["count"]
            for period in ("all", "daily", "hourly")
        }
        assert counts == {"all": 4, "daily": 2, "hourly": 1}

    async def test_a_known_type_has_its_reference(self, api):
        summary = (await api.get("/api/metrics/summary?type=cpu_usage")).json()
        assert summary["reference"]["unit"]

    async def test_a_summary_is_cached_until_no_cache_is_requested(self, api, redis_server):
        await post(api, metric(1))
        first = await api.get("/api/metrics/summary?type=cpu")
        await post(api, metric(3))
        second = await api.get("/api/metrics/summary?type=cpu")
        anew = await api.get("/api/metrics/summary?type=cpu", headers=FRESH)
        then = await api.get("/api/metrics/summary?type=cpu")
        assert [a.headers["x-cache"] for a in (first, second, anew, then)] == ["MISS", "HIT", "MISS", "HIT"]
        assert second.content == first.content
        assert anew.json()["count"] == then.json()["count"] == 2
        assert int(second.headers["age"]) in {0, 1}
        assert "max-age" in second.headers["cache-control"]
        with redis_server.connect() as client:
            assert 0 < client.ttl("summary:cpu:all") <= 300

    async def test_an_unchanged_file_is_not_sent_again(self, api):
        first = await api.get("/api/metrics/summary?type=cpu")
        tag = first.headers["etag"]
        for given in (tag, f'"other", W/{tag}', "*"):
            answer = await api.get("/api/metrics/summary?type=cpu", headers={"If-None-Match": given})
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == tag
        changed = await api.get("/api/metrics/summary?type=cpu", headers={"If-None-Match": '"other"'})
        assert changed.status_code == 200

    async def test_concurrent_requests_without_a_cached_summary_compute_once(self, api):
        asked = (f"/api/metrics/summary?type=cpu_usage&period={p}" for p in ["all"] * 50)
        answers = await asyncio.gather(*map(api.get, asked))
        assert len({answer.content for answer in answers}) == 1

    async def test_writes_can_drop_the_cache(self, redis_server):
        async with running_api(redis_server.url, cache_invalidate_on_write=True, **PLENTY, **CALM) as api:
            await post(api, metric(1))
            await api.get("/api/metrics/summary?type=cpu")
            await post(api, metric(3))
            answer = await api.get("/api/metrics/summary?type=cpu")
            assert answer.headers["x-cache"] == "MISS"
            assert answer.json()["count"] == 2

    @pytest.mark.parametrize(
        ("query", "field"),
        [("", "type"), ("type=", "type"), ("type=a%20b", "type"), ("type=a&period=weekly", "period")],
    )
    async def test_an_invalid_query_is_reported(self, api, query, field):
        problem = assert_problem(await api.get(f"/api/metrics/summary?{query}"), 422, "VALIDATION_ERROR")
        assert problem["errors"][0]["field"] == field

    @pytest.mark.parametrize(
        ("sent", "answered"),
        [
            ("max-age=5, No-Cache", "MISS"),
            ('no-cache="x"', "MISS"),
            ("x-no-cache-please", "HIT"),  # "no-cache" must be a directive, and not a part of another value
            ('ext="a, no-cache, b"', "HIT"),
            ("no-cached", "HIT"),
        ],
    )
    async def test_only_the_directive_no_cache_refreshes(self, api, sent, answered):
        await api.get("/api/metrics/summary?type=cpu")
        answer = await api.get("/api/metrics/summary?type=cpu", headers={"Cache-Control": sent})
        assert answer.headers["x-cache"] == answered

    async def test_a_hit_takes_one_round_trip(self, api):
        await api.get("/api/metrics/summary?type=cpu")
        link = api.state["is_redis_connected"].__self__
        before = link.round_trips
        assert (await api.get("/api/metrics/summary?type=cpu")).headers["x-cache"] == "HIT"
        assert link.round_trips - before == 1


@pytest.mark.parametrize(
    ("path", "round_trips"),
    [
        ("/api/metrics/list?type=cpu", 1),
        ("/api/metrics/list", 2),  # first the types, then their points
        ("/api/metrics/types", 2),  # likewise
        ("/api/metrics/series?type=cpu", 1),
    ],
)
async def test_the_decision_needs_no_additional_round_trip(api, path, round_trips):
    await post(api, metric(1))
    await api.get(path)  # loads the scripts into Redis
    link = api.state["is_redis_connected"].__self__
    before = link.round_trips
    assert (await api.get(path)).status_code == 200
    assert link.round_trips - before == round_trips


class TestList:
    async def test_the_list_is_newest_first_for_one_type_and_for_all(self, api):
        await post(api, metric(1, "a", ago=3), metric(2, "b", ago=2), metric(3, "a", ago=1))
        everything = (await api.get("/api/metrics/list")).json()
        assert [item["value"] for item in everything] == [3, 2, 1]
        assert everything[0].keys() == {"timestamp", "value", "type"}
        assert [item["value"] for item in (await api.get("/api/metrics/list?type=a")).json()] == [3, 1]

    @pytest.mark.parametrize("kind", ["cpu", None])
    async def test_walking_the_pages_neither_repeats_nor_skips(self, api, kind):
        await post(api, *(metric(n, "cpu" if kind else f"t{n % 3}", ago=1000 - n % 7) for n in range(25)))
        answer = await api.get("/api/metrics/list", params={"limit": 4} | ({"type": kind} if kind else {}))
        seen = [item["value"] for item in answer.json()]
        while "next" in answer.links:
            await post(api, metric(1000, "cpu", ago=1))  # other clients write
            answer = await api.get(answer.links["next"]["url"])
            seen += [item["value"] for item in answer.json()]
        assert sorted(seen) == list(range(25))

    @pytest.mark.parametrize(
        ("query", "field"),
        [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("cursor=junk", "cursor")],
    )
    async def test_an_invalid_query_is_reported(self, api, query, field):
        problem = assert_problem(await api.get(f"/api/metrics/list?{query}"), 422, "VALIDATION_ERROR")
        assert problem["errors"][0]["field"] == field


async def test_types_are_listed_with_their_latest(api):
    await post(api, metric(1, "old", ago=100), metric(2, "new", ago=1), metric(3, "old", ago=200))
    types = (await api.get("/api/metrics/types")).json()
    assert [(item["type"], item["count"], item["latest_value"]) for item in types] == [
        ("new", 1, 2),
        ("old", 2, 1),
    ]
