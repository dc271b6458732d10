"""Paced queue: calls start an interval apart, and those that must wait do so in a bounded, orderly line.

With callers in order, call k starts at max(when it arrived, an interval after call k - 1 did). That is when
they start: they may overlap, so a slow call slows no other.

A caller in line is a future and an entry in each of two heaps; one task of the queue's speaks for all of
them. It asks the store for places and turns, one question at a time, and sleeps until the next turn is due.
"""

import asyncio
import itertools
import logging
import uuid
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Self, TypeVar

from ..clock import Clock
from ..errors import (
    QueueClosedError,
    QueueFullError,
    QueueTimeoutError,
    RejectedError,
)
from ..events import Listener, Rejected, TimedOut, TurnTaken, ignore, notify
from ..policy import Call, require_async
from .options import MAX_SECONDS, PacedQueueOptions, QueuePolicy, check_policy
from .store import Offer, PaceStatus, PaceStore, Turn, Verdict
from .waiting_line import QueuePlace, WaitingLine

T = TypeVar("T")

MAX_PRIORITY = 1000
"""How far a priority may be from 0, either way."""

_log = logging.getLogger(__name__)


class Slot:
    """The right to start one call now, as a context manager around the call.

    If the body does not start a call, it gives the slot back. A body that ends with a `RejectedError` has not
    started its call, because an inner policy rejected it.

    Args:
        pass_on: Called when the slot is given back.
    """

    def __init__(self, pass_on: Callable[[], None]) -> None:
        self._pass_on = pass_on
        self._is_held = True

    def give_back(self) -> None:
        """Let the next caller have the slot. Only the first time has an effect."""
        if self._is_held:
            self._is_held = False
            self._pass_on()

    def __enter__(self) -> Self:
        """Return the slot."""
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Give the slot back after a `RejectedError`."""
        if isinstance(error, RejectedError):
            self.give_back()


class PacedQueue:
    """The policy.

    A caller that is cancelled, or has waited too long, leaves the line at once and costs no turn; one that is
    cancelled just as its turn comes gives it back. So does one whose call an inner policy rejects, since that
    never began: behind an open circuit breaker a worker's first turn serves to tell its whole line.

    A caller whose slot would not come within `max_wait_seconds` is rejected when it arrives. So is every
    caller in the queue for whom `postpone` leaves too little time.

    While the store fails, its error is raised to callers who come; those in line stay there, and it is asked
    again an interval later.

    A queue serves one event loop at a time. When that is over, it serves the next one.

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
        self._line = WaitingLine()
        self._newcomers: list[QueuePlace] = []
        self._unused: list[Turn] = []
        self._is_in_store = False
        self._is_closed = False
        self._stirred = asyncio.Event()
        self._tender: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, call: Call[T], *, priority: int = 0) -> T:
        """Run `call` when its turn has come.

        Args:
            call: What to run.
            priority: Where turns go by priority: lower is sooner. From -1000 to 1000.

        Raises:
            QueueFullError: There is no place in the line.
            QueueTimeoutError: The turn did not come within `max_wait_seconds`, or would not.
            QueueClosedError: The queue was closed.
            ValueError: `priority` is out of its range.
            TypeError: `call` is a plain function; it is not run.
            RuntimeError: The queue serves another event loop.
            BaseException: Whatever the store or the call raised.
        """
        require_async(call)
        with await self.slot(priority=priority):
            return await call()

    async def slot(self, *, priority: int = 0) -> Slot:
        """Wait for a slot and return it. The argument and the errors are those of `run`."""
        if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
            raise ValueError(f"priority must be between -{MAX_PRIORITY} and {MAX_PRIORITY}, not {priority}")
        if self._is_closed:
            raise self._closed_error()
        place = self._join(priority)
        try:
            turn = await place.turn
        except BaseException:
            self._leave(place)
            raise
        slot = Slot(partial(self._give_back, turn))
        try:
            waited_us = self._now_us() - place.arrived_us
            notify(self._listener, TurnTaken(policy=self.name, seconds=waited_us / 1e6))
        except BaseException:
            slot.give_back()
            raise
        return slot

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
        if self._tender is not None and not self._tender.done():
            self._stirred.set()  # for some in line that may be too long

    def close(self) -> None:
        """Turn away everybody in line and whoever comes later. Calls under way go on."""
        self._is_closed = True
        self._refuse_all()
        self._stir()

    async def aclose(self) -> None:
        """Close, and return once the store has been told."""
        self.close()
        if self._tender is not None:
            await self._tender

    # ------------------------------------------------------------ callers come and go

    def _join(self, priority: int) -> QueuePlace:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        now_us = self._now_us()
        rank_us = now_us + round(priority * self._options.aging_seconds * 1e6)
        turn: asyncio.Future[Turn] = loop.create_future()
        place = QueuePlace(turn, now_us, rank_us, next(self._numbers))
        self._newcomers.append(place)
        self._stir()
        return place

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        is_over = self._loop is None or self._loop.is_closed()
        if not is_over and self._tender is not None and not self._tender.done():
            raise RuntimeError(f"{self.name} serves the callers of another event loop")
        self._loop, self._tender = loop, None
        self._stirred = asyncio.Event()
        self._line, self._newcomers = WaitingLine(), []

    def _leave(self, place: QueuePlace) -> None:
        turn = place.turn
        if turn.done() and not turn.cancelled():
            if turn.exception() is None:  # it came in the same tick as the cancellation
                self._give_back(turn.result())
        elif self._is_on_its_loop():
            turn.cancel()  # it is not done where the caller's coroutine was closed
            self._line.count_out(place)
            self._stir()

    def _give_back(self, turn: Turn) -> None:
        self._unused.append(turn)
        self._stir()

    def _refuse_all(self) -> None:
        for place in (*self._line, *self._newcomers):
            self._line.count_out(place)
            if place.is_waiting:
                place.turn.set_exception(self._closed_error())

    def _closed_error(self) -> QueueClosedError:
        retry_after = self._options.interval_seconds  # by then another worker takes calls, or this one anew
        notify(self._listener, Rejected(policy=self.name, retry_after=retry_after))
        return QueueClosedError(self.name, "the queue is closed", retry_after)

    # ------------------------------------------------------------ the one task

    def _stir(self) -> None:
        """Have the store asked now, and not when the next turn is due."""
        if not self._is_on_its_loop():
            return
        self._stirred.set()
        if self._tender is None or self._tender.done():
            # It belongs to no caller: a clean context.
            self._tender = asyncio.create_task(self._tend(), context=Context())

    def _is_on_its_loop(self) -> bool:
        """Return whether this is the queue's event loop: a coroutine may be closed when that is over."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    async def _tend(self) -> None:
        """Ask for places and turns and hand them out, until nobody waits and the store knows."""
        try:
            await self._hand_out_turns()
        except BaseException:  # without this task no caller would ever get a turn or an error
            self._refuse_all()
            raise

    async def _hand_out_turns(self) -> None:
        wait_us = 0
        while self._line.size or self._newcomers or self._unused or self._is_in_store:
            await self._rest(wait_us)
            self._stirred.clear()
            try:
                verdict = await self._ask()
            except Exception as error:  # noqa: BLE001 -- whatever it is, those in line still wait
                _log.warning("%s: the store failed: %r", self.name, error)
                wait_us, no_turn_for_us = self._options.interval_us, 0
            else:
                wait_us, no_turn_for_us = verdict.wait_us, self._no_turn_for_us(verdict)
            wait_us = min(wait_us, self._turn_away_overdue(no_turn_for_us))

    async def _rest(self, us: int) -> None:
        alarm = self._clock.call_later(us / 1e6, self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            alarm.cancel()

    async def _ask(self) -> Verdict:
        """Ask the store once, act on what it says, and return that."""
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
        return verdict

    def _no_turn_for_us(self, verdict: Verdict) -> int:
        """Return for how long no turn comes for certain, in µs: for as long as the line is held up.

        A wait of an interval at most may end sooner, when the turn before is given back.
        """
        options = self._options
        return verdict.wait_us if verdict.wait_us > max(options.interval_us, options.poll_us) else 0

    def _heads(self) -> tuple[QueuePlace | None, QueuePlace | None]:
        """Return who came first and who is first by priority; where nobody is in line, the first newcomer."""
        newcomer = self._newcomers[0] if self._newcomers else None
        return self._line.first("fifo") or newcomer, self._line.first("priority") or newcomer

    def _offer(self, oldest: QueuePlace | None, foremost: QueuePlace | None) -> Offer:
        if oldest is None or foremost is None:
            return Offer(self._line.size)
        now_us = self._now_us()
        return Offer(
            self._line.size, len(self._newcomers), now_us - oldest.arrived_us, now_us - foremost.rank_us
        )

    def _take_newcomers(self, count: int) -> list[QueuePlace]:
        taken, self._newcomers = self._newcomers[:count], self._newcomers[count:]
        return taken

    def _admit(self, newcomers: list[QueuePlace], verdict: Verdict) -> None:
        for place in newcomers[: verdict.admitted]:
            self._line.add(place)
        for place in newcomers[verdict.admitted :]:
            if place.is_waiting:
                notify(self._listener, Rejected(policy=self.name, retry_after=verdict.retry_after))
                place.turn.set_exception(self._refusal(verdict))

    def _refusal(self, verdict: Verdict) -> QueueFullError | QueueTimeoutError:
        if verdict.late_after is None:
            return QueueFullError(self.name, "the line is full", verdict.retry_after)
        return QueueTimeoutError(verdict.late_after, verdict.retry_after)

    def _hand_over(self, turn: Turn, policy: QueuePolicy) -> None:
        place = self._line.first(policy)
        if place is None:  # everybody left while the store was asked
            self._give_back(turn)
        else:
            self._line.count_out(place)
            place.turn.set_result(turn)

    def _turn_away_overdue(self, no_turn_for_us: int) -> int:
        """Tell those who have waited too long, or will have, and return when the next one will have, in µs.

        Args:
            no_turn_for_us: How long no turn will come.
        """
        max_wait_us = self._options.max_wait_us
        while (oldest := self._line.first("fifo")) is not None:
            left_us = oldest.arrived_us + max_wait_us - self._now_us()
            if left_us > 0 and left_us >= no_turn_for_us:
                return left_us
            self._line.count_out(oldest)
            notify(self._listener, TimedOut(policy=self.name, seconds=self._options.max_wait_seconds))
            oldest.turn.set_exception(QueueTimeoutError(self._options.max_wait_seconds))
            self._stirred.set()
        return max_wait_us

    def _now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)
