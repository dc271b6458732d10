"""Reading bodies: limits, inflation, and errors."""

import asyncio
import gzip
import tracemalloc
import zlib

import pytest
from starlette.requests import Request

from src.api.errors import ProblemError
from src.api.requests.body import BODY_SECONDS, await_body, media_type, read_body
from src.api.requests.eager_coroutine import EagerCoroutine
from tests.support.clock import FakeClock


def request(*chunks, **headers):
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    async def receive():
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


async def read(given, max_bytes, clock=None):
    return await await_body(EagerCoroutine(read_body(given, max_bytes)), clock or FakeClock())


async def status_of(awaitable):
    with pytest.raises(ProblemError) as caught:
        await awaitable
    return caught.value.problem.status


async def test_an_uncompressed_body_is_returned_whole():
    assert await read(request(b"ab", b"cd"), 4) == b"abcd"


async def test_a_body_one_byte_too_long_is_rejected():
    assert await status_of(read(request(b"ab", b"cde"), 4)) == 413


async def test_a_declared_length_is_rejected_before_anything_is_read():
    unread = request(content_length="5")
    assert await status_of(read(unread, 4)) == 413


async def test_gzip_is_inflated_across_chunks_and_members():
    packed = gzip.compress(b"hello ") + gzip.compress(b"world")
    chunks = [packed[i : i + 3] for i in range(0, len(packed), 3)]
    assert await read(request(*chunks, content_encoding="gzip"), len(packed)) == b"hello world"


@pytest.mark.parametrize("packed", [
    pytest.param(gzip.compress(b"hello ") + gzip.compress(b"world") + bytes(512), id="after the last member"),
    pytest.param(gzip.compress(b"hello ") + bytes(3) + gzip.compress(b"world"), id="between two members"),
    pytest.param(gzip.compress(b"hello world") + bytes(5000), id="longer than a piece"),
])  # fmt: skip
async def test_zero_bytes_after_a_gzip_member_are_padding(packed):
    """In the past they caused a 400, although gzip(1) and tape drives write them."""
    assert await read(request(packed, content_encoding="gzip"), len(packed)) == b"hello world"


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZip", "X-GZIP", " gzip ", "identity, gzip", ",gzip"])
async def test_gzip_is_recognised_by_both_names_and_in_a_list(coding):
    """In the past x-gzip caused a 415."""
    assert await read(request(gzip.compress(b"hello"), content_encoding=coding), 100) == b"hello"


@pytest.mark.parametrize("coding", ["", "identity", "Identity", " , "])
async def test_the_coding_identity_is_accepted(coding):
    assert await read(request(b"hello", content_encoding=coding), 100) == b"hello"


@pytest.mark.parametrize("size", [100, 10_000_000])
async def test_gzip_that_inflates_to_too_much_is_rejected(size):
    packed = gzip.compress(b"x" * size)
    assert await status_of(read(request(packed, content_encoding="gzip"), 99)) == 413


async def test_a_decompression_bomb_is_rejected_before_it_needs_memory():
    packed = gzip.compress(b"\0" * 200_000_000)
    tracemalloc.start()
    try:
        assert await status_of(read(request(packed, content_encoding="gzip"), 1_000_000)) == 413
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


async def test_empty_gzip_members_count_towards_the_size_limit():
    """In the past, 40 MB of empty members were read to the end, since only the inflated size was limited."""
    unread = [gzip.compress(b"") * 100] * 1000

    async def receive():
        return {"type": "http.request", "body": unread.pop(), "more_body": True}

    headers = [(b"content-encoding", b"gzip")]
    endless = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    assert await status_of(read(endless, 10_000)) == 413
    assert len(unread) > 990


async def test_members_are_inflated_without_copying_the_rest_for_each(monkeypatch):
    """In the past the rest of the body was copied after every member, so small members took seconds."""
    longest = 0
    inflate = zlib.decompressobj

    class CopyCountingBytes:
        def __init__(self, *args):
            self._inner = inflate(*args)

        def decompress(self, data, most):
            nonlocal longest
            longest = max(longest, len(data))
            return self._inner.decompress(data, most)

        def __getattr__(self, name):
            return getattr(self._inner, name)

    monkeypatch.setattr(zlib, "decompressobj", CopyCountingBytes)
    packed = gzip.compress(b"x") * 10_000
    assert await read(request(packed, content_encoding="gzip"), len(packed)) == b"x" * 10_000
    assert longest <= 1024


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"not gzip", id="plain"),
        pytest.param(gzip.compress(b"hello")[:-4], id="cut short"),
        pytest.param(b"", id="empty"),
        pytest.param(gzip.compress(b"a") + b"rest", id="more after it"),
        pytest.param(gzip.compress(b"a") + b"\0\0rest", id="more after the padding"),
        pytest.param(b"\0" + gzip.compress(b"a"), id="padding before it"),
        pytest.param(bytes(100), id="nothing but padding"),
    ],
)
async def test_broken_gzip_is_a_bad_request(body):
    assert await status_of(read(request(body, content_encoding="gzip"), 100)) == 400


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "gzip, br", "gzip;q=1", "xgzip"])
async def test_an_unsupported_encoding_is_rejected_with_the_supported_ones(coding):
    with pytest.raises(ProblemError) as caught:
        await read(request(b"", content_encoding=coding), 100)
    assert caught.value.problem.status == 415
    assert caught.value.problem.headers == {"Accept-Encoding": "gzip"}


async def test_a_client_that_disconnects_gets_no_answer():
    async def receive():
        return {"type": "http.disconnect"}

    broken = Request({"type": "http", "method": "POST", "headers": []}, receive)
    assert await status_of(read(broken, 4)) == 400


async def test_a_body_that_never_ends_is_rejected_after_a_timeout(clock):
    """In the past the connection was held without a limit."""
    messages = [{"type": "http.request", "body": b"ab", "more_body": True}]

    async def receive():
        return messages.pop() if messages else await asyncio.Future()

    stalled = Request({"type": "http", "method": "POST", "headers": []}, receive)
    reading = asyncio.create_task(read(stalled, 4, clock))
    await clock.advance(BODY_SECONDS - 1)
    assert not reading.done()
    await clock.advance(1)
    with pytest.raises(ProblemError) as caught:
        await reading
    problem = caught.value.problem
    assert (problem.status, problem.code) == (400, "BAD_REQUEST")
    assert "in time" in problem.message
    assert problem.headers == {"Connection": "close"}


async def test_a_body_in_tiny_chunks_needs_no_extra_memory():
    """In the past each chunk was kept by itself, and two bytes took forty."""
    left = 500_000

    async def receive():
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": b"%02d" % (left % 100), "more_body": left > 0}

    dripping = Request({"type": "http", "method": "POST", "headers": []}, receive)
    tracemalloc.start()
    try:
        assert len(await read(dripping, 1_000_000)) == 1_000_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize(
    "given",
    [
        "application/json", "Application/JSON; charset=UTF-8", "application/json; charset=utf8",
        'application/json;charset="utf-8"', "application/json; charset=ascii", "application/json;",
        "application/json; profile=x",
    ],
)  # fmt: skip
def test_a_supported_media_type_is_recognised(given):
    assert media_type(request(content_type=given), "application/json") == "application/json"


def test_a_body_without_a_media_type_has_the_first_supported_one():
    assert media_type(request(), "application/json", "application/x-ndjson") == "application/json"


@pytest.mark.parametrize(
    "given",
    [
        "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json", "",
        "application/json; charset=utf-16", "application/json; charset=utf-8-sig",
        "application/json; charset=",
    ],
)  # fmt: skip
def test_any_other_media_type_is_rejected(given):
    with pytest.raises(ProblemError) as caught:
        media_type(request(content_type=given), "application/json")
    assert caught.value.problem.status == 415
