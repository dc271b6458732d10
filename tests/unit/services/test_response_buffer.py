"""An answer that is written once and read by many."""

import asyncio

import pytest

from src.services.proxy.response_buffer import BufferBudget, Head, ResponseBuffer, ResponseCutError
from tests.support.clock import settle

HEAD = Head(200, ((b"content-type", b"text/plain"), (b"x-odd", b"a:b, c"), (b"x-empty", b"")))


async def read(buffer, into):
    async for chunk in buffer.body():
        into.append(chunk)


async def test_each_reader_gets_it_from_the_start_as_it_comes():
    buffer, early, late = ResponseBuffer(), [], []
    buffer.begin(HEAD)
    first = asyncio.create_task(read(buffer, early))
    buffer.write(b"one")
    await settle()
    assert early == [b"one"]
    second = asyncio.create_task(read(buffer, late))
    buffer.write(b"two")
    buffer.write(b"three")
    await settle()
    assert early == late == [b"one", b"two", b"three"]
    assert not first.done()
    buffer.end()
    await asyncio.gather(first, second)


async def test_the_head_is_waited_for():
    buffer = ResponseBuffer()
    waiting = asyncio.create_task(buffer.head())
    await settle()
    assert not waiting.done()
    buffer.begin(HEAD)
    assert await waiting == HEAD


async def test_what_fails_before_its_head_fails_for_all_who_wait():
    buffer = ResponseBuffer()
    waiting = [asyncio.create_task(buffer.head()) for _ in range(2)]
    await settle()
    buffer.fail(RuntimeError("no answer"))
    for each in waiting:
        with pytest.raises(RuntimeError, match="no answer"):
            await each


async def test_what_breaks_off_is_read_as_far_as_it_came():
    buffer, got = ResponseBuffer(), []
    buffer.begin(HEAD)
    buffer.write(b"half")
    buffer.fail(RuntimeError("cut"))
    with pytest.raises(ResponseCutError, match="cut"):
        await read(buffer, got)
    assert got == [b"half"]
    assert await buffer.head() == HEAD


@pytest.mark.parametrize("head", [HEAD, Head(200, ())])
async def test_a_packed_answer_is_the_same_unpacked(head):
    buffer, copy, got = ResponseBuffer(), ResponseBuffer(), []
    buffer.begin(head)
    buffer.write(b"a\r\n\r\nb")
    copy.unpack(200, buffer.packed(b"\r\n"))
    await read(copy, got)
    assert await copy.head() == head
    assert b"".join(got) == b"a\r\n\r\nb\r\n"
    assert copy.length == 8


def written(body):
    buffer = ResponseBuffer()
    buffer.begin(HEAD)
    buffer.write(body)
    buffer.end()
    return buffer


async def test_what_is_still_read_is_bounded_and_the_oldest_goes_first():
    shelf = BufferBudget(10)
    oldest, older, newest = buffers = [written(body) for body in (b"1234", b"5678", b"90123")]
    reading = oldest.body()
    for buffer in buffers[:2]:
        shelf.put(buffer)
    assert await anext(reading) == b"1234"
    shelf.put(newest)
    with pytest.raises(ResponseCutError, match="too slowly"):
        await anext(reading)
    assert [buffer.length for buffer in buffers] == [0, 4, 5]
    assert b"1234" not in oldest.packed()
    for buffer in (older, newest):
        got = []
        await read(buffer, got)
        assert got


async def test_what_nobody_reads_any_more_counts_for_nothing():
    shelf = BufferBudget(10)
    kept = written(b"12345")
    shelf.put(kept)
    for _ in range(9):
        shelf.put(written(b"12345"))
    assert kept.length == 5


async def test_one_that_failed_before_it_began_says_why_however_much_is_held():
    shelf, failed = BufferBudget(10), ResponseBuffer()
    failed.fail(RuntimeError("no answer"))
    for buffer in (failed, long := written(b"12345678901"), short := written(b"1")):
        shelf.put(buffer)
    with pytest.raises(RuntimeError, match="no answer"):
        await failed.head()
    assert (long.length, short.length) == (0, 1)


async def test_one_that_is_longer_than_all_may_be_is_read_until_another_comes():
    shelf = BufferBudget(10)
    long, short = written(b"12345678901"), written(b"1")
    shelf.put(long)
    assert long.length == 11
    shelf.put(short)
    assert (long.length, short.length) == (0, 1)
