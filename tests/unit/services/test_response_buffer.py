"""The buffer of a response with one writer and any number of readers."""

import asyncio

import pytest

from src.services.proxy.response_buffer import (
    CHUNK_BYTES,
    BufferBudget,
    Head,
    ResponseBuffer,
    ResponseCutError,
)
from tests.support.clock import settle

HEAD = Head(200, ((b"content-type", b"text/plain"), (b"x-odd", b"a:b, c"), (b"x-empty", b"")))


async def read(buffer, into):
    async for chunk in buffer.body():
        into.append(chunk)


async def test_each_reader_gets_the_body_from_its_start_while_it_arrives():
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
    assert b"".join(early) == b"".join(late) == b"onetwothree"
    assert not first.done()
    buffer.end()
    await asyncio.gather(first, second)


async def test_a_reader_gets_small_pieces_together_and_a_large_one_in_parts():
    buffer, got = ResponseBuffer(), []
    buffer.begin(HEAD)
    for _ in range(1000):
        buffer.write(b"x")
    buffer.write(b"y" * (2 * CHUNK_BYTES))
    buffer.end()
    await read(buffer, got)
    assert b"".join(got) == buffer.content == b"x" * 1000 + b"y" * (2 * CHUNK_BYTES)
    assert [len(chunk) for chunk in got] == [CHUNK_BYTES, CHUNK_BYTES, 1000]


async def test_a_reader_waits_for_the_head():
    buffer = ResponseBuffer()
    waiting = asyncio.create_task(buffer.head())
    await settle()
    assert not waiting.done()
    buffer.begin(HEAD)
    assert await waiting == HEAD


async def test_an_error_before_the_head_is_raised_for_all_readers():
    buffer = ResponseBuffer()
    waiting = [asyncio.create_task(buffer.head()) for _ in range(2)]
    await settle()
    buffer.fail(RuntimeError("no answer"))
    for each in waiting:
        with pytest.raises(RuntimeError, match="no answer"):
            await each


async def test_an_incomplete_response_is_read_up_to_its_end():
    buffer, got = ResponseBuffer(), []
    buffer.begin(HEAD)
    buffer.write(b"half")
    buffer.fail(RuntimeError("cut"))
    with pytest.raises(ResponseCutError, match="cut"):
        await read(buffer, got)
    assert got == [b"half"]
    assert await buffer.head() == HEAD


def complete_buffer(body):
    buffer = ResponseBuffer()
    buffer.begin(HEAD)
    buffer.write(body)
    buffer.end()
    return buffer


async def test_the_memory_of_responses_is_limited_and_the_oldest_is_discarded_first():
    budget = BufferBudget(10)
    oldest, older, newest = buffers = [complete_buffer(body) for body in (b"1234", b"5678", b"90123")]
    reading = oldest.body()
    for buffer in buffers[:2]:
        budget.add(buffer)
    assert await anext(reading) == b"1234"
    budget.add(newest)
    with pytest.raises(ResponseCutError, match="too slowly"):
        await anext(reading)
    assert [buffer.length for buffer in buffers] == [0, 4, 5]
    assert oldest.content == b""
    for buffer in (older, newest):
        got = []
        await read(buffer, got)
        assert got


async def test_an_answer_without_readers_does_not_count():
    budget = BufferBudget(10)
    kept = complete_buffer(b"12345")
    budget.add(kept)
    for _ in range(9):
        budget.add(complete_buffer(b"12345"))
    assert kept.length == 5


async def test_an_answer_that_failed_before_its_head_keeps_its_error():
    budget, failed = BufferBudget(10), ResponseBuffer()
    failed.fail(RuntimeError("no answer"))
    for buffer in (failed, long := complete_buffer(b"12345678901"), short := complete_buffer(b"1")):
        budget.add(buffer)
    with pytest.raises(RuntimeError, match="no answer"):
        await failed.head()
    assert (long.length, short.length) == (0, 1)


async def test_a_response_longer_than_the_budget_is_kept_until_the_next():
    budget = BufferBudget(10)
    long, short = complete_buffer(b"12345678901"), complete_buffer(b"1")
    budget.add(long)
    assert long.length == 11
    budget.add(short)
    assert (long.length, short.length) == (0, 1)
