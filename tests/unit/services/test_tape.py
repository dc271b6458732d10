"""An answer that is written once and read by many."""

import asyncio

import pytest

from src.services.tape import Head, Tape, TapeCutError
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
