"""Resilience events for people to watch: all workers write them to one log, and followers read the log.

Recording never delays the call that an event is about: the listener puts the event into a bounded buffer, and
a separate task writes the buffered events in batches. Events that do not fit, or cannot be written because
the log is unavailable, are dropped and counted.

One task for all followers of a worker, the tail, reads the end of the log and wakes the followers. A follower
at another position, because it is slow or has reconnected, reads the log from its own position. A follower
therefore delays nothing, keeps nothing in memory, and can continue on any worker.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Protocol

import orjson

from src.analytics.points import format_seconds
from src.observation.coalescing import is_coalesced
from src.resilience.clock import Clock
from src.resilience.errors import ResilienceError
from src.resilience.events import (
    CacheRefreshed,
    Event,
    Listener,
    Rejected,
    SlotTaken,
    Waited,
    notify,
)
from src.services.errors import ServiceError, StorageUnavailableError
from src.services.external_service import ExternalServiceError, ExternalServiceRefusedError

_log = logging.getLogger(__name__)

BUFFERED_EVENTS = 500
"""The most events of one worker that wait to be written; beyond that, the oldest are dropped."""

GATHER_SECONDS = 0.1
"""How long events gather before they are written, so that many events cost few round trips."""

WAITS_SECONDS = 1.0
"""How long the waits of a policy gather before they are written as one event."""

POLL_SECONDS = 0.5
"""How often a worker with followers reads the end of the log."""

QUIET_SECONDS = 15.0
"""The longest time, about, without a page: a follower gets an empty page when there are no events."""

PAGE_EVENTS = 200
"""Events read in one round trip."""

MAX_FOLLOWERS = 32
"""The most followers that one worker serves at a time."""

FOLLOW_SECONDS = 3600.0
"""How long a follower may follow before it has to reconnect, so that no place is lost for good."""

_OWN_ERRORS = (ResilienceError, ExternalServiceError, ExternalServiceRefusedError)
"""Errors whose messages everybody may read, unless they name a server. Of others, only the class is shown."""


class TooManyFollowersError(ServiceError):
    """All places are taken; after `retry_after` seconds the first place is certainly free."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"{MAX_FOLLOWERS} are following")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event in the log.

    Attributes:
        id: Position in the log. Later events have later positions.
        body: A JSON object: `at`, `worker`, `policy`, `event`, and the details of the event.
    """

    id: str
    body: bytes


class EventLog(Protocol):
    """The last events of all workers. Each method may raise `StorageUnavailableError`."""

    async def append(self, bodies: Sequence[bytes]) -> None:
        """Write events, in order. The oldest events are deleted to make room."""
        ...

    async def read(self, after: str | None, limit: int) -> list[LoggedEvent]:
        """Return up to `limit` events after the position `after`, oldest first; None: from the start.

        The log need not contain the position.
        """
        ...


@dataclass(slots=True)
class _Noted:
    event: Event
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDropped(Event):
    """An event was not written. This event is only counted, never written."""


class EventRecorder:
    """The listener that writes events to the log, except cache hits, misses, refreshes and queue slots.

    Rejections of one policy between two writes become one event with their number in `times`. Waits of one
    policy within `WAITS_SECONDS` become one event too, with the longest wait in `seconds`. A flood of either
    therefore does not push other events out of the log.

    Args:
        log: The log that events are written to.
        clock: Dates the events and paces the writes.
        worker: Distinguishes this process from the other workers.
        listener: Receives each `EventDropped`. This recorder must not be part of the listener.
    """

    def __init__(self, log: EventLog, clock: Clock, worker: int, listener: Listener) -> None:
        self._event_log = log
        self._clock = clock
        self._worker = worker
        self._listener = listener
        self._buffer: deque[_Noted] = deque()
        self._repeated: dict[tuple[type[Event], str], _Noted] = {}
        self._has_some = asyncio.Event()
        self._is_dropping = False
        self._writer: asyncio.Task[None] | None = None

    def __call__(self, event: Event) -> None:
        """Put `event` into the buffer."""
        match event:
            case CacheRefreshed() | SlotTaken():
                return
            case _ if is_coalesced(event):
                return
            case Rejected() | Waited() if buffered := self._repeated.get(_repetition_key(event)):
                buffered.event = _merge(buffered.event, event)
                return
        if len(self._buffer) == BUFFERED_EVENTS:
            oldest = self._buffer.popleft()
            self._repeated.pop(_repetition_key(oldest.event), None)
            self._drop(oldest.event.times)
        noted = _Noted(event, self._clock.now())
        self._buffer.append(noted)
        if isinstance(event, (Rejected, Waited)):
            self._repeated[_repetition_key(event)] = noted
        self._has_some.set()

    def start(self) -> None:
        """Start the task that writes, on the running event loop."""
        self._writer = asyncio.create_task(self._write_on())

    async def aclose(self) -> None:
        """Write the buffer and stop."""
        if self._writer is not None:
            self._writer.cancel()
            with suppress(asyncio.CancelledError):
                await self._writer
        await self._write(all_waits=True)

    async def _write_on(self) -> None:
        while True:
            await self._has_some.wait()
            await self._clock.sleep(GATHER_SECONDS)
            self._has_some.clear()
            await self._write()
            if self._buffer:
                self._has_some.set()

    async def _write(self, *, all_waits: bool = False) -> None:
        oldest_kept = self._clock.now() - WAITS_SECONDS
        gathered: list[_Noted] = []
        kept: deque[_Noted] = deque()
        for noted in self._buffer:
            still_gathers = isinstance(noted.event, Waited) and noted.at > oldest_kept and not all_waits
            (kept if still_gathers else gathered).append(noted)
        if not gathered:
            return
        self._buffer = kept
        self._repeated = {_repetition_key(noted.event): noted for noted in kept}
        try:
            await self._event_log.append([self._body(noted) for noted in gathered])
        except StorageUnavailableError:
            self._drop(
                sum(noted.event.times for noted in gathered)
            )  # whether some were written after all is not known
        else:
            self._is_dropping = False

    def _drop(self, count: int) -> None:
        if not self._is_dropping:
            self._is_dropping = True
            _log.warning("events_dropped")  # the first only; the listener counts them all
        notify(self._listener, EventDropped(policy="event-log", times=count))

    def _body(self, noted: _Noted) -> bytes:
        told = noted.event.details()
        return orjson.dumps({
            "at": format_seconds(noted.at),
            "worker": self._worker,
            "policy": told.pop("policy"),
            "event": type(noted.event).__name__,
            **{name: _plain(value) for name, value in told.items()},
        })  # fmt: skip


class EventFeed:
    """Reads and follows the log.

    Args:
        log: The log of all workers.
        clock: Paces the followers.
    """

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self._event_log = log
        self._clock = clock
        self._places: list[float] = []  # until when each is taken
        self._tail: asyncio.Task[None] | None = None
        self._reached: str | None = None  # up to where the tail has read the log
        self._page: Sequence[LoggedEvent] = ()  # what it read last,
        self._page_after: str | None = None  # which is what comes after this place
        self._news = asyncio.Event()  # set when there is more, and then replaced
        self._is_over = False

    async def recent(self) -> list[LoggedEvent]:
        """Return all events in the log, newest last.

        Raises:
            StorageUnavailableError: The log is unavailable.
        """
        events = page = await self._event_log.read(None, PAGE_EVENTS)
        while len(page) == PAGE_EVENTS:
            page = await self._event_log.read(events[-1].id, PAGE_EVENTS)
            events = events + page
        return events

    @contextmanager
    def place(self) -> Iterator[float]:
        """Hold one of the `MAX_FOLLOWERS` places; the value is for `follow`.

        Raises:
            TooManyFollowersError: No place is free.
        """
        now = self._clock.monotonic()
        if len(self._places) >= MAX_FOLLOWERS:
            raise TooManyFollowersError(min(self._places) + QUIET_SECONDS - now)
        until = now + FOLLOW_SECONDS
        if not self._places:
            self._tail = asyncio.create_task(self._read_on(), context=Context())  # it is no follower's
        self._places.append(until)
        try:
            yield until
        finally:
            self._places.remove(until)
            if not self._places and self._tail is not None:
                self._tail.cancel()
                self._page_after, self._page = self._reached, ()  # for whom comes later it would be old

    async def follow(self, after: str | None, until: float) -> AsyncIterator[Sequence[LoggedEvent]]:
        """Yield the events after the position `after` (None: all), then new events, in pages.

        A page may be empty, so that there is one about every `QUIET_SECONDS`. While the log is unavailable,
        all pages are empty; the missed events follow when the log is available again.

        Args:
            after: The `id` of a `LoggedEvent`.
            until: The value from `place`, whose context must stay open; the end, or `QUIET_SECONDS` later.
        """
        while not self._is_over and self._clock.monotonic() < until:
            news = self._news  # before the reading: what comes during it wakes us as well
            try:
                page = await self._read(after)
            except StorageUnavailableError:
                yield ()
                await self._clock.sleep(POLL_SECONDS)
                continue
            yield page
            if page:
                after = page[-1].id
            if not page or after == self._reached:
                await news.wait()

    def end(self) -> None:
        """End all followers soon: the process received a signal to stop, and waits for them."""
        self._is_over = True

    async def _read(self, after: str | None) -> Sequence[LoggedEvent]:
        """Return a page of events after a position, from the log unless the tail has just read that page."""
        if after == self._reached:
            return ()
        if after == self._page_after:
            return self._page
        return await self._event_log.read(after, PAGE_EVENTS)

    async def _read_on(self) -> None:
        """Run the tail, from the position that the previous tail reached."""
        woken_at = self._clock.monotonic()
        while not self._is_over:
            try:
                page = await self._event_log.read(self._reached, PAGE_EVENTS)
            except StorageUnavailableError:
                page = []
            if page:
                self._page_after, self._page, self._reached = self._reached, page, page[-1].id
            now = self._clock.monotonic()
            if page or now - woken_at >= QUIET_SECONDS:
                self._wake()
                woken_at = now
            if len(page) < PAGE_EVENTS:
                await self._clock.sleep(POLL_SECONDS)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _repetition_key(event: Event) -> tuple[type[Event], str]:
    return type(event), event.policy


def _merge(buffered: Event, event: Event) -> Event:
    """Return one event for two of the same kind and policy."""
    times = buffered.times + event.times
    if isinstance(buffered, Waited) and isinstance(event, Waited):
        return replace(buffered, times=times, seconds=max(buffered.seconds, event.seconds))
    return replace(buffered, times=times)


def _plain(value: object) -> object:
    match value:
        case BaseException():
            name = type(value).__name__
            is_public = isinstance(value, _OWN_ERRORS) and not isinstance(value, StorageUnavailableError)
            return f"{name}: {value}" if is_public else name
        case float():
            return round(value, 3)
    return value
