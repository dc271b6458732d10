import asyncio
import gc
import weakref

import pytest

from src.storage.redis.tick_loader import TickLoader


class Store:
    """A store that returns each request times ten, after `may_end` is set."""

    def __init__(self):
        self.loaded: list[list[int]] = []
        self.error: Exception | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def load(self, requests):
        self.loaded.append(requests)
        await self.may_end.wait()
        if self.error:
            raise self.error
        return [10 * request for request in requests]


async def run_other_tasks():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_requests_of_one_tick_are_loaded_together_in_order():
    store = Store()
    loader = TickLoader(store.load)
    answers = await asyncio.gather(*(loader.add(number) for number in (3, 1, 2, 1)))
    assert answers == [30, 10, 20, 10], "each caller gets its own answer"
    assert store.loaded == [[3, 1, 2, 1]]


async def test_later_requests_do_not_wait_for_earlier_loads():
    store = Store()
    store.may_end.clear()
    loader = TickLoader(store.load)
    first = loader.add(1)
    await run_other_tasks()
    second = loader.add(2)
    await run_other_tasks()
    assert store.loaded == [[1], [2]]
    assert [future.done() for future in (first, second)] == [False, False], "no caller gets results too early"
    store.may_end.set()
    assert await asyncio.gather(first, second) == [10, 20]


async def test_a_failure_reaches_every_caller_of_its_tick_and_no_other():
    store = Store()
    store.error = OSError("away")
    loader = TickLoader(store.load)
    failed = await asyncio.gather(loader.add(1), loader.add(2), return_exceptions=True)
    assert [type(error) for error in failed] == [OSError, OSError]
    store.error = None
    assert await loader.add(3) == 30


async def test_a_cancelled_caller_does_not_affect_the_others():
    store = Store()
    loader = TickLoader(store.load)

    async def wait(number):
        return await loader.add(number)

    leaving, staying = asyncio.create_task(wait(1)), asyncio.create_task(wait(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 20
    assert store.loaded == [[1, 2]]
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_failure_without_waiting_callers_is_not_logged_by_asyncio():
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    store = Store()
    store.error = OSError("away")
    loader = TickLoader(store.load)
    loader.add(1)
    await run_other_tasks()
    gc.collect()
    assert complaints == []


async def test_too_few_results_fail_the_callers_without_one():
    async def load(requests):
        return requests[1:]

    loader = TickLoader(load)
    results = await asyncio.gather(loader.add(1), loader.add(2), return_exceptions=True)
    assert results[0] == 2
    assert isinstance(results[1], ValueError)


async def test_a_failure_is_not_kept_alive_after_its_callers_got_it():
    """Each failure would otherwise leave a reference cycle behind."""

    class UnavailableError(Exception):
        def __init__(self):
            errors.append(weakref.ref(self))

    errors = []

    async def load(_requests):
        raise UnavailableError

    loader = TickLoader(load)
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await loader.add(1)
        await run_other_tasks()
        assert [error() for error in errors] == [None, None, None]
    finally:
        gc.enable()


async def test_pending_requests_can_be_answered_from_another_source():
    store = Store()
    store.may_end.clear()
    loader = TickLoader(store.load)
    first, second = loader.add(1), loader.add(2)
    await run_other_tasks()
    third = loader.add(3)
    await run_other_tasks()
    seen = []

    def answer(number):
        seen.append(number)
        return None if number == 2 else -number

    loader.resolve(answer)
    assert (first.result(), second.done(), third.result()) == (-1, False, -3)
    loader.resolve(answer)
    assert seen == [1, 2, 3] * 2
    store.may_end.set()
    assert await second == 20
    assert (first.result(), third.result()) == (-1, -3)
    await loader.finish()
    loader.resolve(answer)
    assert seen == [1, 2, 3] * 2, "no request is pending"


async def test_finishing_waits_for_every_request():
    store = Store()
    store.may_end.clear()
    loader = TickLoader(store.load)
    requests = [loader.add(1)]
    await run_other_tasks()
    requests.append(loader.add(2))
    finishing = asyncio.create_task(loader.finish())
    await run_other_tasks()
    assert not finishing.done()
    store.may_end.set()
    await finishing
    assert [request.result() for request in requests] == [10, 20]
