import asyncio

import pytest

from src.api.requests.eager_coroutine import EagerCoroutine


async def test_a_coroutine_without_waits_is_done_at_once():
    async def answer():
        return 42

    begun = EagerCoroutine(answer())
    assert begun.is_done
    assert await begun == 42


async def test_an_error_before_the_first_wait_is_raised_at_once():
    async def fail():
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        EagerCoroutine(fail())


async def test_a_coroutine_with_several_waits_continues_when_awaited():
    first, second = asyncio.get_running_loop().create_future(), asyncio.Event()

    async def add():
        some = await first
        await second.wait()
        await asyncio.sleep(0)
        return some + 1

    begun = EagerCoroutine(add())
    assert not begun.is_done
    asyncio.get_running_loop().call_soon(first.set_result, 1)
    asyncio.get_running_loop().call_later(0.001, second.set)
    assert await begun == 2
    assert begun.is_done


async def test_the_coroutine_itself_handles_an_error_of_its_awaitable():
    failing = asyncio.get_running_loop().create_future()

    async def recover():
        try:
            await failing
        except OSError:
            await asyncio.sleep(0)
        return "recovered"

    begun = EagerCoroutine(recover())
    failing.set_exception(OSError("away"))
    assert await begun == "recovered"


async def test_a_cancellation_and_a_timeout_reach_the_coroutine():
    seen = []

    async def wait():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def wait_outside():
        await EagerCoroutine(wait())

    task = asyncio.create_task(wait_outside())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    begun = EagerCoroutine(wait())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await begun
    assert seen == ["cancelled", "cancelled"]
