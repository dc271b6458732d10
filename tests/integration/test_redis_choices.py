"""The Redis of the service: one in the settings, an embedded one, or a store in the process."""

import json
import subprocess
import sys

import pytest

from src.wiring import redis_link
from tests.support.api import CALM, PLENTY, metric, running_api
from tests.support.server import environment


async def test_without_a_redis_server_an_in_process_store_serves_with_a_warning(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(redis_link, "find_redis_server", lambda: None)
    async with running_api("embedded://", log_level="WARNING", **PLENTY, **CALM) as api:
        assert (await api.post("/api/metrics", json=metric())).status_code == 201
        assert (await api.get("/api/metrics/summary?type=cpu")).json()["count"] == 1
        assert (await api.get("/health")).status_code == 200
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["redis_in_process"]
    assert "not kept" in lines[0]["detail"]


async def test_the_stand_in_serves_one_worker_only(monkeypatch):
    monkeypatch.setattr(redis_link, "find_redis_server", lambda: None)
    monkeypatch.setattr(redis_link.multiprocessing, "parent_process", object)
    with pytest.raises(SystemExit, match="only one worker"):
        async with running_api("embedded://"):
            pass


async def test_a_private_redis_keeps_its_data(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    async with running_api("embedded://", **PLENTY, **CALM) as api:
        assert (await api.post("/api/metrics", json=metric())).status_code == 201
    async with running_api("embedded://", **PLENTY, **CALM) as api:
        assert (await api.get("/api/metrics/summary?type=cpu")).json()["count"] == 1


async def test_a_redis_that_may_evict_is_warned_of(own_redis, capsys):
    with own_redis.connect() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    async with running_api(own_redis.url, log_level="WARNING", **CALM):
        pass
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["maxmemory_policy"]) for line in lines] == [
        ("redis_may_evict", "allkeys-lru")
    ]


def test_an_address_that_cannot_work_ends_the_start_with_one_line():
    command = [sys.executable, "-m", "uvicorn", "src.main:app"]
    settings = environment(REDIS_URL="redis://:hunter2@h/0?ssl_cert_reqs=none")
    ended = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode != 0
    assert ended.stderr.strip() == (
        "Invalid setting REDIS_URL: Value error, must be rediss:// to take the option ssl_cert_reqs"
    )
