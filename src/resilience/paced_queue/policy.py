"""The paced queue: calls start at least one interval apart, and callers wait in a bounded, ordered queue.

In the order of the queue, call k starts at max(its arrival, start of call k - 1 + interval). Calls may
overlap, so that a slow call delays no other call.

A waiting caller is a future and an entry in each of two heaps. One task, the worker, acts for all callers: it
sends one offer at a time to the store, passes the assigned slots to callers, and sleeps until the next slot
is due.
"""

import asyncio
import itertools
import logging
import uuid
from contextvars import Context
from functools import partial
from typing import TypeVar

from ..building_blocks.outcomes import report_outcomes
from ..building_blocks.permit import BlockPolicy
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import (
    QueueClosedError,
    QueueFullError,
    QueueTimeoutError,
)
from ..events import Listener, Rejected, SlotTaken, TimedOut, ignore, notify
from ..policy import Call, require_async
from .held_slot import HeldSlot
from .options import MAX_SECONDS, PacedQueueOptions, QueuePolicy, check_policy
from .store import PaceStatus, PaceStore, Slot, SlotDecision
from .waiting_queue import QueuePlace, WaitingQueue

T = TypeVar("T")

MAX_PRIORITY = 1000
"""The largest distance of a priority from 0."""

_log = logging.getLogger(__name__)


class PacedQueue(BlockPolicy):
    """A policy that starts calls at a given pace. Callers wait for their slots in a queue.

    A caller that is cancelled, or has waited too long, leaves the queue at once and uses no slot. A caller
    that is cancelled when it gets its slot gives the slot back. So does a caller whose call is rejected by an
    inner policy, because that call did not start. If an inner circuit breaker is open, one slot is therefore
    enough to reject all callers of a worker.

    A caller whose slot would not come within `max_wait_seconds` is rejected when it arrives. So is every
    caller in the queue for whom `postpone` leaves too little time.

    While the store fails, new callers get its error. Callers in the queue stay there, and the next offer is
    sent after an interval.

    A queue serves one event loop at a time. When that loop is closed, the queue serves the next one.

    Args:
        options: The pace of the queue, its length, and the order of its callers.
        store: Assigns the slots.
        clock: Measures the waiting time, and sleeps.
        name: The policy's name in events and errors.
        listener: Receives an event for each call that began, was rejected, or waited too long.
    """

    def __init__(
        self,
        options: PacedQueueOptions,
        store: PaceStore,
        clock: Clock = SYSTEM_CLOCK,
        *,
        name: str = "paced-queue",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._options = options
        self._store = store
        self._clock = clock
        self._listener = listener
        self._worker_name = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._queue = WaitingQueue()
        self._unused: list[Slot] = []
        self._is_in_store = False
        self._is_closed = False
        self._has_changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        report_outcomes(self, clock, listener)

    async def run(self, call: Call[T], *, priority: int = 0) -> T:
        """Run `call` as soon as it has a slot.

        Args:
            call: The call.
            priority: From -1000 (first) to 1000 (last). It has an effect if slots are assigned by priority.

        Raises:
            QueueFullError: There is no place in the queue.
            QueueTimeoutError: The slot did not come within `max_wait_seconds`, or would not.
            QueueClosedError: The queue is closed.
            ValueError: `priority` is out of its range.
            TypeError: `call` is a plain function; it is not run.
            RuntimeError: The queue serves another event loop.
            BaseException: The error of the store or of the call.
        """
        require_async(call)
        with await self.slot(priority=priority):
            return await call()

    async def slot(self, *, priority: int = 0) -> HeldSlot:
        """Wait for a slot and return it. The argument and the errors are those of `run`."""
        if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
            raise ValueError(f"priority must be between -{MAX_PRIORITY} and {MAX_PRIORITY}, not {priority}")
        if self._is_closed:
            raise self._closed_error()
        place = self._join(priority)
        try:
            slot = await place.slot
        except BaseException:
            self._leave(place)
            raise
        held = HeldSlot(partial(self._give_back, slot))
        try:
            waited_us = self._now_us() - place.arrived_us
            notify(self._listener, SlotTaken(policy=self.name, seconds=waited_us / 1e6))
        except BaseException:
            held.give_back()
            raise
        return held

    async def status(self) -> PaceStatus:
        """Return the state of the queue, over all workers."""
        return await self._store.status()

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Assign slots by `policy` from now on, in all workers. No caller loses its place.

        Raises:
            ValueError: There is no such policy.
        """
        check_policy(policy)
        await self._store.set_policy(policy)

    async def postpone(self, seconds: float) -> None:
        """Start no call of any worker for `seconds`, from 0 to a day. It never makes a call start sooner.

        Raises:
            ValueError: `seconds` is out of its range.
        """
        if not 0 <= seconds <= MAX_SECONDS:
            raise ValueError(f"seconds must be between 0 and {MAX_SECONDS:g}, not {seconds}")
        await self._store.postpone(seconds)
        if self._worker is not None and not self._worker.done():
            self._has_changed.set()  # the delay may be too long for some callers

    def close(self) -> None:
        """Reject all callers in the queue and all later ones. Running calls continue."""
        self._is_closed = True
        self._reject_all()
        self._wake_worker()

    async def aclose(self) -> None:
        """Close the queue, and wait until the store has recorded that this worker's queue is empty."""
        self.close()
        if self._worker is not None:
            await self._worker

    # ------------------------------------------------------------ arrival and end of callers

    def _join(self, priority: int) -> QueuePlace:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        now_us = self._now_us()
        rank_us = now_us + round(priority * self._options.aging_seconds * 1e6)
        slot: asyncio.Future[Slot] = loop.create_future()
        place = QueuePlace(slot, now_us, rank_us, next(self._numbers))
        self._queue.join(place)
        self._wake_worker()
        return place

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        is_over = self._loop is None or self._loop.is_closed()
        if not is_over and self._worker is not None and not self._worker.done():
            raise RuntimeError(f"{self.name} serves the callers of another event loop")
        self._loop, self._worker = loop, None
        self._has_changed = asyncio.Event()
        self._queue = WaitingQueue()

    def _leave(self, place: QueuePlace) -> None:
        slot = place.slot
        if slot.done() and not slot.cancelled():
            if slot.exception() is None:  # the slot was assigned in the same tick as the cancellation
                self._give_back(slot.result())
        elif self._is_on_its_loop():
            slot.cancel()  # after the caller's coroutine was closed, the future is still pending
            self._queue.count_out(place)
            self._wake_worker()

    def _give_back(self, slot: Slot) -> None:
        self._unused.append(slot)
        self._wake_worker()

    def _reject_all(self) -> None:
        for place in self._queue:
            self._queue.count_out(place)
            if place.is_waiting:
                place.slot.set_exception(self._closed_error())

    def _closed_error(self) -> QueueClosedError:
        retry_after = self._options.interval_seconds  # by then another worker accepts calls
        notify(self._listener, Rejected(policy=self.name, retry_after=retry_after))
        return QueueClosedError(self.name, "the queue is closed", retry_after)

    # ------------------------------------------------------------ the worker, one task

    def _wake_worker(self) -> None:
        """Make the worker send an offer now instead of at the due time of the next slot."""
        if not self._is_on_its_loop():
            return
        self._has_changed.set()
        if self._worker is None or self._worker.done():
            # The task serves all callers: it must not inherit the context variables of one of them.
            self._worker = asyncio.create_task(self._work(), context=Context())

    def _is_on_its_loop(self) -> bool:
        """Return whether the queue's event loop runs: a coroutine may be closed after the end of its loop."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    async def _work(self) -> None:
        """Send offers and assign slots until no caller waits and the store has recorded this."""
        try:
            await self._assign_slots()
        except BaseException:  # without this task no caller would ever get a slot or an error
            self._reject_all()
            raise

    async def _assign_slots(self) -> None:
        wait_us = 0
        while self._queue.has_callers or self._unused or self._is_in_store:
            await self._rest(wait_us)
            self._has_changed.clear()
            try:
                decision = await self._send_offer()
            except Exception as error:  # noqa: BLE001 -- the callers in the queue must not fail with the store
                _log.warning("%s: the store failed: %r", self.name, error)
                wait_us, no_slot_for_us = self._options.interval_us, 0
            else:
                wait_us, no_slot_for_us = decision.wait_us, self._no_slot_for_us(decision)
            wait_us = min(wait_us, self._reject_overdue(no_slot_for_us))

    async def _rest(self, us: int) -> None:
        alarm = self._clock.call_later(us / 1e6, self._has_changed.set)
        try:
            await self._has_changed.wait()
        finally:
            alarm.cancel()

    async def _send_offer(self) -> SlotDecision:
        """Send one offer to the store, apply its decision, and return the decision."""
        queue = self._queue
        offer = queue.offer(self._now_us())
        heads = queue.heads()
        try:
            while self._unused:
                await self._store.give_back(self._unused.pop())
            decision = await self._store.ask(self._worker_name, offer)
        except Exception as error:
            self._is_in_store = False  # if the store has recorded the offer, it expires
            for place in queue.take_newcomers(offer.newcomers):
                if place.is_waiting:
                    place.slot.set_exception(error)
            raise
        self._is_in_store = offer.size + decision.admitted - (decision.slot is not None) > 0
        self._admit(queue.take_newcomers(offer.newcomers), decision)
        if decision.slot is not None:
            self._hand_over(decision.slot, decision.policy)
        if queue.heads() != heads:  # the offer in the store is outdated
            self._has_changed.set()
        return decision

    def _no_slot_for_us(self, decision: SlotDecision) -> int:
        """Return the µs for which the queue is postponed, so that no slot can be assigned.

        A wait of at most an interval may end sooner, if the previous slot is given back.
        """
        options = self._options
        return decision.wait_us if decision.wait_us > max(options.interval_us, options.poll_us) else 0

    def _admit(self, newcomers: list[QueuePlace], decision: SlotDecision) -> None:
        for place in newcomers[: decision.admitted]:
            self._queue.add(place)
        for place in newcomers[decision.admitted :]:
            if place.is_waiting:
                notify(self._listener, Rejected(policy=self.name, retry_after=decision.retry_after))
                place.slot.set_exception(self._rejection(decision))

    def _rejection(self, decision: SlotDecision) -> QueueFullError | QueueTimeoutError:
        if decision.late_after is None:
            return QueueFullError(self.name, "the queue is full", decision.retry_after)
        return QueueTimeoutError(decision.late_after, decision.retry_after)

    def _hand_over(self, slot: Slot, policy: QueuePolicy) -> None:
        place = self._queue.first(policy)
        if place is None:  # all callers left while the store decided
            self._give_back(slot)
        else:
            self._queue.count_out(place)
            place.slot.set_result(slot)

    def _reject_overdue(self, no_slot_for_us: int) -> int:
        """Reject callers whose longest wait has ended, or will end before a slot can be assigned.

        Args:
            no_slot_for_us: The time for which no slot can come.

        Returns:
            The µs until the longest wait of the next caller ends.
        """
        max_wait_us = self._options.max_wait_us
        while (oldest := self._queue.first("fifo")) is not None:
            left_us = oldest.arrived_us + max_wait_us - self._now_us()
            if left_us > 0 and left_us >= no_slot_for_us:
                return left_us
            self._queue.count_out(oldest)
            notify(self._listener, TimedOut(policy=self.name, seconds=self._options.max_wait_seconds))
            oldest.slot.set_exception(QueueTimeoutError(self._options.max_wait_seconds))
            self._has_changed.set()
        return max_wait_us

    def _now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)
