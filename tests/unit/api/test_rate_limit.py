"""The limiter's verdict, alongside other work."""

import asyncio
import gc

import pytest

from src.api import rate_limit
from src.api.errors import RATE_LIMIT_EXCEEDED, ProblemError
from src.api.rate_limit import admit_alongside
from tests.support.clock import settle


@pytest.fixture
def refusing(monkeypatch):
    async def refuse(*_):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise ProblemError(RATE_LIMIT_EXCEEDED)

    monkeypatch.setattr(rate_limit, "admit", refuse)


async def fail():
    raise OSError("the store is away")


async def fail_when_stopped():
    try:
        await asyncio.Future()
    finally:
        await fail()


@pytest.mark.parametrize("work", [fail, fail_when_stopped])
async def test_work_that_fails_is_not_told_of_as_never_seen_when_the_request_is_refused(refusing, work):
    """asyncio logged "Task exception was never retrieved"."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["message"]))
    with pytest.raises(ProblemError):
        await admit_alongside(None, None, work())
    await settle()
    gc.collect()
    assert told == []


async def test_work_under_way_is_stopped_by_the_refusal(refusing):
    stopped = asyncio.Event()

    async def work():
        try:
            await asyncio.Future()
        finally:
            stopped.set()

    with pytest.raises(ProblemError):
        await admit_alongside(None, None, work())
    assert stopped.is_set()
