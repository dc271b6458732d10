"""The breaker around the external service: its status, manual control, and effects."""

import pytest

from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, PLENTY, metric, running_api

FRESH = {"Cache-Control": "no-cache"}
RATE = "/api/admin/external-service/failure-rate"


@pytest.fixture
async def api(redis_server):
    quick = {"external_service_attempts": 1, "circuit_breaker_reset_timeout": 0.2}
    async with running_api(redis_server.url, **quick, **PLENTY, **CALM) as client:
        yield client


async def state(api):
    return (await api.get("/api/circuit-breaker/status")).json()


async def test_a_new_breaker_is_closed_and_every_member_is_shown(api):
    status = await state(api)
    assert status == {
        "state": "CLOSED", "failure_count": 0, "success_count": 0, "failure_rate": 0.0,
        "name": "external-service", "opened_at": None, "retry_after": None, "transitions": [],
    }  # fmt: skip


async def test_failures_open_it_and_a_good_probe_closes_it(api):
    await api.put(RATE, json={"failure_rate": 1.0})
    for n in range(5):
        answer = await api.get(f"/api/metrics/summary?type=t{n}")
        assert_problem(answer, 503, "EXTERNAL_SERVICE_UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1
    answer = await api.get("/api/metrics/summary?type=t9")
    assert_problem(answer, 503, "CIRCUIT_OPEN")
    assert int(answer.headers["retry-after"]) >= 1
    status = await state(api)
    assert status["state"] == "OPEN"
    assert status["failure_count"] == 5
    assert status["failure_rate"] == 1.0
    assert status["opened_at"].endswith("Z")
    await api.put(RATE, json={"failure_rate": 0.0})
    while (await state(api))["state"] != "HALF_OPEN":
        pass
    assert (await api.get("/api/metrics/summary?type=t1")).status_code == 200
    status = await state(api)
    assert (status["state"], status["failure_count"]) == ("CLOSED", 0)
    assert [item["after"] for item in status["transitions"]] == ["OPEN", "HALF_OPEN", "CLOSED"]


async def test_while_the_service_fails_the_last_good_summary_is_served(api):
    await api.post("/api/metrics", json=metric(1))
    good = await api.get("/api/metrics/summary?type=cpu")
    await api.put(RATE, json={"failure_rate": 1.0})
    await api.post("/api/metrics", json=metric(2))
    stale = await api.get("/api/metrics/summary?type=cpu", headers=FRESH)
    assert stale.status_code == 200
    assert stale.headers["x-cache"] == "STALE"
    assert stale.json() == good.json() | {"degraded": True}
    assert stale.headers["cache-control"] == "no-store"


async def test_an_admin_can_open_and_close_the_breaker(api):
    opened = await api.post("/api/admin/circuit-breaker/open")
    assert opened.json()["state"] == "OPEN"
    assert_problem(await api.get("/api/metrics/summary?type=a"), 503, "CIRCUIT_OPEN")
    closed = await api.post("/api/admin/circuit-breaker/close")
    assert closed.json()["state"] == "CLOSED"
    assert (await api.get("/api/metrics/summary?type=a")).status_code == 200


async def test_unknown_types_are_no_failure(api):
    for n in range(6):
        assert (await api.get(f"/api/metrics/summary?type=unknown{n}")).json()["reference"] is None
    assert (await state(api))["failure_count"] == 0


async def test_the_failure_rate_is_stored_and_validated(api):
    assert (await api.get(RATE)).json() == {"failure_rate": 0.0}
    assert (await api.put(RATE, json={"failure_rate": 0.25})).json() == {"failure_rate": 0.25}
    assert (await api.get(RATE)).json() == {"failure_rate": 0.25}
    for wrong in (1.1, -0.1, "1", None, True):
        problem = assert_problem(await api.put(RATE, json={"failure_rate": wrong}), 422, "VALIDATION_ERROR")
        assert problem["errors"][0]["field"] == "failure_rate"
    assert (await api.get(RATE)).json() == {"failure_rate": 0.25}


class TestAdminRule:
    CALLS = (
        ("PUT", RATE, {"failure_rate": 0.0}),
        ("POST", "/api/admin/circuit-breaker/open", None),
        ("POST", "/api/admin/circuit-breaker/close", None),
    )

    async def test_with_a_key_set_the_key_is_required(self, redis_server):
        async with running_api(redis_server.url, admin_api_key="secret", **CALM) as api:
            for method, path, body in self.CALLS:
                for headers in ({}, {"X-API-Key": "wrong"}):
                    answer = await api.request(method, path, json=body, headers=headers)
                    assert_problem(answer, 401, "UNAUTHORIZED")
                answer = await api.request(method, path, json=body, headers={"X-API-Key": "secret"})
                assert answer.status_code == 200

    async def test_without_a_key_set_the_routes_are_closed_to_remote_clients(self, redis_server):
        async with running_api(redis_server.url, peer="203.0.113.9", **CALM) as api:
            for method, path, body in self.CALLS:
                problem = assert_problem(await api.request(method, path, json=body), 403, "FORBIDDEN")
                assert "ADMIN_API_KEY" in problem["message"]
