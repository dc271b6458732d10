"""Follows the log of resilience events.

One task for all followers of a worker, the tail, reads the end of the log and wakes the followers. A follower
at another position, because it is slow or has reconnected, reads the log from its own position. A follower
therefore delays nothing, keeps nothing in memory, and can continue on any worker.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context

from src.resilience.clock import Clock
from src.services.errors import ServiceError, StorageUnavailableError
from src.services.events.log import EventLog, LoggedEvent

POLL_SECONDS = 0.5
"""The time between two reads of the end of the log by a worker with followers."""

QUIET_SECONDS = 15.0
"""The longest time without a page, approximately. A follower gets an empty page if there are no events."""

PAGE_EVENTS = 200
"""Events read in one round trip."""

MAX_FOLLOWERS = 32
"""The largest number of followers that one worker serves at a time."""

FOLLOW_SECONDS = 3600.0
"""The longest time for which a follower holds its slot. The follower can then reconnect."""


class TooManyFollowersError(ServiceError):
    """All slots are taken. A slot is free after `retry_after` seconds at the latest."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"all {MAX_FOLLOWERS} slots for followers are taken")
        self.retry_after = retry_after


class EventFeed:
    """Reads and follows the log.

    Args:
        log: The log of all workers.
        clock: The clock for the followers.
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
