"""Paced queue: calls start an interval apart, and those that must wait do so in a bounded, orderly line.

With callers in order, call k starts at max(when it arrived, an interval after call k - 1 did). That is when
they start: they may overlap, so a slow call slows no other.

A caller in line is a future and an entry in each of two heaps; one task of the queue's speaks for all of
them. It asks the store for places and turns, one question at a time, and sleeps until the next turn is due.
"""

import asyncio
import heapq
import itertools
import logging
import uuid
from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass
from typing import TypeVar

from src.resilience.clock import Clock
from src.resilience.errors import (
    QueueClosedError,
    QueueFullError,
    QueueTimeoutError,
    RejectedError,
)
from src.resilience.events import Listener, Rejected, TimedOut, TurnTaken, ignore, notify
from src.resilience.pace_store import (
    MAX_SECONDS,
    Offer,
    PacedQueueOptions,
    PaceStatus,
    PaceStore,
    QueuePolicy,
    Turn,
    Verdict,
    check_policy,
)
from src.resilience.policy import Call

T = TypeVar("T")

MAX_PRIORITY = 1000
"""How far a priority may be from 0, either way."""

_SWEEP_ABOVE = 64
"""Places of callers gone that are never worth sweeping out."""

_log = logging.getLogger(__name__)


class PacedQueue:
    """The policy.

    A caller that is cancelled, or has waited too long, leaves the line at once and costs no turn; one that is
    cancelled just as its turn comes gives it back. So does one whose call an inner policy rejects, since that
    never began: behind an open circuit breaker a worker's first turn serves to tell its whole line.

    While the store fails, its error is raised to callers who come; those in line stay there, and it is asked
    again an interval later.

    Args:
        options: How fast the line moves, how long it may be, and who is next.
        store: Gives out the turns.
        clock: To wait by.
        name: What events and errors call this policy.
        listener: Told of every call that began, was refused, or waited too long.
    """

    def __init__(
        self,
        options: PacedQueueOptions,
        store: PaceStore,
        clock: Clock,
        *,
        name: str = "paced-queue",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._options = options
        self._store = store
        self._clock = clock
        self._listener = listener
        self._worker = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._line = _Line()
        self._newcomers: list[_Place] = []
        self._unused: list[Turn] = []
        self._is_in_store = False
        self._is_closed = False
        self._stirred = asyncio.Event()
        self._tender: asyncio.Task[None] | None = None

    async def run(self, call: Call[T], *, priority: int = 0) -> T:
        """Run `call` when its turn has come.

        Args:
            call: What to run.
            priority: Where turns go by priority: lower is sooner. From -1000 to 1000.

        Raises:
            QueueFullError: There is no place in the line.
            QueueTimeoutError: The turn did not come within `max_wait_seconds`.
            QueueClosedError: The queue was closed.
            ValueError: `priority` is out of its range.
            BaseException: Whatever the store or the call raised.
        """
        if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
            raise ValueError(f"priority must be between -{MAX_PRIORITY} and {MAX_PRIORITY}, not {priority}")
        if self._is_closed:
            raise self._closed_error()
        place = self._join(priority)
        try:
            turn = await place.turn
        except asyncio.CancelledError:
            self._leave(place)
            raise
        waited_us = self._now_us() - place.arrived_us
        notify(self._listener, TurnTaken(policy=self.name, seconds=waited_us / 1e6))
        try:
            return await call()
        except RejectedError:
            self._give_back(turn)
            raise

    async def status(self) -> PaceStatus:
        """Return how the line stands, over all workers."""
        return await self._store.status()

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Give turns by `policy` from now on, in all workers. Nobody loses a place.

        Raises:
            ValueError: There is no such policy.
        """
        check_policy(policy)
        await self._store.set_policy(policy)

    async def postpone(self, seconds: float) -> None:
        """Start no call of any worker for `seconds`, from 0 to a day. It never brings one forward.

        Raises:
            ValueError: `seconds` is out of its range.
        """
        if not 0 <= seconds <= MAX_SECONDS:
            raise ValueError(f"seconds must be between 0 and {MAX_SECONDS:g}, not {seconds}")
        await self._store.postpone(seconds)

    def close(self) -> None:
        """Turn away everybody in line and whoever comes later. Calls under way go on."""
        self._is_closed = True
        for place in (*self._line, *self._newcomers):
            self._line.count_out(place)
            if place.is_waiting:
                place.turn.set_exception(self._closed_error())
        self._stir()

    async def aclose(self) -> None:
        """Close, and return once the store has been told."""
        self.close()
        if self._tender is not None:
            await self._tender

    # ------------------------------------------------------------ callers come and go

    def _join(self, priority: int) -> "_Place":
        now_us = self._now_us()
        rank_us = now_us + round(priority * self._options.aging_seconds * 1e6)
        turn: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        place = _Place(turn, now_us, rank_us, next(self._numbers))
        self._newcomers.append(place)
        self._stir()
        return place

    def _leave(self, place: "_Place") -> None:
        if not place.turn.cancelled():
            if place.turn.exception() is None:  # the turn came in the same tick as the cancellation
                self._give_back(place.turn.result())
            return
        self._line.count_out(place)
        self._stir()

    def _give_back(self, turn: Turn) -> None:
        self._unused.append(turn)
        self._stir()

    def _closed_error(self) -> QueueClosedError:
        retry_after = self._options.interval_seconds  # by then another worker takes calls, or this one anew
        notify(self._listener, Rejected(policy=self.name, retry_after=retry_after))
        return QueueClosedError(self.name, "the queue is closed", retry_after)

    # ------------------------------------------------------------ the one task

    def _stir(self) -> None:
        """Have the store asked now, and not when the next turn is due."""
        self._stirred.set()
        if self._tender is None or self._tender.done():
            # It belongs to no caller: a clean context.
            self._tender = asyncio.create_task(self._tend(), context=Context())

    async def _tend(self) -> None:
        """Ask for places and turns and hand them out, until nobody waits and the store knows."""
        wait_us = 0
        while self._line.size or self._newcomers or self._unused or self._is_in_store:
            await self._rest(wait_us)
            self._stirred.clear()
            try:
                wait_us = await self._ask()
            except Exception as error:  # noqa: BLE001 -- whatever it is, those in line still wait
                _log.warning("%s: the store failed: %r", self.name, error)
                wait_us = self._options.interval_us
            wait_us = min(wait_us, self._turn_away_overdue())

    async def _rest(self, us: int) -> None:
        alarm = self._clock.call_later(us / 1e6, self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            alarm.cancel()

    async def _ask(self) -> int:
        """Ask the store once, act on what it says, and return when to ask again, in µs."""
        self._newcomers = [place for place in self._newcomers if place.is_waiting]
        asking = len(self._newcomers)
        heads = self._heads()
        offer = self._offer(*heads)
        try:
            while self._unused:
                await self._store.give_back(self._unused.pop())
            verdict = await self._store.ask(self._worker, offer)
        except Exception as error:
            self._is_in_store = False  # if it is, that will expire
            for place in self._take_newcomers(asking):
                if place.is_waiting:
                    place.turn.set_exception(error)
            raise
        self._is_in_store = offer.size + verdict.admitted - (verdict.turn is not None) > 0
        self._admit(self._take_newcomers(asking), verdict)
        if verdict.turn is not None:
            self._hand_over(verdict.turn, verdict.policy)
        if self._heads() != heads:  # what the store was told is out of date already
            self._stirred.set()
        return verdict.wait_us

    def _heads(self) -> "tuple[_Place | None, _Place | None]":
        """Return who came first and who is first by priority; where nobody is in line, the first newcomer."""
        newcomer = self._newcomers[0] if self._newcomers else None
        return self._line.first("fifo") or newcomer, self._line.first("priority") or newcomer

    def _offer(self, oldest: "_Place | None", foremost: "_Place | None") -> Offer:
        if oldest is None or foremost is None:
            return Offer(self._line.size)
        now_us = self._now_us()
        return Offer(
            self._line.size, len(self._newcomers), now_us - oldest.arrived_us, now_us - foremost.rank_us
        )

    def _take_newcomers(self, count: int) -> "list[_Place]":
        taken, self._newcomers = self._newcomers[:count], self._newcomers[count:]
        return taken

    def _admit(self, newcomers: "list[_Place]", verdict: Verdict) -> None:
        for place in newcomers[: verdict.admitted]:
            self._line.add(place)
        for place in newcomers[verdict.admitted :]:
            if place.is_waiting:
                notify(self._listener, Rejected(policy=self.name, retry_after=verdict.retry_after))
                place.turn.set_exception(QueueFullError(self.name, "the line is full", verdict.retry_after))

    def _hand_over(self, turn: Turn, policy: QueuePolicy) -> None:
        place = self._line.first(policy)
        if place is None:  # everybody left while the store was asked
            self._give_back(turn)
        else:
            self._line.count_out(place)
            place.turn.set_result(turn)

    def _turn_away_overdue(self) -> int:
        """Tell those who have waited too long, and return when the next one will have, in µs."""
        max_wait_us = self._options.max_wait_us
        while (oldest := self._line.first("fifo")) is not None:
            left_us = oldest.arrived_us + max_wait_us - self._now_us()
            if left_us > 0:
                return left_us
            self._line.count_out(oldest)
            notify(self._listener, TimedOut(policy=self.name, seconds=self._options.max_wait_seconds))
            oldest.turn.set_exception(QueueTimeoutError(self._options.max_wait_seconds))
            self._stirred.set()
        return max_wait_us

    def _now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)


@dataclass(eq=False, slots=True)
class _Place:
    """A caller's, in line or wanted.

    Attributes:
        turn: Done with the turn, with an error, or cancelled: then the caller has left, or is about to.
        arrived_us: When it came.
        rank_us: That, and what its priority adds.
        number: In order of arrival.
        is_counted: Whether it is in line, as the line counts.
    """

    turn: "asyncio.Future[Turn]"
    arrived_us: int
    rank_us: int
    number: int
    is_counted: bool = False

    @property
    def is_waiting(self) -> bool:
        return not self.turn.done()


class _Line:
    """Callers in both orders.

    One that leaves is counted out, and passed over when it comes to the front. When those gone are more than
    those who wait, they are swept out.

    Attributes:
        size: Callers in line.
    """

    def __init__(self) -> None:
        self.size = 0
        self._by_arrival: list[tuple[int, int, _Place]] = []
        self._by_rank: list[tuple[int, int, _Place]] = []

    def __iter__(self) -> Iterator[_Place]:
        return (place for *_, place in self._by_arrival if place.is_counted)

    def add(self, place: _Place) -> None:
        if not place.is_waiting:  # it left while the store was asked
            return
        place.is_counted = True
        self.size += 1
        heapq.heappush(self._by_arrival, (place.arrived_us, place.number, place))
        heapq.heappush(self._by_rank, (place.rank_us, place.number, place))

    def first(self, policy: QueuePolicy) -> _Place | None:
        order = self._by_arrival if policy == "fifo" else self._by_rank
        while order:
            *_, place = order[0]
            if place.is_counted and place.is_waiting:
                return place
            heapq.heappop(order)
        return None

    def count_out(self, place: _Place) -> None:
        if not place.is_counted:
            return
        place.is_counted = False
        self.size -= 1
        for order in (self._by_arrival, self._by_rank):
            if len(order) > 2 * self.size + _SWEEP_ABOVE:
                order[:] = [entry for entry in order if entry[-1].is_counted]
                heapq.heapify(order)
