"""Writes resilience events to the log.

Recording never delays the call that an event is about: the listener puts the event into a bounded buffer, and
a separate task writes the buffered events in batches. Events that do not fit, or cannot be written because
the log is unavailable, are dropped and counted.
"""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace

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
from src.services.errors import StorageUnavailableError
from src.services.events.log import EventLog
from src.services.external_service import ExternalServiceError, ExternalServiceRefusedError

_log = logging.getLogger(__name__)

BUFFERED_EVENTS = 500
"""The largest number of events of one worker that wait to be written; beyond that, the oldest are dropped."""

GATHER_SECONDS = 0.1
"""The time for which events are collected before they are written, so that they need few round trips."""

WAITS_SECONDS = 1.0
"""The time for which the waits of a policy are collected before they are written as one event."""

_PUBLIC_ERRORS = (ResilienceError, ExternalServiceError, ExternalServiceRefusedError)
"""Errors whose messages every client may read, except errors of a store, which can name a server. For other
errors, the event contains only the class."""


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
