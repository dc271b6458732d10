"""An answer that is written once and read by many."""

import asyncio

import pytest

from src.services.tape import Head, Tape, TapeCutError, TapeShelf
from tests.support.clock import settle

HEAD = Head(200, ((b"content-type", b"text/plain"), (b"x-odd", b"a:b, c"), (b"x-empty", b"")))


async def read(tape, into):
    async for chunk in tape.body():
        into.append(chunk)


async def test_each_reader_gets_it_from_the_start_as_it_comes():
    tape, early, late = Tape(), [], []
    tape.begin(HEAD)
    first = asyncio.create_task(read(tape, early))
    tape.write(b"one")
    await settle()
    assert early == [b"one"]
    second = asyncio.create_task(read(tape, late))
    tape.write(b"two")
    tape.write(b"three")
    await settle()
    assert early == late == [b"one", b"two", b"three"]
    assert not first.done()
    tape.end()
    await asyncio.gather(first, second)


async def test_the_head_is_waited_for():
    tape = Tape()
    waiting = asyncio.create_task(tape.head())
    await settle()
    assert not waiting.done()
    tape.begin(HEAD)
    assert await waiting == HEAD


async def test_what_fails_before_its_head_fails_for_all_who_wait():
    tape = Tape()
    waiting = [asyncio.create_task(tape.head()) for _ in range(2)]
    await settle()
    tape.fail(RuntimeError("no answer"))
    for each in waiting:
        with pytest.raises(RuntimeError, match="no answer"):
            await each


async def test_what_breaks_off_is_read_as_far_as_it_came():
    tape, got = Tape(), []
    tape.begin(HEAD)
    tape.write(b"half")
    tape.fail(RuntimeError("cut"))
    with pytest.raises(TapeCutError, match="cut"):
        await read(tape, got)
    assert got == [b"half"]
    assert await tape.head() == HEAD


@pytest.mark.parametrize("head", [HEAD, Head(200, ())])
async def test_a_packed_answer_is_the_same_unpacked(head):
    tape, copy, got = Tape(), Tape(), []
    tape.begin(head)
    tape.write(b"a\r\n\r\nb")
    copy.unpack(200, tape.packed(b"\r\n"))
    await read(copy, got)
    assert await copy.head() == head
    assert b"".join(got) == b"a\r\n\r\nb\r\n"
    assert copy.length == 8


def written(body):
    tape = Tape()
    tape.begin(HEAD)
    tape.write(body)
    tape.end()
    return tape


async def test_what_is_still_read_is_bounded_and_the_oldest_goes_first():
    shelf = TapeShelf(10)
    oldest, older, newest = tapes = [written(body) for body in (b"1234", b"5678", b"90123")]
    reading = oldest.body()
    for tape in tapes[:2]:
        shelf.put(tape)
    assert await anext(reading) == b"1234"
    shelf.put(newest)
    with pytest.raises(TapeCutError, match="too slowly"):
        await anext(reading)
    assert [tape.length for tape in tapes] == [0, 4, 5]
    assert b"1234" not in oldest.packed()
    for tape in (older, newest):
        got = []
        await read(tape, got)
        assert got


async def test_what_nobody_reads_any_more_counts_for_nothing():
    shelf = TapeShelf(10)
    kept = written(b"12345")
    shelf.put(kept)
    for _ in range(9):
        shelf.put(written(b"12345"))
    assert kept.length == 5


async def test_one_that_failed_before_it_began_says_why_however_much_is_held():
    shelf, failed = TapeShelf(10), Tape()
    failed.fail(RuntimeError("no answer"))
    for tape in (failed, long := written(b"12345678901"), short := written(b"1")):
        shelf.put(tape)
    with pytest.raises(RuntimeError, match="no answer"):
        await failed.head()
    assert (long.length, short.length) == (0, 1)


async def test_one_that_is_longer_than_all_may_be_is_read_until_another_comes():
    shelf = TapeShelf(10)
    long, short = written(b"12345678901"), written(b"1")
    shelf.put(long)
    assert long.length == 11
    shelf.put(short)
    assert (long.length, short.length) == (0, 1)
