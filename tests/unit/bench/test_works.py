"""The workloads of the benchmark."""

import gzip
import sys
from pathlib import Path

import orjson

from bench.contestants import FASTAPI, OURS, STACKS, versions
from bench.peers.databases import DATABASES, INFLUXDB
from bench.points import NDJSON, BenchPoint
from bench.works import BATCH_POINTS, BATCH_TYPES, LARGE_BATCH_POINTS, SERIES, Work, works


def _work(key: str) -> Work:
    return next(work for work in works() if work.key == key)


def test_single_requests_and_plain_batches_are_compared_with_both_stacks():
    for key in ("ingest", "cached", "refused", "batch", "batch-10000"):
        assert set(STACKS) < set(_work(key).contestants)


def test_batches_as_lines_are_compared_with_the_databases():
    for key in ("batch", "batch-10000", "labelled"):
        assert set(DATABASES) < set(_work(key).contestants)


def test_a_batch_has_as_many_points_as_it_counts_for():
    for key, count in {"batch": BATCH_POINTS, "batch-10000": LARGE_BATCH_POINTS, "labelled": SERIES}.items():
        work = _work(key)
        assert work.request.content_type == NDJSON
        points = [orjson.loads(line) for line in work.request.body.splitlines()]
        assert len(points) == work.units == count
        assert len({point["type"] for point in points}) == (1 if key == "labelled" else BATCH_TYPES)


def test_every_point_of_a_labelled_batch_belongs_to_another_series():
    lines = _work("labelled").request.body.splitlines()
    assert len({orjson.loads(line)["labels"]["host"] for line in lines}) == SERIES


def test_an_array_and_a_zipped_batch_have_the_points_of_the_plain_one():
    plain = [orjson.loads(line)["value"] for line in _work("batch").request.body.splitlines()]
    zipped = _work("gzip").request
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert [orjson.loads(line)["value"] for line in gzip.decompress(zipped.body).splitlines()] == plain
    assert [point["value"] for point in orjson.loads(_work("array").request.body)] == plain


def test_a_point_is_the_same_as_json_and_as_line_protocol():
    point = BenchPoint("cpu", 1_764_500_000_123_456, 1.5, {"host": "a"})
    assert orjson.loads(point.as_json()) == {
        "timestamp": "2025-11-30T10:53:20.123456+00:00",
        "value": 1.5,
        "type": "cpu",
        "labels": {"host": "a"},
    }
    assert point.as_line() == "cpu,host=a value=1.5 1764500000123456"


def test_a_database_is_sent_lines_and_answers_without_content():
    batch = _work("batch")
    assert batch.status_of(INFLUXDB) == 204
    assert len(batch.request_to(INFLUXDB).body.splitlines()) == BATCH_POINTS


def test_only_an_application_with_a_cache_must_report_a_cache_hit():
    cached = _work("cached")
    assert cached.is_hit_at(OURS)
    assert not cached.is_hit_at(FASTAPI)


def test_a_package_that_is_not_installed_is_recognised():
    found = versions(Path(sys.executable), ("fastapi", "no-such-package"))
    assert found["fastapi"]
    assert found["no-such-package"] is None
