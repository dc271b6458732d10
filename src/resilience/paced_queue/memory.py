"""Turns of one process: the `PaceStore` in memory.

The scripts in this folder keep the same rules, and one contract suite holds both to them.
"""

from dataclasses import dataclass, replace

from ..clock import Clock
from .options import PacedQueueOptions, QueuePolicy
from .store import Offer, PaceStatus, Turn, Verdict


@dataclass(frozen=True, slots=True)
class _Line:
    """A worker's line as it was last told. Times are in µs."""

    arrived_us: int
    """When the one who came first did."""
    rank_us: int
    """That of the first by priority."""
    size: int
    due_us: int
    """When the turn is due that it waits for."""
    expires_us: int

    def rank(self, policy: QueuePolicy) -> int:
        return self.arrived_us if policy == "fifo" else self.rank_us


class MemoryPaceStore:
    """Turns of one process, on one event loop. Never suspends, so each decision is atomic.

    Args:
        options: Of the line.
        clock: Its monotonic reading says when a turn is due.
    """

    def __init__(self, options: PacedQueueOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._policy = options.policy
        self._lines: dict[str, _Line] = {}
        self._turns = 0
        self._next_us = self._next_before_us = self._not_before_us = self._now_us()

    async def ask(self, worker: str, offer: Offer) -> Verdict:
        """Take note of a worker's line, give its newcomers places and perhaps it a turn."""
        options, now_us = self._options, self._now_us()
        self._lines.pop(worker, None)
        self._lines = self._live(now_us)
        in_line = sum(line.size for line in self._lines.values())
        mine = _Line(now_us - offer.age_us, now_us - offer.lead_us, offer.size, self._due_us(), now_us)

        has_turn = offer.size + offer.newcomers > 0 and mine.due_us <= now_us and self._is_first(worker, mine)
        first_wait_us = max(options.interval_us if has_turn else 0, self._due_us() - now_us)
        turns_in_time = options.turns_in_time(first_wait_us)
        places = min(options.capacity, turns_in_time) - in_line - max(offer.size - has_turn, 0)
        takes_turn = has_turn and offer.size == 0  # and so no place
        admitted = min(max(places, 0) + takes_turn, offer.newcomers)
        if has_turn:
            self._turns += 1
            self._next_before_us, self._next_us = self._next_us, now_us + options.interval_us

        size, due_us = offer.size + admitted - has_turn, self._due_us()
        if size:
            expires_us = max(now_us, due_us) + options.grace_us
            self._lines[worker] = replace(mine, size=size, due_us=due_us, expires_us=expires_us)
        wait_us = due_us - now_us if due_us > now_us else options.poll_us
        return Verdict(
            admitted,
            Turn(self, self._turns) if has_turn else None,
            self._policy,
            wait_us,
            options.retry_after(in_line + size, wait_us),
            options.max_wait_seconds if turns_in_time < options.capacity else None,
        )

    async def give_back(self, turn: Turn) -> None:
        """Take back a turn that was not used, if it is the last one given."""
        if turn.number == self._turns:
            self._next_us = self._next_before_us

    async def postpone(self, seconds: float) -> None:
        """Give no turn for `seconds`."""
        self._not_before_us = max(self._not_before_us, self._now_us() + round(seconds * 1e6))

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Give turns by `policy` from now on."""
        self._policy = policy

    async def status(self) -> PaceStatus:
        """Return how the line stands."""
        now_us = self._now_us()
        lines = self._live(now_us).values()
        return PaceStatus(
            policy=self._policy,
            size=sum(line.size for line in lines),
            capacity=self._options.capacity,
            oldest_age_seconds=max(((now_us - line.arrived_us) / 1e6 for line in lines), default=None),
            next_turn_seconds=max(0, self._due_us() - now_us) / 1e6,
        )

    def _is_first(self, worker: str, mine: _Line) -> bool:
        rank, now_us = (mine.rank(self._policy), worker), self._now_us()
        # A worker that waits for a later turn, since this one was given back, does not know of it.
        aware = ((line, other) for other, line in self._lines.items() if line.due_us <= now_us)
        return all(rank < (line.rank(self._policy), other) for line, other in aware)

    def _live(self, now_us: int) -> dict[str, _Line]:
        return {worker: line for worker, line in self._lines.items() if line.expires_us > now_us}

    def _due_us(self) -> int:
        return max(self._next_us, self._not_before_us)

    def _now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)
