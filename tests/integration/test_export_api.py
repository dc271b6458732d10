"""Exports over HTTP: each stored point once, and an import of the export gives the same summaries."""

import asyncio
import gzip
import json
import random
import zlib

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.api.routes.metrics import export
from tests.support.api import CALM, PLENTY, running_api
from tests.support.examples import examples
from tests.support.server import Server

NDJSON = {"Content-Type": "application/x-ndjson"}
QUIET = {"LOG_LEVEL": "ERROR", "RATE_LIMIT_REQUESTS": "1000000", "RATE_LIMIT_READ_REQUESTS": "1000000"}


def point(value, second=0, metric="cpu", **labels):
    timestamp = f"2026-01-31T12:{second // 60:02}:{second % 60:02}Z"
    return {"timestamp": timestamp, "value": value, "type": metric} | ({"labels": labels} if labels else {})


async def post(api, points):
    body = "".join(json.dumps(each) + "\n" for each in points)
    answer = await api.post("/api/metrics/batch", content=body, headers=NDJSON)
    assert answer.status_code == 201, answer.text


async def exported(api, query="type=cpu"):
    answer = await api.get(f"/api/metrics/export?{query}")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_an_export_has_each_point_as_it_is_posted(api):
    points = [point(1.5), point(-0.0, 1, host="a"), point(1e300, 1), point(5e-324, 2, host="ü ' \" \\")]
    await post(api, [*reversed(points[1:3]), points[3], points[0], point(9, metric="mem")])

    answer = await api.get("/api/metrics/export?type=cpu", headers={"Accept-Encoding": "identity"})

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert "content-encoding" not in answer.headers
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        points[0], points[2], points[1], points[3],
    ]  # fmt: skip


async def test_time_and_labels_choose_what_is_exported(api):
    points = [point(n, n, host="ab"[n % 2], disk="xyz"[n % 3]) for n in range(12)]
    await post(api, points)

    assert await exported(api, "type=cpu&from=2026-01-31T12:00:03Z&to=2026-01-31T12:00:05Z") == points[3:5]
    assert await exported(api, "type=cpu&label=host:a&label=disk:x&label=disk:y") == [
        each for each in points if each["labels"]["host"] == "a" and each["labels"]["disk"] in "xy"
    ]


@pytest.mark.parametrize("lines", [0, 1, 2_500])
async def test_a_client_that_accepts_gzip_receives_gzip(api, lines):
    await post(api, [point(9, metric="mem"), *(point(n, n // 2) for n in range(lines))])

    plain = await api.get("/api/metrics/export?type=cpu", headers={"Accept-Encoding": "identity"})
    async with api.stream(
        "GET", "/api/metrics/export?type=cpu", headers={"Accept-Encoding": "gzip"}
    ) as answer:
        sent = b"".join([chunk async for chunk in answer.aiter_raw()])

    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(sent) == plain.content
    assert plain.text.count("\n") == lines


async def test_of_an_unknown_type_the_export_is_empty(api):
    answer = await api.get("/api/metrics/export?type=unknown", headers={"Accept-Encoding": "identity"})

    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "type"),
        ("type=%20", "type"),
        ("type=cpu&from=yesterday", "from"),
        ("type=cpu&to=1", "to"),
        ("type=cpu&label=host", "label.0"),
        ("type=cpu&limit=3", "limit"),
        ("type=cpu&from=2026-01-31T12:00:00Z&to=2026-01-31T12:00:00Z", "from"),
    ],
)
async def test_a_wrong_query_is_a_422_that_names_the_parameter(api, query, field):
    answer = await api.get(f"/api/metrics/export?{query}")

    assert answer.status_code == 422
    assert answer.json()["code"] == "VALIDATION_ERROR"
    assert answer.json()["errors"][0]["field"] == field


async def test_a_head_has_the_headers_of_the_get_and_no_body(api):
    await post(api, [point(n, n % 60) for n in range(3_000)])

    head, get = [await api.request(method, "/api/metrics/export?type=cpu") for method in ("HEAD", "GET")]

    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-encoding", "vary", "ratelimit-policy"):
        assert head.headers[name] == get.headers[name]


async def test_an_export_counts_as_one_read_whatever_its_size_and_its_query(redis_server):
    async with running_api(redis_server.url, **CALM, rate_limit_read_requests=3) as api:
        await post(api, [point(n, n % 60) for n in range(7_000)])
        answers = [
            await api.get(f"/api/metrics/export?{query}")
            for query in ("type=cpu", "type=cpu", "", "type=cpu")
        ]

    assert [answer.status_code for answer in answers] == [200, 200, 422, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]


async def test_the_event_loop_has_a_turn_for_each_five_hundred_points(api, monkeypatch):
    sizes = []
    rendered = export._rendered
    monkeypatch.setattr(
        export, "_rendered", lambda kind, page: sizes.append(len(page.values)) or rendered(kind, page)
    )
    await post(api, [point(n, n % 3_600) for n in range(9_000)])

    assert len(await exported(api)) == 9_000
    assert max(sizes) <= 500


async def test_what_is_acknowledged_before_is_exported_exactly_once_while_others_write(api):
    before = [point(n, random.randrange(3_600), host=f"h{n % 5}") for n in range(8_000)]
    await post(api, before)
    is_done = False

    async def write(number):
        while not is_done:
            await post(api, [point(-1, random.randrange(3_600), host=f"h{number}") for _ in range(50)])

    writers = [asyncio.create_task(write(number)) for number in range(3)]
    try:
        for _ in range(3):
            found = await exported(api)
            times = [each["timestamp"] for each in found]
            assert times == sorted(times)
            assert sorted(each["value"] for each in found if each["value"] != -1) == list(range(8_000))
    finally:
        is_done = True
        await asyncio.gather(*writers)


async def test_an_unavailable_redis_is_a_503_and_not_an_empty_export(own_redis):
    async with running_api(own_redis.url, **PLENTY, **CALM) as api:
        own_redis.kill()
        answer = await api.get("/api/metrics/export?type=cpu")

    assert answer.status_code == 503
    assert answer.json()["code"] == "REDIS_UNAVAILABLE"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_an_export_that_fails_midway_does_not_end_as_if_it_were_complete(own_redis, tmp_path, encoding):
    server = Server(own_redis.url, tmp_path, workers=1, **QUIET)
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            await server.until_healthy(client)
            for batch in range(20):  # more than the buffers between the two hold
                values = [random.random() for _ in range(10_000)]
                await post(client, [point(value, batch * 60 + n % 60) for n, value in enumerate(values)])
            headers = {"Accept-Encoding": encoding}
            async with client.stream("GET", "/api/metrics/export?type=cpu", headers=headers) as answer:
                chunks = answer.aiter_raw(1_000)
                await anext(chunks)
                own_redis.kill()
                with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                    async for _ in chunks:
                        pass
            assert (await client.get("/health")).status_code == 503  # the worker still serves requests
        (cut_off,) = server.lines("answer_cut_off")
        assert (cut_off["path"], cut_off["code"]) == ("/api/metrics/export", "REDIS_UNAVAILABLE")
        assert not server.lines("unexpected_error")
    finally:
        server.stop()


# ---------------------------------------------------------------- round trips

SECONDS = st.one_of(st.integers(0, 3), st.integers(0, 3_599))
FINITE = st.floats(allow_nan=False, allow_infinity=False)
POINTS = st.builds(
    lambda value, second, metric, labels: point(value, second, metric, **labels),
    st.one_of(
        st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    SECONDS,
    st.sampled_from(["cpu", "mem/used"]),
    st.sampled_from([{}, {"host": "a"}, {"host": "b"}, {"host": "b", "disk": "x"}]),
)


async def everything(api):
    """Return all answers about both types."""
    seen = []
    for metric in ("cpu", "mem/used"):
        for path in (
            f"summary?type={metric}",
            f"summary?type={metric}&group_by=host",
            f"series?type={metric}&from=2026-01-31T12:00:00Z&to=2026-01-31T13:00:00Z&step=300",
            f"list?type={metric}&limit=1000",
            f"labels?type={metric}",
        ):
            answer = (await api.get(f"/api/metrics/{path}", headers={"Cache-Control": "no-cache"})).json()
            if isinstance(answer, dict):
                answer.pop("generated_at", None)
            seen.append(answer)
    return [*seen, (await api.get("/api/metrics/types")).json()]


@settings(
    max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(POINTS, min_size=1, max_size=40), min_size=1, max_size=4), st.booleans())
async def test_an_export_posted_to_an_empty_service_causes_the_same_answers(
    api, redis_server, batches, is_dense
):
    with redis_server.connect() as redis:
        redis.flushall()
    if is_dense:  # so that the points are stored by minute
        await post(api, [point(n, n % 60) for n in range(1_024)])
    for batch in batches:
        await post(api, batch)
    before = await everything(api)
    exports = [(await api.get(f"/api/metrics/export?type={name}")).content for name in ("cpu", "mem/used")]

    with redis_server.connect() as redis:
        redis.flushall()
    for body in exports:
        if body:
            answer = await api.post("/api/metrics/batch", content=body, headers=NDJSON)
            assert answer.status_code == 201, answer.text

    assert await everything(api) == before
    assert zlib.crc32(exports[0]) == zlib.crc32((await api.get("/api/metrics/export?type=cpu")).content)
