"""Deletion by a real worker that is killed in the middle."""

import asyncio
import json
import os
import re
import signal
from datetime import UTC, datetime, timedelta

import httpx
import pytest

pytestmark = pytest.mark.slow

HOURS = 60
POINTS_PER_HOUR = 1_500
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SETTINGS = {
    "RATE_LIMIT_REQUESTS": "100000",
    "RATE_LIMIT_READ_REQUESTS": "100000",
    "CACHE_TTL_SECONDS": "1",
    "METRIC_RETENTION_SECONDS": "0",
}


def lines_of(hour: int) -> bytes:
    """Return the points of an hour, of two hosts by turns. Not all of them are in its head."""
    lines = []
    for n in range(POINTS_PER_HOUR):
        timestamp = NOON - timedelta(hours=hour) + timedelta(seconds=n % 120, microseconds=n)
        labels = {"host": "ab"[n % 2]}
        lines.append({"timestamp": timestamp.isoformat(), "value": n, "type": "cpu", "labels": labels})
    return "\n".join(map(json.dumps, lines)).encode()


async def counts(client: httpx.AsyncClient) -> dict[str, int]:
    """Return how many points there are, by each read."""

    async def get(path: str):
        answer = await client.get(f"/api/metrics/{path}", headers={"Cache-Control": "no-cache"})
        assert answer.status_code == 200, answer.text
        return answer

    by_host = (await get("summary?type=cpu&group_by=host")).json()["groups"]
    labels = (await get("labels?type=cpu")).json()
    span = "from=2026-01-29T00:00:00Z&to=2026-02-01T00:00:00Z"
    steps = (await get(f"series?type=cpu&{span}&step=3600")).json()
    grouped = (await get(f"series?type=cpu&{span}&step=3600&group_by=host")).json()
    listed, link = 0, "list?type=cpu&limit=1000"
    while link:
        page = await get(link)
        listed += len(page.json())
        found = re.search(r"<[^>]*?(list\?[^>]*)>", page.headers.get("link", ""))
        link = found[1] if found else None
    return {
        "summary": (await get("summary?type=cpu")).json()["count"],
        "groups": sum(group["count"] for group in by_host),
        "labels": sum(value["count"] for each in labels for value in each["values"]),
        "types": sum(each["count"] for each in (await get("types")).json()),
        "series": sum(step["count"] for step in steps),
        "grouped series": sum(step["count"] for g in grouped["groups"] for step in g["steps"]),
        "list": listed,
        "export": (await get("export?type=cpu")).content.count(b"\n"),
    }


@pytest.mark.parametrize("stage", ["points put aside", "some hours committed"])
async def test_a_deletion_whose_worker_is_killed_is_finished_by_the_next(redis_server, start_server, stage):
    first = start_server(workers=1, command=("src",), **SETTINGS)
    with redis_server.connect() as redis:
        async with httpx.AsyncClient(base_url=first.url, timeout=60) as client:
            await first.until_healthy(client)
            for hour in range(HOURS):
                answer = await client.post(
                    "/api/metrics/batch",
                    content=lines_of(hour),
                    headers={"Content-Type": "application/x-ndjson"},
                )
                assert answer.status_code == 201, answer.text
            generation = redis.hget("m:{cpu}:d", "generation")
            deleting = asyncio.create_task(client.delete("/api/metrics?type=cpu&label=host:a"))

            def is_reached() -> bool:
                if stage == "points put aside":
                    return bool(redis.exists("m:{cpu}:w:-1", "m:{cpu}:w:0", "m:{cpu}:w:1"))
                return redis.hget("m:{cpu}:d", "generation") != generation

            while not is_reached():
                assert not deleting.done(), "the deletion was over before the worker could be killed"
                await asyncio.sleep(0)
            os.killpg(first.process.pid, signal.SIGKILL)
            first.process.wait()
            assert isinstance(
                (await asyncio.gather(deleting, return_exceptions=True))[0], httpx.TransportError
            )

        second = start_server(workers=1, command=("src",), **SETTINGS)
        async with httpx.AsyncClient(base_url=second.url, timeout=60) as client:
            await second.until_healthy(client)
            found = await counts(client)
            (left,) = set(found.values())
            assert HOURS * POINTS_PER_HOUR // 2 < left <= HOURS * POINTS_PER_HOUR, found
            assert all(redis.ttl(key) > 0 for key in redis.keys("m:{cpu}:[wx]*"))

            redis.delete("m:{cpu}:x")  # as the expiry of the killed worker's lease does
            answer = await client.delete("/api/metrics?type=cpu&label=host:a")
            kept = HOURS * POINTS_PER_HOUR // 2
            assert answer.json() == {"deleted": left - kept}
            assert set((await counts(client)).values()) == {kept}

            assert (await client.delete("/api/metrics?type=cpu")).json() == {"deleted": kept}
            assert redis.keys("m:{cpu}:*") == []
            assert redis.zcard("types") == 0
