"""Calls of the proxy's upstream, each shared by the equal requests that wait for it: flights.

A flight belongs to none of them. One that nobody waits for any more leaves the line; once its turn has come
it goes on to its end, and its answer is kept.
"""

import asyncio
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from src.resilience.breaker_store import BreakerState
from src.resilience.cache_store import CacheOptions, CacheStore, Entry
from src.resilience.circuit_breaker import CircuitBreaker
from src.resilience.clock import Clock
from src.resilience.errors import CircuitOpenError, RejectedError
from src.resilience.paced_queue import PacedQueue
from src.resilience.pipeline import Pipeline
from src.resilience.timeout import Timeout
from src.services.proxy_headers import may_be_kept
from src.services.tape import Tape, TapeShelf
from src.services.upstream import Upstream, UpstreamRequest

MAX_KEPT_BYTES = 256 * 1024
"""Of a body that is kept. All copies lie in one Redis, with everything else."""

UNREAD_ANSWERS = 8
"""So many answers of the greatest length may lie in a worker for readers that have not taken all of them yet;
beyond that, the readers of the oldest are cut."""

_SHUT_SECONDS = 30.0
"""When to come back to a breaker that only an order closes; nobody knows."""


class _AnsweredMeanwhileError(RejectedError):
    """A call need not be made: its turn goes to the next one, as that of any call an inner policy refuses."""

    def __init__(self, entry: Entry) -> None:
        super().__init__("proxy", "the same was asked and answered meanwhile", 0)
        self.entry = entry


@dataclass(eq=False, slots=True)
class Flight:
    """One call, in line or under way, and those who wait for it."""

    asked: UpstreamRequest
    priority: int
    key: str | None
    """Of the copies of its answer; None where it is nobody else's."""
    tape: Tape = field(default_factory=Tape)
    entry: Entry | None = None
    """The copy that answered in place of the upstream."""
    turn_came_at: float | None = None
    waiting: int = 0
    task: "asyncio.Task[None] | None" = None

    @property
    def course(self) -> tuple[str | None, int]:
        """What those who share it have in common: who is in more of a hurry waits in no other's place."""
        return self.key, self.priority


class Flights:
    """The calls of one worker.

    Args:
        upstream: Makes them.
        queue: Says when.
        breaker: The upstream's. While it is open, nobody gets a place in line.
        timeout: How long a call may take, to the end of its answer.
        store: Where copies of the answers are kept.
        cache_options: How long.
        clock: Says when a turn came.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        queue: PacedQueue,
        breaker: CircuitBreaker,
        timeout: Timeout,
        store: CacheStore,
        cache_options: CacheOptions,
        clock: Clock,
    ) -> None:
        self._upstream = upstream
        self._queue = queue
        self._breaker = breaker
        self._guards = Pipeline(breaker, timeout)
        self._store = store
        self._cache_options = cache_options
        self._clock = clock
        self._shared: dict[tuple[str | None, int], Flight] = {}
        self._begun: set[Flight] = set()
        self._unread = TapeShelf(UNREAD_ANSWERS * upstream.max_body_bytes)

    async def board(self, wanted: Flight) -> Flight:
        """Return the call to wait for: one in `wanted`'s place, or that, which is begun.

        Raises:
            CircuitOpenError: The breaker is open, and there is none to share.
        """
        found = self._shared.get(wanted.course)
        if found is None:
            await self._refuse_while_open()
            found = self._shared.get(wanted.course)  # another may have begun it meanwhile
        if found is None:
            self._begin(wanted)
        return found or wanted

    @contextmanager
    def waiting_for(self, flight: Flight) -> Iterator[None]:
        """Count as one who waits for `flight`; where the last one leaves before its turn, it ends."""
        flight.waiting += 1
        try:
            yield
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and flight.turn_came_at is None and flight.task is not None:
                self._close_to_others(flight)  # at once, and not when the cancellation is through
                flight.task.cancel()

    async def aclose(self) -> None:
        """Stop every call, in line or under way."""
        tasks = [flight.task for flight in self._begun if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refuse_while_open(self) -> None:
        breaker = await self._breaker.status()
        if breaker.state is BreakerState.OPEN:
            raise CircuitOpenError(breaker.name, "the circuit is open", breaker.retry_after or _SHUT_SECONDS)

    def _begin(self, flight: Flight) -> None:
        flight.task = asyncio.create_task(self._fly(flight))
        flight.task.add_done_callback(lambda _: self._land(flight))
        self._begun.add(flight)
        if flight.key is not None:
            self._shared[flight.course] = flight

    def _land(self, flight: Flight) -> None:
        self._begun.discard(flight)
        self._close_to_others(flight)
        self._unread.put(flight.tape)

    def _close_to_others(self, flight: Flight) -> None:
        if self._shared.get(flight.course) is flight:
            del self._shared[flight.course]

    async def _fly(self, flight: Flight) -> None:
        try:
            await self._queue.run(partial(self._take_turn, flight), priority=flight.priority)
        except _AnsweredMeanwhileError as found:
            flight.entry = found.entry
            flight.tape.unpack(HTTPStatus.OK, found.entry.body)
        except Exception as error:  # noqa: BLE001 -- raised again by whoever reads the tape
            flight.tape.fail(error)

    async def _take_turn(self, flight: Flight) -> None:
        flight.turn_came_at = self._clock.monotonic()
        token = uuid.uuid4().hex
        if flight.key is not None:
            found = await self._store.take_lease(flight.key, token, math.inf, self._cache_options)
            if isinstance(found, Entry):
                raise _AnsweredMeanwhileError(found)
        asked, tape = flight.asked, flight.tape
        kept: bytes | None = None
        try:
            last = await self._guards.run(partial(self._upstream.call, asked, tape))
            head = await tape.head()
            is_small = tape.length + len(last) <= MAX_KEPT_BYTES
            if is_small and head.status == HTTPStatus.OK and may_be_kept(head.headers):
                kept = tape.packed(last)
        finally:
            # Before anybody has the whole answer: who asks again then finds it kept.
            if flight.key is not None and kept is not None:
                await self._store.fill(flight.key, token, kept, self._cache_options)
            elif flight.key is not None:
                await self._store.release(flight.key, token)
        tape.write(last)
        tape.end()
