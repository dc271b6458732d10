"""Coalesce cache hits and misses: equal events become one event with a count.

Nearly every request causes a hit or a miss, and passing on each of these events would cost too much. Hits and
misses are therefore passed on together at the end of the current iteration of the event loop. All other
events are passed on at once, in the context of their request, so that their log lines have the request's id.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from src.observation.tick_batch import TickBatch
from src.resilience.events import CacheAnswered, Event, Listener


def is_coalesced(event: Event) -> bool:
    """Return whether `event` is coalesced. Only cache hits and misses are."""
    return isinstance(event, CacheAnswered) and event.outcome in {"hit", "miss"}


class CoalescingListener:
    """A listener that passes events on to another listener, and coalesces hits and misses.

    Args:
        listener: Receives the events. The `times` of a coalesced event is the number of equal events.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._batch = TickBatch[Event](self._pass_on_coalesced)

    def __call__(self, event: Event) -> None:
        """Pass `event` on: at once, or coalesced at the end of the iteration."""
        if is_coalesced(event):
            self._batch.add(event)
        else:
            self._listener(event)

    def _pass_on_coalesced(self, events: Sequence[Event]) -> None:
        for event, times in Counter(events).items():
            self._listener(event if times == 1 else replace(event, times=times * event.times))
