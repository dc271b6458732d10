"""Batches of the items of one tick, which is one iteration of the event loop.

Counting and logging have a fixed cost per call. Under load many requests end in the same tick, and one call
for all of them is cheaper than one call for each.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")


class TickBatch(Generic[T]):
    """Collects items, and processes them together at the end of the tick.

    Args:
        process: Called with the items of a tick, in order, if there are any. The event loop's exception
            handler gets its errors; the code that added an item does not.
    """

    def __init__(self, process: Callable[[list[T]], object]) -> None:
        self._process = process
        self._items: list[T] = []

    def add(self, item: T, /) -> None:
        """Add `item` to the batch of the current tick."""
        if not self._items:
            # The batch belongs to no single request, so it must not inherit the context of one.
            asyncio.get_running_loop().call_soon(self._end_tick, context=Context())
        self._items.append(item)

    def _end_tick(self) -> None:
        items, self._items = self._items, []
        self._process(items)
