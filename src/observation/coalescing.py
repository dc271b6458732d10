"""The daily business of the patterns: what comes with every request, and is told together.

Every other event is told in the way of whose doing it was, so that a line that is logged of it says whose.
For a cache's hits and misses that would cost more than it tells: they are told at the end of the tick, equal
ones as one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from src.observation.tick_batch import TickBatch
from src.resilience.events import CacheAnswered, Event, Listener


def is_coalesced(event: Event) -> bool:
    """Return whether `event` is daily business."""
    return isinstance(event, CacheAnswered) and event.outcome in {"hit", "miss"}


class CoalescingListener:
    """The listener that tells another one: of daily business together, of all else at once.

    Args:
        listener: Told in its stead. An event that came several times has how many they were in its `times`.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._daily = TickBatch[Event](self._tell)

    def __call__(self, event: Event) -> None:
        """Take note of `event`."""
        if is_coalesced(event):
            self._daily.add(event)
        else:
            self._listener(event)

    def _tell(self, events: Sequence[Event]) -> None:
        for event, times in Counter(events).items():
            self._listener(event if times == 1 else replace(event, times=times * event.times))
