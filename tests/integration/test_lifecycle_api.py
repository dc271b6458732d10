"""Deletion and retention over HTTP."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from src.services.metrics.lifecycle import MAX_RULES
from tests.support.api import CALM, PLENTY, metric, running_api

SETTINGS = PLENTY | CALM | {"cache_ttl_seconds": 300}


@pytest.fixture
async def api(redis_server):
    async with running_api(redis_server.url, **SETTINGS) as client:
        yield client


def labelled(value, host, ago=60.0, kind="cpu"):
    return metric(value, kind, ago) | {"labels": {"host": host}}


async def post(api, *points):
    answer = await api.post("/api/metrics/batch", json=list(points))
    assert answer.status_code == 201, answer.text


async def get(api, path):
    answer = await api.get(f"/api/metrics/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def delete(api, query):
    answer = await api.delete(f"/api/metrics?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_deleted_type_is_gone_from_every_read_and_from_redis(api):
    await post(api, metric(1.0), labelled(2.0, "a"), metric(3.0, "mem"))
    for query in ("", "&period=daily", "&label=host:a", "&group_by=host&period=hourly"):
        assert await get(api, f"summary?type=cpu{query}")  # it is in the cache
    assert await delete(api, "type=cpu") == {"deleted": 2}
    assert await delete(api, "type=cpu") == {"deleted": 0}
    for query in ("", "&period=daily", "&label=host:a"):
        assert (await get(api, f"summary?type=cpu{query}"))["count"] == 0
    assert (await get(api, "summary?type=cpu&group_by=host&period=hourly"))["groups"] == []
    assert [each["type"] for each in await get(api, "list")] == ["mem"]
    assert [each["type"] for each in await get(api, "types")] == ["mem"]
    assert await get(api, "labels?type=cpu") == []


async def test_a_deleted_type_leaves_no_key_in_redis(api, redis_server):
    await post(api, metric(1.0), labelled(2.0, "a"))
    await get(api, "summary?type=cpu")
    await get(api, "summary?type=cpu&label=host:a")
    await delete(api, "type=cpu")
    with redis_server.connect() as client:
        assert [key for key in client.keys("*") if "cpu" in key] == []
        assert client.zrange("types", 0, -1) == []


async def test_no_last_good_summary_of_deleted_measurements_is_served(api):
    await post(api, metric(1.0))
    assert (await get(api, "summary?type=cpu"))["count"] == 1
    await delete(api, "type=cpu")
    await api.put("/api/admin/external-service/failure-rate", json={"failure_rate": 1.0})
    answer = await api.get("/api/metrics/summary?type=cpu")
    assert answer.status_code == 503, answer.text


async def test_deletion_by_label_and_time(api):
    await post(
        api, labelled(1, "a", ago=7200), labelled(2, "a"), labelled(4, "b", ago=7200), labelled(8, "c")
    )
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    assert await delete(api, f"type=cpu&label=host:a&label=host:c&before={before}") == {"deleted": 1}
    assert (await get(api, "summary?type=cpu"))["sum"] == 14
    assert await delete(api, "type=cpu&label=host:c") == {"deleted": 1}
    assert (await get(api, "labels?type=cpu")) == [
        {"name": "host", "values": [{"value": "a", "count": 1}, {"value": "b", "count": 1}]}
    ]
    assert await delete(api, f"type=cpu&before={before}") == {"deleted": 1}
    assert (await get(api, "summary?type=cpu"))["sum"] == 2


async def test_deletion_makes_room_below_the_caps(redis_server):
    async with running_api(redis_server.url, **SETTINGS, max_types=1, max_series_per_type=1) as api:
        await post(api, labelled(1, "a"))
        for full in (labelled(1, "b"), metric(1, "mem")):
            assert (await api.post("/api/metrics", json=full)).json()["code"] == "CARDINALITY_LIMIT"
        await delete(api, "type=cpu&label=host:a")
        await post(api, labelled(1, "b"))
        await delete(api, "type=cpu")
        await post(api, metric(1, "mem"))


async def test_an_idempotency_key_stays_used_after_the_deletion(api):
    key = {"Idempotency-Key": "once"}
    body = metric(1.0)
    assert (await api.post("/api/metrics", json=body, headers=key)).status_code == 201
    await delete(api, "type=cpu")
    replayed = await api.post("/api/metrics", json=body, headers=key)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert await get(api, "list") == []


async def test_a_walk_continues_after_a_deletion_before_its_position(api):
    stamp = metric()["timestamp"]
    same = [labelled(n, "ab"[n % 2]) | {"timestamp": stamp} for n in range(6)]
    older = [labelled(10 + n, "b", ago=3600 + n) for n in range(3)]
    await post(api, *same, *older)
    answer = await api.get("/api/metrics/list?type=cpu&limit=2")
    assert [each["value"] for each in answer.json()] == [5, 4]
    await delete(api, "type=cpu&label=host:a")
    answer = await api.get(answer.links["next"]["url"])
    assert [each["value"] for each in answer.json()] == [10, 11], "places among equal timestamps have changed"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "type"),
        ("type=", "type"),
        ("type=cpu&before=yesterday", "before"),
        ("type=cpu&before=", "before"),
        ("type=cpu&label=host", "label.0"),
        ("type=cpu&lable=host:a", "lable"),
        ("type=cpu&befor=2026-01-31T12:00:00Z", "befor"),
    ],
)
async def test_a_wrong_query_deletes_nothing(api, query, field):
    await post(api, metric(1.0))
    answer = await api.delete(f"/api/metrics?{query}")
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert len(await get(api, "list")) == 1


async def test_deletion_and_retention_are_for_admins(redis_server):
    async with running_api(redis_server.url, **SETTINGS, admin_api_key="secret") as api:
        for method, path, body in (
            ("DELETE", "/api/metrics?type=cpu", None),
            ("GET", "/api/admin/retention", None),
            ("PUT", "/api/admin/retention", {"pattern": "cpu", "seconds": 60}),
            ("DELETE", "/api/admin/retention?pattern=cpu", None),
        ):
            assert (await api.request(method, path, json=body)).status_code == 401, path
            answer = await api.request(method, path, json=body, headers={"X-API-Key": "secret"})
            assert answer.status_code == 200, path


async def test_retention_rules_are_set_listed_applied_and_removed(api):
    await post(api, metric(1.0, ago=3 * 86_400), metric(2.0), metric(4.0, "mem", ago=3 * 86_400))
    assert (await api.get("/api/admin/retention")).json() == []
    assert (await get(api, "summary?type=cpu"))["count"] == 2
    for rule in ({"pattern": "mem", "seconds": 0}, {"pattern": "*", "seconds": 86_400}):
        answer = await api.put("/api/admin/retention", json=rule)
        assert (answer.status_code, answer.json()) == (200, rule)
    assert (await api.get("/api/admin/retention")).json() == [
        {"pattern": "*", "seconds": 86_400},
        {"pattern": "mem", "seconds": 0},
    ]
    assert (await get(api, "summary?type=cpu"))["sum"] == 2
    assert (await get(api, "summary?type=mem"))["sum"] == 4
    assert (await api.delete("/api/admin/retention?pattern=mem")).json() == {"deleted": 1}
    assert (await api.delete("/api/admin/retention?pattern=mem")).json() == {"deleted": 0}
    assert [each["type"] for each in await get(api, "types")] == ["cpu"]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"pattern": "cpu"}, "seconds"),
        ({"seconds": 60}, "pattern"),
        ({"pattern": "cpu", "seconds": -1}, "seconds"),
        ({"pattern": "cpu", "seconds": 1.5}, "seconds"),
        ({"pattern": "cpu", "seconds": True}, "seconds"),
        ({"pattern": "cpu", "seconds": 10**12}, "seconds"),
        ({"pattern": "c*u", "seconds": 60}, "pattern"),
        ({"pattern": "", "seconds": 60}, "pattern"),
        ({"pattern": "c" * 129, "seconds": 60}, "pattern"),
        ({"pattern": "cpu\n", "seconds": 60}, "pattern"),
    ],
)
async def test_a_wrong_rule_is_a_422_and_is_not_stored(api, rule, field):
    answer = await api.put("/api/admin/retention", json=rule)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert (await api.get("/api/admin/retention")).json() == []


async def test_one_rule_too_many_is_a_422(api):
    for n in range(MAX_RULES):
        await api.put("/api/admin/retention", json={"pattern": f"type-{n}", "seconds": 60})
    answer = await api.put("/api/admin/retention", json={"pattern": "cpu", "seconds": 60})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "pattern")


async def test_the_retention_setting_applies_without_a_rule(redis_server):
    async with running_api(redis_server.url, **SETTINGS, metric_retention_seconds=86_400) as api:
        await api.put("/api/admin/retention", json={"pattern": "kept", "seconds": 0})
        await post(api, metric(1.0, ago=3 * 86_400), metric(2.0), metric(4.0, "kept", ago=3 * 86_400))
        await api.delete("/api/admin/retention?pattern=none")  # sweeps at once
        assert (await get(api, "summary?type=cpu"))["sum"] == 2
        assert (await get(api, "summary?type=kept"))["sum"] == 4


async def test_two_workers_agree_on_rules_and_deletions(redis_server):
    async with (
        running_api(redis_server.url, **SETTINGS) as one,
        running_api(redis_server.url, **SETTINGS) as two,
    ):
        await post(
            one, *(labelled(n, "ab"[n % 2], ago=60 + n) for n in range(100)), metric(7, "old", 3 * 86_400)
        )
        assert len(await get(two, "list?type=cpu")) == 100  # it has loaded the series
        answers = await asyncio.gather(
            delete(one, "type=cpu&label=host:a"),
            delete(two, "type=cpu&label=host:a"),
            delete(two, "type=cpu&label=host:c"),
        )
        assert sum(answer["deleted"] for answer in answers) == 50
        await post(two, labelled(1, "c"))
        assert {each["labels"]["host"] for each in await get(one, "list?type=cpu")} == {"b", "c"}
        await one.put("/api/admin/retention", json={"pattern": "o*", "seconds": 86_400})
        assert (await two.get("/api/admin/retention")).json() == [{"pattern": "o*", "seconds": 86_400}]
        assert [each["type"] for each in await get(two, "types")] == ["cpu"]
