"""A read that begins before the limiter's decision."""

import asyncio
import gc

import pytest
from starlette.requests import Request

from src.api import admitted_read
from src.api.admitted_read import ReadTask, admit_and_read
from src.api.errors import BAD_JSON, RATE_LIMIT_EXCEEDED, ProblemError
from tests.support.clock import settle

A_REQUEST = Request({"type": "http", "state": {"read_admission": None}})


@pytest.fixture
def rejecting_admission(monkeypatch):
    async def refuse(*_):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise ProblemError(RATE_LIMIT_EXCEEDED)

    monkeypatch.setattr(admitted_read, "admit", refuse)


async def fail():
    raise OSError("the store is away")


async def fail_when_stopped():
    try:
        await asyncio.Future()
    finally:
        await fail()


@pytest.mark.parametrize("work", [fail, fail_when_stopped])
async def test_a_failed_read_of_a_rejected_request_is_not_logged_by_asyncio(rejecting_admission, work):
    """In the past asyncio logged "Task exception was never retrieved"."""
    logged = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context["message"]))
    with pytest.raises(ProblemError):
        await admit_and_read(A_REQUEST, lambda: ReadTask(work()))
    await settle()
    gc.collect()
    assert logged == []


async def test_a_running_read_is_cancelled_if_the_request_is_rejected(rejecting_admission):
    stopped = asyncio.Event()

    async def work():
        try:
            await asyncio.Future()
        finally:
            stopped.set()

    with pytest.raises(ProblemError):
        await admit_and_read(A_REQUEST, lambda: ReadTask(work()))
    assert stopped.is_set()


async def test_a_read_is_begun_before_the_limiter_has_decided(monkeypatch):
    steps = []

    async def admit(*_):
        steps.append("asked")
        await asyncio.sleep(0)
        steps.append("admitted")

    async def work():
        steps.append("begun")
        return 42

    monkeypatch.setattr(admitted_read, "admit", admit)
    assert await admit_and_read(A_REQUEST, lambda: ReadTask(work())) == 42
    assert steps == ["asked", "begun", "admitted"]


async def test_an_invalid_request_counts_and_gets_its_quota_headers(monkeypatch, rejecting_admission):
    def invalid_read():
        raise ProblemError(BAD_JSON)

    with pytest.raises(ProblemError) as caught:
        await admit_and_read(A_REQUEST, invalid_read)
    assert caught.value.problem.status == 429

    async def admit(*_):
        pass

    monkeypatch.setattr(admitted_read, "admit", admit)
    with pytest.raises(ProblemError) as caught:
        await admit_and_read(A_REQUEST, invalid_read)
    assert caught.value.problem.status == 400
