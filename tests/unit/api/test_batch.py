"""Reading batches."""

import asyncio
import json
import tracemalloc
from contextlib import suppress

import pytest

from src.analytics.points import Point
from src.api.errors import ProblemError
from src.api.requests import batch as batch_module
from src.api.requests.batch import MAX_DEPTH, MAX_ERRORS, SLICE_BYTES
from src.api.requests.batch_columns import LEAST_POINT_BYTES, UnusualBatchError, decode_array
from src.api.requests.body import MAX_OBJECT_BYTES
from src.resilience.clock import SystemClock

GOOD = {"timestamp": "2026-01-31T12:00:00Z", "value": 1.5, "type": "cpu"}
LATEST = 2_000_000_000_000_000
POINT = Point("cpu", 1_769_860_800_000_000, 1.5)


def read_json_array(body, max_points):
    return asyncio.run(batch_module.read_json_array(body, max_points, LATEST, SystemClock()))


def read_ndjson(body, max_points):
    return asyncio.run(batch_module.read_ndjson(body, max_points, LATEST, SystemClock()))


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
def test_valid_points_are_read(read, body):
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
def test_errors_have_the_index_and_the_field(read, wrong, field):
    items = [GOOD, wrong, GOOD]
    lines = "\n".join(json.dumps(item) for item in items)
    batch = read((json.dumps(items) if read is read_json_array else lines).encode(), 10)
    assert batch.points == [POINT, POINT]
    assert batch.rejected == 1
    assert [(error["index"], error["field"]) for error in batch.errors] == [(1, field)]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize("read", [read_json_array, read_ndjson])
def test_invalid_numbers_are_rejected(read, number):
    text = json.dumps(GOOD).replace("1.5", number)
    batch = read((f"[{text}]" if read is read_json_array else text).encode(), 10)
    assert (batch.points, batch.rejected) == ([], 1)
    assert batch.errors[0]["field"] == "value"


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(r'"\ud800"', id="half a surrogate pair"),
        pytest.param(r'"\udc00\ud800"', id="surrogates in the wrong order"),
        pytest.param("9" * 5_000, id="an integer of 5,000 digits"),
        pytest.param("-" + "9" * 5_000, id="a negative one"),
    ],
)
@pytest.mark.parametrize("name", ["value", "type", "ignored"])
@pytest.mark.parametrize("read", [read_json_array, read_ndjson])
def test_json_that_the_parser_rejects_is_an_error_of_its_point(read, name, member):
    """In the past, such an element of an array made the whole body a 400."""
    good, wrong = json.dumps(GOOD), json.dumps({**GOOD, name: "?"}).replace('"?"', member)
    body = f"[{good},{wrong},{good}]" if read is read_json_array else f"{good}\n{wrong}\n{good}"
    batch = read(body.encode(), 10)
    assert (batch.points, batch.rejected) == ([POINT, POINT], 1)
    assert [(error["index"], error["field"]) for error in batch.errors] == [(1, "body")]


@pytest.mark.parametrize(
    "member", ["01", "1.", "-", r'"\x"', r'"\u00zz"', '"\x01"', "nul", "1 2", '"\udcff"']
)
def test_an_element_that_is_not_json_makes_the_whole_array_a_bad_request(member):
    wrong = json.dumps({**GOOD, "ignored": "?"}).replace('"?"', member)
    body = f"[{json.dumps(GOOD)},{wrong}]".encode(errors="surrogateescape")
    assert status_of(read_json_array, body) == 400


def test_a_line_that_is_not_json_does_not_affect_other_lines():
    batch = read_ndjson(b'{"oops\n' + json.dumps(GOOD).encode(), 10)
    assert batch.points == [POINT]
    assert batch.errors[0]["index"] == 0


def test_only_the_first_errors_are_listed():
    batch = read_ndjson(b"{}\n" * 1000, 1000)
    assert batch.rejected == 1000
    assert len(batch.errors) == MAX_ERRORS


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1]]",
        b"[1] x",
        b"[}",
        b"\xff",
        b"[\xff]",
        b"[" * 100_000,
        b"[{'a': 1}]",
        b'["',
        b"[]x",
        b"\xef\xbb\xbf[]",
    ],
)
def test_an_unreadable_array_is_a_bad_request(body):
    assert status_of(read_json_array, body) == 400


@pytest.mark.parametrize("body", [b"{}", b"1", b"-1", b"null", b"true", b' "x"'])
def test_json_that_is_not_an_array_is_rejected(body):
    assert status_of(read_json_array, body) == 422


def test_more_points_than_allowed_are_rejected_whole():
    assert status_of(read_json_array, json.dumps([GOOD] * 3).encode(), 2) == 413
    assert status_of(read_ndjson, b"x\n" * 3, 2) == 413


@pytest.mark.parametrize("body", [b"[]", b" [ \r\n\t] \n"])
def test_an_array_may_be_empty(body):
    batch = read_json_array(body, 0)
    assert (batch.points, batch.rejected) == ([], 0)


def test_brackets_commas_and_quotes_in_strings_do_not_split_elements():
    odd = {**GOOD, "note": 'a "],{\\', '}],["': [{"b": ["]", 1]}, "\\"]}
    batch = read_json_array(json.dumps([odd, GOOD], indent=1).encode(), 2)
    assert batch.points == [POINT, POINT]


@pytest.mark.parametrize("read", [read_json_array, read_ndjson])
def test_the_last_of_several_equal_members_counts(read):
    text = json.dumps(GOOD).replace("{", '{"value": 7, "type": "mem", ', 1).encode()
    assert read(b"[" + text + b"]" if read is read_json_array else text, 1).points == [POINT]


def nested_json(depth):
    inner = "1"
    for _ in range(depth - 1):
        inner = f"[{inner}]"
    return f'[{json.dumps(GOOD)[:-1]}, "more": {inner}}}]'.encode()


def test_the_nesting_of_a_point_is_limited():
    assert read_json_array(nested_json(MAX_DEPTH), 1).points == [POINT]
    assert status_of(read_json_array, nested_json(MAX_DEPTH + 1)) == 400


@pytest.mark.parametrize("read", [read_json_array, read_ndjson])
def test_a_point_that_is_too_large_does_not_affect_other_points(read):
    def point_of_size(size):
        text = json.dumps({**GOOD, "note": ""})
        return text.replace('""', '"' + "x" * (size - len(text)) + '"')

    texts = [point_of_size(MAX_OBJECT_BYTES), point_of_size(MAX_OBJECT_BYTES + 1), point_of_size(200)]
    batch = read(("[" + ",".join(texts) + "]" if read is read_json_array else "\n".join(texts)).encode(), 3)
    assert batch.points == [POINT, POINT]
    (error,) = batch.errors
    assert (error["index"], error["field"]) == (1, "body")
    assert str(MAX_OBJECT_BYTES) in error["message"]


@pytest.mark.parametrize("text", [json.dumps(GOOD), json.dumps(GOOD | {"note": "x" * SLICE_BYTES}), "1"])
@pytest.mark.parametrize("read", [batch_module.read_json_array, batch_module.read_ndjson])
async def test_other_tasks_run_between_slices(read, text):
    texts = [text] * max(3, 3 * SLICE_BYTES // max(100, len(text)))
    body = "[" + ",".join(texts) + "]" if read is batch_module.read_json_array else "\n".join(texts)
    turns = 0

    async def count_iterations():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_iterations())
    await read(body.encode(), len(texts), LATEST, SystemClock())
    counting.cancel()
    assert turns == 3


def test_an_error_does_not_mention_a_python_class():
    """In the past the message was "Input should be a valid dictionary or instance of MetricIn"."""
    for batch in (read_json_array(b"[[], 1]", 2), read_ndjson(b"[]\n1", 2)):
        assert "MetricIn" not in str(batch.errors)


def test_errors_beyond_the_limit_are_not_formatted(monkeypatch):
    worded = []
    monkeypatch.setattr(batch_module, "field_errors", lambda errors: worded.append(1) or [{}] * len(errors))
    assert read_json_array(b"[" + b",".join([b"{}"] * 1000) + b"]", 1000).rejected == 1000
    assert 3 * len(worded) - 3 < MAX_ERRORS <= 3 * len(worded)


FIVE_MEGABYTES = 5 * 1024 * 1024


def batch_of_points(begin, filling, end):
    return begin + filling * ((FIVE_MEGABYTES - len(begin) - len(end)) // len(filling)) + end


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (read_json_array, batch_of_points(b"[", b"[],", b"[]]")),
        (read_json_array, batch_of_points(b"[[", b"[],", b"[]]]")),
        (read_json_array, batch_of_points(b"[", b"[" + b"[]," * 170 + b"[]],", b"[]]")),
        (read_json_array, batch_of_points(b'[{"a":', b"[" * 7 + b"]" * 7 + b",", b"1}]")),
        (read_json_array, batch_of_points(b"[", b"[", b"")),
        (read_json_array, batch_of_points(b"[", b"1,", b"1]")),
        (read_json_array, batch_of_points(b"{", b'"a":[],', b'"a":1}')),
        (read_ndjson, batch_of_points(b"[", b"[],", b"[]]")),
        (read_ndjson, batch_of_points(b"", b"[]\n", b"")),
    ],
)
def test_a_malicious_batch_needs_little_memory(read, body):
    """In the past, five megabytes of `[[],[],...` were parsed at once and needed 327 MB."""
    tracemalloc.start()
    try:
        with suppress(ProblemError):
            assert read(body, 10_000).points == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000


def test_no_valid_point_is_shorter_than_the_least_length():
    """The limit of a point in a long array relies on it."""
    for timestamp in ("2026-01-01T00Z", "2026-01-01 00Z", "2026-01-01", "20260101", "2026-01-01T00:00"):
        text = json.dumps([{"timestamp": timestamp, "value": 1, "type": "a"}], separators=(",", ":")).encode()
        with suppress(UnusualBatchError):
            decode_array(text, 1, LATEST)
            assert len(text) - 2 >= LEAST_POINT_BYTES
