"""The items of one tick are processed together."""

import asyncio
from contextvars import ContextVar

from src.observation.tick_batch import TickBatch
from tests.support.clock import settle

whose = ContextVar("whose", default="nobody's")


async def test_the_items_of_a_tick_are_processed_at_its_end_in_order():
    batches = []
    tick = TickBatch(batches.append)
    tick.add(1)
    tick.add(2)
    assert batches == []
    await asyncio.sleep(0)
    assert batches == [[1, 2]]
    tick.add(3)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert batches == [[1, 2], [3]], "without items `process` is not called"


async def test_items_that_are_added_during_processing_are_processed_next():
    batches = []

    def record(items):
        batches.append(items)
        if len(batches) == 1:
            tick.add("because of it")

    tick = TickBatch(record)
    tick.add("first")
    await settle()
    assert batches == [["first"], ["because of it"]]


async def test_a_batch_does_not_inherit_the_context_of_a_request():
    found = []
    tick = TickBatch(lambda _: found.append(whose.get()))
    whose.set("a request's")
    tick.add(1)
    await asyncio.sleep(0)
    assert found == ["nobody's"]


async def test_a_batch_that_fails_does_not_affect_the_next():
    errors, batches = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    tick = TickBatch(lambda items: batches.append(1 / items[0]))
    tick.add(0)
    await asyncio.sleep(0)
    tick.add(4)
    await asyncio.sleep(0)
    assert batches == [0.25]
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
