"""The simulated service's faults, set through the API."""

import pytest

from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, running_api

FAULTS = "/api/admin/external-service/faults"


async def test_faults_are_shown_and_changed_one_by_one(api):
    assert (await api.get(FAULTS)).json() == {"failure_rate": 0.0, "latency_ms": 0}
    assert (await api.put(FAULTS, json={"latency_ms": 40})).json() == {"failure_rate": 0.0, "latency_ms": 40}
    assert (await api.put(FAULTS, json={"failure_rate": 0.5})).json() == {
        "failure_rate": 0.5,
        "latency_ms": 40,
    }
    assert (await api.put(FAULTS, json={})).json() == {"failure_rate": 0.5, "latency_ms": 40}
    assert (await api.get("/api/admin/external-service/failure-rate")).json() == {"failure_rate": 0.5}


async def test_every_worker_applies_a_change_of_the_faults(api, redis_server):
    await api.put(FAULTS, json={"latency_ms": 40})
    async with running_api(redis_server.url, **CALM) as other:
        assert (await other.get(FAULTS)).json() == {"failure_rate": 0.0, "latency_ms": 40}


async def test_a_slow_service_is_slow(api):
    await api.put(FAULTS, json={"latency_ms": 40})
    report = (await api.get("/invoke?count=1")).json()
    assert report["calls"][0]["duration_ms"] >= 40


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_ms": 60_001}, "latency_ms"),
        ({"latency_ms": 1.5}, "latency_ms"),
        ({"latency_ms": None}, "latency_ms"),
        ({"failure_rate": 1.1}, "failure_rate"),
        ({"failure_rate": "1"}, "failure_rate"),
        ({"latency": 40}, "latency"),
        ([], "body"),
    ],
)
async def test_an_error_names_the_invalid_fault(api, wrong, field):
    problem = assert_problem(await api.put(FAULTS, json=wrong), 422, "VALIDATION_ERROR")
    assert [error["field"] for error in problem["errors"]] == [field]
    assert (await api.get(FAULTS)).json() == {"failure_rate": 0.0, "latency_ms": 0}


async def test_only_admins_can_change_faults(redis_server):
    async with running_api(redis_server.url, admin_api_key="key") as api:
        assert_problem(await api.put(FAULTS, json={"latency_ms": 40}), 401, "UNAUTHORIZED")
        assert (await api.get(FAULTS)).status_code == 200
