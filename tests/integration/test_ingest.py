"""The ingest of measurements over HTTP."""

import asyncio
import gzip
import json
import tracemalloc
from typing import ClassVar

import pytest

from tests.support.api import metric

GOOD = {"timestamp": "2026-01-31T12:00:00Z", "value": 42.5, "type": "cpu"}


async def count(api, kind="cpu"):
    summary = await api.get(f"/api/metrics/summary?type={kind}", headers={"Cache-Control": "no-cache"})
    return summary.json()["count"]


def assert_problem(answer, status, code):
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["detail"] == problem["message"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "timestamp"} <= problem.keys()
    return problem


async def test_a_measurement_is_stored_and_seen_by_the_next_read(api):
    answer = await api.post("/api/metrics", json=GOOD)
    assert answer.status_code == 201
    assert answer.json() == {"message": "Metric received", "timestamp": GOOD["timestamp"], "type": "cpu"}
    assert await count(api) == 1


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
        ("2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00.000001Z", "2026-01-31T12:00:00.000001Z"),
        ("2026-01-31T12:00:00.5Z", "2026-01-31T12:00:00.500000Z"),
    ],
)
async def test_timestamps_are_returned_in_utc_with_microseconds(api, sent, answered):
    answer = await api.post("/api/metrics", json={**GOOD, "timestamp": sent})
    assert answer.json()["timestamp"] == answered
    listed = await api.get("/api/metrics/list?type=cpu")
    assert listed.json()[0]["timestamp"] == answered


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (json.dumps({**GOOD, "value": "42"}), "value"),
        (json.dumps({**GOOD, "value": True}), "value"),
        (json.dumps(GOOD).replace("42.5", "NaN"), "value"),
        (json.dumps(GOOD).replace("42.5", "-Infinity"), "value"),
        (json.dumps(GOOD).replace("42.5", "1e999"), "value"),
        (json.dumps({**GOOD, "timestamp": 1769860800}), "timestamp"),
        (json.dumps({**GOOD, "timestamp": "2026-02-30T00:00:00Z"}), "timestamp"),
        (json.dumps({**GOOD, "type": "a b"}), "type"),
        (json.dumps({**GOOD, "type": ""}), "type"),
        ("{}", "timestamp"),
        ("[]", "body"),
        ("null", "body"),
    ],
)
async def test_an_invalid_measurement_is_reported_and_not_stored(api, body, field):
    answer = await api.post("/api/metrics", content=body, headers={"Content-Type": "application/json"})
    problem = assert_problem(answer, 422, "VALIDATION_ERROR")
    assert problem["errors"][0]["field"] == field
    assert (await api.get("/api/metrics/types")).json() == []


@pytest.mark.parametrize("wrong", [metric(ago=-(10**6)), {}, {"timestamp": "yesterday"}])
async def test_a_wrong_measurement_counts_against_the_quota(api, wrong):
    """In the past, a timestamp too far ahead of the clock did not count against the quota."""
    answers = [await api.post("/api/metrics", json=wrong) for _ in range(2)]
    for answer in answers:
        assert_problem(answer, 422, "VALIDATION_ERROR")
    left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers]
    assert left[0] - left[1] == 1


@pytest.mark.parametrize("body", ["", "{", "{'a': 1}", '{"value": 1,}', "\ufeff{}"])
async def test_unreadable_json_is_a_bad_request(api, body):
    answer = await api.post("/api/metrics", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 400, "BAD_REQUEST")


async def test_other_media_types_and_encodings_are_rejected(api):
    form = await api.post("/api/metrics", data={"value": "1"})
    assert_problem(form, 415, "UNSUPPORTED_MEDIA_TYPE")
    brotli = await api.post("/api/metrics", json=GOOD, headers={"Content-Encoding": "br"})
    assert_problem(brotli, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "body", [json.dumps({**GOOD, "note": "x" * 65_536}).encode(), b"[" + b"[]," * 1_700_000 + b"[]]"]
)
async def test_one_measurement_may_not_be_as_large_as_a_batch(api, body):
    """In the past, five megabytes were parsed for one point."""
    answer = await api.post("/api/metrics", content=body, headers={"Content-Type": "application/json"})
    problem = assert_problem(answer, 413, "PAYLOAD_TOO_LARGE")
    assert "65536" in problem["message"]


async def test_members_that_are_not_known_are_ignored_and_of_equal_ones_the_last_counts(api):
    text = json.dumps({**GOOD, "tags": {"host": ["a"]}}).replace("{", '{"value": 7, ', 1)
    answer = await api.post("/api/metrics", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    assert (await api.get("/api/metrics/list")).json()[0]["value"] == 42.5


async def test_a_body_that_is_too_large_is_rejected(api):
    answer = await api.post(
        "/api/metrics", content=b" " * 5_300_000, headers={"Content-Type": "application/json"}
    )
    assert_problem(answer, 413, "PAYLOAD_TOO_LARGE")


class TestBatch:
    @pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
    async def test_a_valid_measurement_has_the_same_limit_in_each_form(self, api, kind):
        """In the past, an array of valid measurements could contain one of any size."""

        def sized(size):
            text = json.dumps(GOOD)
            return "{" + " " * (size - len(text)) + text[1:]

        texts = [sized(65_536), sized(65_537), *[json.dumps(GOOD)] * 1000]
        body = "[" + ",".join(texts) + "]" if kind == "application/json" else "\n".join(texts)
        answer = await api.post("/api/metrics/batch", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 207
        assert answer.json() == {
            "accepted": 1001,
            "rejected": 1,
            "errors": [{"index": 1, "field": "body", "message": "a point may be at most 65536 bytes"}],
        }

    async def test_all_valid_points_are_a_201(self, api):
        answer = await api.post("/api/metrics/batch", json=[GOOD, {**GOOD, "type": "mem"}])
        assert answer.status_code == 201
        assert answer.json() == {"accepted": 2, "rejected": 0, "errors": []}
        assert (await count(api, "cpu"), await count(api, "mem")) == (1, 1)

    async def test_some_valid_points_are_a_207_and_are_stored(self, api):
        answer = await api.post("/api/metrics/batch", json=[GOOD, {**GOOD, "value": "x"}, GOOD])
        assert answer.status_code == 207
        received = answer.json()
        assert (received["accepted"], received["rejected"]) == (2, 1)
        assert received["errors"][0]["index"] == 1
        assert received["errors"][0]["field"] == "value"
        assert await count(api) == 2

    @pytest.mark.parametrize("batch", [[], [{}], [{**GOOD, "value": None}]])
    async def test_no_valid_point_is_a_422(self, api, batch):
        answer = await api.post("/api/metrics/batch", json=batch)
        problem = assert_problem(answer, 422, "VALIDATION_ERROR")
        assert (problem["accepted"], problem["rejected"]) == (0, len(batch))

    async def test_bodies_that_wait_to_be_read_are_not_inflated_yet(self, api):
        """In the past, all waiting requests inflated their bodies at once."""
        lines = (json.dumps(GOOD).encode() + b"\n") * 300  # these take several cycles of the event loop
        packed = gzip.compress(lines.ljust(5 * 1024 * 1024, b"\n"))
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}

        async def post():
            return await api.post("/api/metrics/batch", content=packed, headers=headers)

        tracemalloc.start()
        try:
            answers = await asyncio.gather(*(post() for _ in range(8)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert {answer.status_code for answer in answers} == {201}
        assert peak < 25_000_000

    @pytest.mark.parametrize("encode", [lambda body: body, gzip.compress])
    async def test_ndjson_and_gzip(self, api, encode):
        body = "\n".join(json.dumps({**GOOD, "value": n}) for n in range(1000)).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        if encode is gzip.compress:
            headers["Content-Encoding"] = "gzip"
        answer = await api.post("/api/metrics/batch", content=encode(body), headers=headers)
        assert answer.json() == {"accepted": 1000, "rejected": 0, "errors": []}
        assert await count(api) == 1000

    async def test_at_most_ten_thousand_points_are_accepted(self, api):
        lines = (json.dumps(GOOD) + "\n").encode()
        headers = {"Content-Type": "application/x-ndjson"}
        most = await api.post("/api/metrics/batch", content=lines * 10_000, headers=headers)
        assert most.status_code == 201
        more = await api.post("/api/metrics/batch", content=lines * 10_001, headers=headers)
        assert_problem(more, 413, "PAYLOAD_TOO_LARGE")
        assert await count(api) == 10_000

    async def test_five_megabytes_of_zeros_are_rejected(self, api):
        """In the past, such a body was parsed at once, which needed 327 MB and blocked for 0.8 s."""
        body = b"[" + b"[]," * 1_700_000 + b"[]]"
        answer = await api.post(
            "/api/metrics/batch", content=body, headers={"Content-Type": "application/json"}
        )
        assert_problem(answer, 413, "PAYLOAD_TOO_LARGE")

    @pytest.mark.parametrize("member", [r'"\ud800"', "9" * 5_000])
    @pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
    async def test_json_that_the_parser_rejects_is_an_error_of_its_point(self, api, kind, member):
        """In the past, such an element of an array made the whole body a 400."""
        good, wrong = json.dumps(metric()), json.dumps(metric() | {"value": "?"}).replace('"?"', member)
        lines = [good, wrong, good]
        body = f"[{','.join(lines)}]" if kind == "application/json" else "\n".join(lines)
        answer = await api.post("/api/metrics/batch", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 207
        assert (answer.json()["accepted"], answer.json()["rejected"]) == (2, 1)
        assert [error["index"] for error in answer.json()["errors"]] == [1]

    async def test_a_body_that_is_not_an_object_is_an_error(self, api):
        answer = await api.post("/api/metrics/batch", json=[GOOD, []])
        assert answer.json()["errors"] == [{"index": 1, "field": "body", "message": "must be a JSON object"}]

    async def test_a_batch_with_ten_thousand_types_is_stored(self, api):
        lines = "\n".join(json.dumps({**GOOD, "type": f"t{n}"}) for n in range(10_000))
        headers = {"Content-Type": "application/x-ndjson"}
        answer = await api.post("/api/metrics/batch", content=lines, headers=headers)
        assert answer.status_code == 201
        assert (await api.get("/health")).status_code == 200


class TestIdempotency:
    KEY: ClassVar = {"Idempotency-Key": "order-66"}

    async def test_the_same_request_again_gets_the_same_answer_and_stores_nothing(self, api):
        first = await api.post("/api/metrics", json=GOOD, headers=self.KEY)
        again = await api.post("/api/metrics", json=GOOD, headers=self.KEY)
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert await count(api) == 1

    async def test_another_body_under_the_same_key_is_rejected(self, api):
        await api.post("/api/metrics", json=GOOD, headers=self.KEY)
        other = await api.post("/api/metrics", json={**GOOD, "type": "mem"}, headers=self.KEY)
        assert_problem(other, 422, "IDEMPOTENCY_KEY_REUSED")
        assert await count(api, "mem") == 0

    async def test_an_idempotency_key_is_valid_for_one_endpoint(self, api):
        await api.post("/api/metrics", json=GOOD, headers=self.KEY)
        assert_problem(
            await api.post("/api/metrics/batch", json=[GOOD], headers=self.KEY), 422, "IDEMPOTENCY_KEY_REUSED"
        )

    async def test_batches_can_be_repeated_too(self, api):
        batch = [GOOD, {}]
        first = await api.post("/api/metrics/batch", json=batch, headers=self.KEY)
        again = await api.post("/api/metrics/batch", json=batch, headers=self.KEY)
        assert (again.status_code, again.content) == (207, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        assert await count(api) == 1

    async def test_concurrent_requests_with_one_key_store_once(self, api):
        posts = [api.post("/api/metrics", json=GOOD, headers=self.KEY) for _ in range(20)]
        answers = await asyncio.gather(*posts)
        assert {answer.status_code for answer in answers} == {201}
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 19
        assert await count(api) == 1

    @pytest.mark.parametrize("key", ["", "a b", "x" * 256, "caf\u00e9".encode("latin-1")])
    async def test_a_malformed_key_is_rejected(self, api, key):
        answer = await api.post("/api/metrics", json=GOOD, headers={"Idempotency-Key": key})
        problem = assert_problem(answer, 422, "VALIDATION_ERROR")
        assert problem["errors"][0]["field"] == "Idempotency-Key"
        assert await count(api) == 0


async def test_ingest_takes_one_round_trip_and_with_a_key_two(api):
    await api.post("/api/metrics", json=metric())
    await api.post("/api/metrics", json=metric(), headers={"Idempotency-Key": "a"})
    link = api.state["is_redis_connected"].__self__
    before = link.round_trips
    await api.post("/api/metrics", json=metric())
    assert link.round_trips - before == 1
    await api.post("/api/metrics", json=metric(), headers={"Idempotency-Key": "b"})
    assert link.round_trips - before == 3


async def test_a_body_in_several_pieces_is_stored(api):
    async def pieces():
        for byte in json.dumps(metric()):
            yield byte.encode()
            await asyncio.sleep(0)

    answer = await api.post("/api/metrics", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    assert await count(api) == 1
