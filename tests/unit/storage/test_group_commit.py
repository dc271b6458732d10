import asyncio

import pytest

from src.storage.group_commit import GroupCommit


class Store:
    """Takes what it is given, when it is let."""

    def __init__(self):
        self.commits: list[list[int]] = []
        self.error: Exception | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def commit(self, items):
        self.commits.append(items)
        await self.may_end.wait()
        if self.error:
            raise self.error


async def let_others_run():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_in_one_tick_is_one_commit_in_order():
    store = Store()
    group = GroupCommit(store.commit)
    await asyncio.gather(*(group.add(number) for number in range(5)))
    assert store.commits == [[0, 1, 2, 3, 4]]


async def test_what_comes_later_does_not_wait_for_a_commit_under_way():
    store = Store()
    store.may_end.clear()
    group = GroupCommit(store.commit)
    first = group.add(1)
    await let_others_run()
    second = group.add(2)
    await let_others_run()
    assert store.commits == [[1], [2]]
    told = [future.done() for future in (first, second)]
    assert told == [False, False], "nobody is told before it is stored"
    store.may_end.set()
    await asyncio.gather(first, second)


async def test_a_failure_is_told_to_everyone_in_it_and_to_nobody_else():
    store = Store()
    store.error = OSError("away")
    group = GroupCommit(store.commit)
    failed = await asyncio.gather(group.add(1), group.add(2), return_exceptions=True)
    assert [type(error) for error in failed] == [OSError, OSError]
    store.error = None
    await group.add(3)


async def test_who_leaves_harms_no_other():
    store = Store()
    group = GroupCommit(store.commit)

    async def wait(number):
        await group.add(number)

    leaving, staying = asyncio.create_task(wait(1)), asyncio.create_task(wait(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert store.commits == [[1, 2]]
    with pytest.raises(asyncio.CancelledError):
        await leaving
