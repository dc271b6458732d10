"""Reading batches."""

import json

import pytest

from src.analytics.points import Point
from src.api.batch import MAX_ERRORS, read_json_array, read_ndjson
from src.api.errors import ProblemError

GOOD = {"timestamp": "2026-01-31T12:00:00Z", "value": 1.5, "type": "cpu"}
POINT = Point("cpu", 1_769_860_800_000_000, 1.5)


def status_of(read, body, limit=10):
    with pytest.raises(ProblemError) as caught:
        read(body, limit)
    return caught.value.problem.status


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (read_json_array, json.dumps([GOOD, GOOD]).encode()),
        (read_ndjson, (json.dumps(GOOD) + "\n\n \r\n" + json.dumps(GOOD) + "\n").encode()),
    ],
)
def test_good_points_are_read(read, body):
    batch = read(body, 2)
    assert batch.points == [POINT, POINT]
    assert (batch.rejected, batch.errors) == (0, [])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({**GOOD, "value": "1"}, "value"),
        ({**GOOD, "value": True}, "value"),
        ({**GOOD, "value": None}, "value"),
        ({**GOOD, "timestamp": 1769860800}, "timestamp"),
        ({**GOOD, "timestamp": "yesterday"}, "timestamp"),
        ({**GOOD, "type": "-cpu"}, "type"),
        ({**GOOD, "type": "c" * 129}, "type"),
        ({**GOOD, "type": "cpu\n"}, "type"),
        ({"value": 1, "type": "cpu"}, "timestamp"),
        ([], "body"),
        (None, "body"),
    ],
)
@pytest.mark.parametrize("read", [read_json_array, read_ndjson])
def test_what_is_wrong_is_told_by_index_and_field(read, wrong, field):
    items = [GOOD, wrong, GOOD]
    lines = "\n".join(json.dumps(item) for item in items)
    batch = read((json.dumps(items) if read is read_json_array else lines).encode(), 10)
    assert batch.points == [POINT, POINT]
    assert batch.rejected == 1
    assert [(error["index"], error["field"]) for error in batch.errors] == [(1, field)]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize("read", [read_json_array, read_ndjson])
def test_numbers_that_are_none_are_refused(read, number):
    text = json.dumps(GOOD).replace("1.5", number)
    batch = read((f"[{text}]" if read is read_json_array else text).encode(), 10)
    assert (batch.points, batch.rejected) == ([], 1)
    assert batch.errors[0]["field"] == "value"


def test_a_line_that_is_not_json_spoils_only_itself():
    batch = read_ndjson(b'{"oops\n' + json.dumps(GOOD).encode(), 10)
    assert batch.points == [POINT]
    assert batch.errors[0]["index"] == 0


def test_only_the_first_errors_are_told_of():
    batch = read_ndjson(b"{}\n" * 1000, 1000)
    assert batch.rejected == 1000
    assert len(batch.errors) == MAX_ERRORS


@pytest.mark.parametrize("body", [b"", b"[", b"[1,]", b"\xff", b"[" * 100_000])
def test_an_unreadable_array_is_a_bad_request(body):
    assert status_of(read_json_array, body) == 400


@pytest.mark.parametrize("body", [b"{}", b"1", b"null", b'"x"'])
def test_json_that_is_no_array_is_refused(body):
    assert status_of(read_json_array, body) == 422


def test_more_points_than_allowed_are_refused_whole():
    assert status_of(read_json_array, json.dumps([GOOD] * 3).encode(), 2) == 413
    assert status_of(read_ndjson, b"x\n" * 3, 2) == 413
