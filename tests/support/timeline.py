"""Predictions of calls as generators, which yield the seconds that they wait."""

import heapq
import itertools
from collections.abc import Generator, Hashable

from tests.support.calls import CANCELLED

Life = Generator[float, None, object]
"""The prediction of one call. It yields seconds, and returns the answer or the error of the call."""


class Timeline:
    """Runs predictions concurrently, in order of time and then of the start of the wait.

    Attributes:
        now: The time.
        outcomes: The time and the result of the end of each prediction.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.outcomes: dict[Hashable, tuple[float, object]] = {}
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, Hashable, Life]] = []

    def begin(self, who: Hashable, life: Life) -> None:
        self._play(who, life)

    def cancel(self, who: Hashable) -> None:
        """End a prediction that has not ended."""
        if who not in self.outcomes:
            for waiting in [waiting for waiting in self._waiting if waiting[2] == who]:
                self._waiting.remove(waiting)
                waiting[3].close()
            heapq.heapify(self._waiting)
            self.outcomes[who] = self.now, CANCELLED

    def advance_to(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            self.now, _, who, life = heapq.heappop(self._waiting)
            self._play(who, life)
        self.now = now

    def _play(self, who: Hashable, life: Life) -> None:
        try:
            while not (seconds := next(life)):
                pass
        except StopIteration as end:
            self.outcomes[who] = self.now, end.value
        else:
            heapq.heappush(self._waiting, (self.now + seconds, next(self._order), who, life))
