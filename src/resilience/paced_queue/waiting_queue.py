"""The callers of a paced queue that wait in this process, in the two orders of assigning slots."""

import asyncio
import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from .options import QueuePolicy
from .store import Offer, Slot

_SWEEP_ABOVE = 64
"""The number of places of departed callers that are always tolerated."""


@dataclass(eq=False, slots=True)
class QueuePlace:
    """A caller's place in the queue, or its request for one.

    Attributes:
        slot: Done with the slot, with an error, or cancelled: then the caller has left, or is about to.
        arrived_us: The arrival of the caller, in µs.
        rank_us: The same, plus the effect of its priority.
        number: The order of arrival.
        is_counted: Whether the queue counts it.
    """

    slot: "asyncio.Future[Slot]"
    arrived_us: int
    rank_us: int
    number: int
    is_counted: bool = False

    @property
    def is_waiting(self) -> bool:
        """Whether the caller waits for its slot."""
        return not self.slot.done()


class WaitingQueue:
    """The places of one worker's callers, by arrival and by priority, and those of its newcomers.

    A newcomer waits for the store to admit it to the queue.

    The place of a caller that leaves is no longer counted, and it is skipped when it comes to the front. When
    there are more such places than others, they are removed.

    Attributes:
        size: The callers in the queue.
    """

    def __init__(self) -> None:
        self.size = 0
        self._by_arrival: list[tuple[int, int, QueuePlace]] = []
        self._by_rank: list[tuple[int, int, QueuePlace]] = []
        self._newcomers: list[QueuePlace] = []

    def __iter__(self) -> Iterator[QueuePlace]:
        """Yield the places that are counted, then those of the newcomers."""
        yield from [place for *_, place in self._by_arrival if place.is_counted]
        yield from self._newcomers

    @property
    def has_callers(self) -> bool:
        """Whether there is a caller in the queue, or a newcomer."""
        return self.size > 0 or bool(self._newcomers)

    def join(self, place: QueuePlace) -> None:
        """Add a newcomer."""
        self._newcomers.append(place)

    def take_newcomers(self, count: int) -> list[QueuePlace]:
        """Remove the first `count` newcomers, and return them."""
        taken, self._newcomers = self._newcomers[:count], self._newcomers[count:]
        return taken

    def heads(self) -> tuple[QueuePlace | None, QueuePlace | None]:
        """Return the first place by arrival and by priority, or the first newcomer if the queue is empty."""
        newcomer = self._newcomers[0] if self._newcomers else None
        return self.first("fifo") or newcomer, self.first("priority") or newcomer

    def offer(self, now_us: int) -> Offer:
        """Remove the newcomers that have left, and return the offer to the store.

        Args:
            now_us: The monotonic time in µs.
        """
        self._newcomers = [place for place in self._newcomers if place.is_waiting]
        oldest, foremost = self.heads()
        if oldest is None or foremost is None:
            return Offer(self.size)
        return Offer(self.size, len(self._newcomers), now_us - oldest.arrived_us, now_us - foremost.rank_us)

    def add(self, place: QueuePlace) -> None:
        """Count `place`, unless its caller has left."""
        if not place.is_waiting:  # it left while the store decided
            return
        place.is_counted = True
        self.size += 1
        heapq.heappush(self._by_arrival, (place.arrived_us, place.number, place))
        heapq.heappush(self._by_rank, (place.rank_us, place.number, place))

    def first(self, policy: QueuePolicy) -> QueuePlace | None:
        """Return the place that is first by `policy`, if there is one."""
        order = self._by_arrival if policy == "fifo" else self._by_rank
        while order:
            *_, place = order[0]
            if place.is_counted and place.is_waiting:
                return place
            heapq.heappop(order)
            self.count_out(place)  # its caller was cancelled, and its task has not run since
        return None

    def count_out(self, place: QueuePlace) -> None:
        """Stop counting `place`. This has no effect if the place is not counted."""
        if not place.is_counted:
            return
        place.is_counted = False
        self.size -= 1
        for order in (self._by_arrival, self._by_rank):
            if len(order) > 2 * self.size + _SWEEP_ABOVE:
                order[:] = [entry for entry in order if entry[-1].is_counted]
                heapq.heapify(order)
