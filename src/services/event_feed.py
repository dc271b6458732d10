"""The feed of resilience events: all workers write events to one log, and followers read the log.

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
"""The time for which events are collected before they are written, so that they need few round trips."""

WAITS_SECONDS = 1.0
"""The time for which the waits of a policy are collected before they are written as one event."""

POLL_SECONDS = 0.5
"""The time between two reads of the end of the log by a worker with followers."""

QUIET_SECONDS = 15.0
"""The longest time without a page, approximately. A follower gets an empty page if there are no events."""

PAGE_EVENTS = 200
"""Events read in one round trip."""

MAX_FOLLOWERS = 32
"""The most followers that one worker serves at a time."""

FOLLOW_SECONDS = 3600.0
"""The longest time for which a follower holds its slot. The follower can then reconnect."""

_PUBLIC_ERRORS = (ResilienceError, ExternalServiceError, ExternalServiceRefusedError)
"""Errors whose messages every client may read, except errors of a store, which can name a server. For other
errors, the event contains only the class."""


class TooManyFollowersError(ServiceError):
    """All slots are taken. A slot is free after `retry_after` seconds at the latest."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"all {MAX_FOLLOWERS} slots for followers are taken")
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
class _BufferedEvent:
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
        self._buffer: deque[_BufferedEvent] = deque()
        self._mergeable: dict[tuple[type[Event], str], _BufferedEvent] = {}
        self._has_events = asyncio.Event()
        self._is_dropping = False
        self._writer: asyncio.Task[None] | None = None

    def __call__(self, event: Event) -> None:
        """Put `event` into the buffer."""
        match event:
            case CacheRefreshed() | SlotTaken():
                return
            case _ if is_coalesced(event):
                return
            case Rejected() | Waited() if buffered := self._mergeable.get(_merge_key(event)):
                buffered.event = _merge(buffered.event, event)
                return
        if len(self._buffer) == BUFFERED_EVENTS:
            oldest = self._buffer.popleft()
            self._mergeable.pop(_merge_key(oldest.event), None)
            self._drop(oldest.event.times)
        new = _BufferedEvent(event, self._clock.now())
        self._buffer.append(new)
        if isinstance(event, (Rejected, Waited)):
            self._mergeable[_merge_key(event)] = new
        self._has_events.set()

    def start(self) -> None:
        """Start the task that writes, on the running event loop."""
        self._writer = asyncio.create_task(self._write_continuously())

    async def aclose(self) -> None:
        """Write the buffer and stop."""
        if self._writer is not None:
            self._writer.cancel()
            with suppress(asyncio.CancelledError):
                await self._writer
        await self._write(all_waits=True)

    async def _write_continuously(self) -> None:
        while True:
            await self._has_events.wait()
            await self._clock.sleep(GATHER_SECONDS)
            self._has_events.clear()
            await self._write()
            if self._buffer:
                self._has_events.set()

    async def _write(self, *, all_waits: bool = False) -> None:
        kept_since = self._clock.now() - WAITS_SECONDS
        batch: list[_BufferedEvent] = []
        kept: deque[_BufferedEvent] = deque()
        for buffered in self._buffer:
            is_kept = isinstance(buffered.event, Waited) and buffered.at > kept_since and not all_waits
            (kept if is_kept else batch).append(buffered)
        if not batch:
            return
        self._buffer = kept
        self._mergeable = {_merge_key(buffered.event): buffered for buffered in kept}
        try:
            await self._event_log.append([self._body(buffered) for buffered in batch])
        except StorageUnavailableError:  # some of the events may have been written nevertheless
            self._drop(sum(buffered.event.times for buffered in batch))
        else:
            self._is_dropping = False

    def _drop(self, count: int) -> None:
        if not self._is_dropping:
            self._is_dropping = True
            _log.warning("events_dropped")  # only the first is logged; the listener counts every one
        notify(self._listener, EventDropped(policy="event-log", times=count))

    def _body(self, buffered: _BufferedEvent) -> bytes:
        details = buffered.event.details()
        return orjson.dumps({
            "at": format_seconds(buffered.at),
            "worker": self._worker,
            "policy": details.pop("policy"),
            "event": type(buffered.event).__name__,
            **{name: _json_value(value) for name, value in details.items()},
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
        self._slots: list[float] = []  # the time at which each taken slot ends
        self._tail: asyncio.Task[None] | None = None
        self._tail_position: str | None = None  # the position up to which the tail has read the log
        self._page: Sequence[LoggedEvent] = ()  # the last page that the tail read
        self._page_after: str | None = None  # the position after which that page begins
        self._new_events = asyncio.Event()  # set and replaced when there are new events
        self._has_ended = False

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
    def slot(self) -> Iterator[float]:
        """Hold one of the `MAX_FOLLOWERS` slots. The yielded time is the argument `until` of `follow`.

        Raises:
            TooManyFollowersError: No slot is free.
        """
        now = self._clock.monotonic()
        if len(self._slots) >= MAX_FOLLOWERS:
            raise TooManyFollowersError(min(self._slots) + QUIET_SECONDS - now)
        until = now + FOLLOW_SECONDS
        if not self._slots:
            # The tail serves all followers, so it must not inherit the context of one request.
            self._tail = asyncio.create_task(self._run_tail(), context=Context())
        self._slots.append(until)
        try:
            yield until
        finally:
            self._slots.remove(until)
            if not self._slots and self._tail is not None:
                self._tail.cancel()
                self._page_after, self._page = self._tail_position, ()  # the page will be out of date

    async def follow(self, after: str | None, until: float) -> AsyncIterator[Sequence[LoggedEvent]]:
        """Yield the events after the position `after` (None: all), then new events, in pages.

        Without new events, there is an empty page about every `QUIET_SECONDS`. While the log is unavailable,
        all pages are empty; the missed events follow when the log is available again.

        Args:
            after: The `id` of a `LoggedEvent`.
            until: The time from `slot`, whose context must stay open. The last page comes at this time, or up
                to `QUIET_SECONDS` later.
        """
        while not self._has_ended and self._clock.monotonic() < until:
            new_events = self._new_events  # read first, so that events during the read are noticed too
            try:
                page = await self._read(after)
            except StorageUnavailableError:
                yield ()
                await self._clock.sleep(POLL_SECONDS)
                continue
            yield page
            if page:
                after = page[-1].id
            if not page or after == self._tail_position:
                await new_events.wait()

    def end(self) -> None:
        """End all followers soon. Called after a signal to stop, since the process waits for them."""
        self._has_ended = True

    async def _read(self, after: str | None) -> Sequence[LoggedEvent]:
        """Return the page after a position: the tail's last page if it begins there, else from the log."""
        if after == self._tail_position:
            return ()
        if after == self._page_after:
            return self._page
        return await self._event_log.read(after, PAGE_EVENTS)

    async def _run_tail(self) -> None:
        """Read new events and wake the followers, from the position that the previous tail reached."""
        woken_at = self._clock.monotonic()
        while not self._has_ended:
            try:
                page = await self._event_log.read(self._tail_position, PAGE_EVENTS)
            except StorageUnavailableError:
                page = []
            if page:
                self._page_after, self._page = self._tail_position, page
                self._tail_position = page[-1].id
            now = self._clock.monotonic()
            if page or now - woken_at >= QUIET_SECONDS:
                self._wake_followers()
                woken_at = now
            if len(page) < PAGE_EVENTS:
                await self._clock.sleep(POLL_SECONDS)
        self._wake_followers()

    def _wake_followers(self) -> None:
        self._new_events.set()
        self._new_events = asyncio.Event()


def _merge_key(event: Event) -> tuple[type[Event], str]:
    return type(event), event.policy


def _merge(buffered: Event, event: Event) -> Event:
    """Return one event for two of the same kind and policy."""
    times = buffered.times + event.times
    if isinstance(buffered, Waited) and isinstance(event, Waited):
        return replace(buffered, times=times, seconds=max(buffered.seconds, event.seconds))
    return replace(buffered, times=times)


def _json_value(value: object) -> object:
    match value:
        case BaseException():
            name = type(value).__name__
            is_public = isinstance(value, _PUBLIC_ERRORS) and not isinstance(value, StorageUnavailableError)
            return f"{name}: {value}" if is_public else name
        case float():
            return round(value, 3)
    return value
