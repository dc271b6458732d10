"""Recording events without holding anybody up, and following them from wherever one is."""

import asyncio
import dataclasses

import orjson
import pytest

from src.resilience.errors import CallTimeoutError
from src.resilience.events import (
    Bypassed,
    CacheAnswered,
    CacheRefreshed,
    CacheRefreshFailed,
    FellBack,
    Rejected,
    StateChanged,
    TimedOut,
)
from src.services.errors import StorageUnavailableError
from src.services.event_feed import (
    BUFFERED_EVENTS,
    FOLLOW_SECONDS,
    GATHER_SECONDS,
    MAX_FOLLOWERS,
    PAGE_EVENTS,
    POLL_SECONDS,
    EventDropped,
    EventFeed,
    EventRecorder,
    LoggedEvent,
    TooManyFollowersError,
)
from src.services.external_service import ExternalServiceError

AN_EVENT = TimedOut(policy="p", seconds=1.0)


class MemoryLog:
    """An `EventLog` in a list, that can be away."""

    def __init__(self):
        self.events = []
        self.appends = 0
        self.reads = 0
        self.away = False

    async def append(self, bodies):
        self._answer()
        self.appends += 1
        for body in bodies:
            self.events.append(LoggedEvent(str(len(self.events)), body))

    async def read(self, after, limit):
        self._answer()
        self.reads += 1
        start = 0 if after is None else int(after) + 1
        return self.events[start : start + limit]

    def _answer(self):
        if self.away:
            raise StorageUnavailableError("away at redis://secret")

    @property
    def told(self):
        return [orjson.loads(event.body) for event in self.events]


@pytest.fixture
def log():
    return MemoryLog()


@pytest.fixture
async def recorder(log, clock, listener):
    recorder = EventRecorder(log, clock, 4711, listener)
    recorder.start()
    yield recorder
    await recorder.aclose()


@pytest.fixture
def feed(log, clock):
    return EventFeed(log, clock)


class TestRecording:
    async def test_what_gathers_in_a_while_is_written_together(self, recorder, log, clock):
        for seconds in (1.0, 2.0, 3.0):
            recorder(TimedOut(policy="p", seconds=seconds))
        assert log.appends == 0
        await clock.advance(GATHER_SECONDS)
        assert log.appends == 1
        assert [event["seconds"] for event in log.told] == [1.0, 2.0, 3.0]
        recorder(AN_EVENT)
        await clock.advance(GATHER_SECONDS)
        assert log.appends == 2

    async def test_an_event_tells_when_where_who_and_what(self, recorder, log, clock):
        recorder(StateChanged(policy="external-service", before="CLOSED", after="OPEN", reason="5 in a row"))
        await clock.advance(GATHER_SECONDS)
        assert log.told == [
            {
                "at": "2027-01-15T08:00:00Z",
                "worker": 4711,
                "policy": "external-service",
                "event": "StateChanged",
                "before": "CLOSED",
                "after": "OPEN",
                "reason": "5 in a row",
            }
        ]

    async def test_of_errors_that_are_not_ours_only_the_kind_is_told(self, recorder, log, clock):
        for error in (
            ExternalServiceError("status 500"),
            CallTimeoutError(5),
            StorageUnavailableError("no route to redis://secret"),
            OSError("/run/secret.sock"),
        ):
            recorder(FellBack(policy="p", error=error))
        await clock.advance(GATHER_SECONDS)
        assert [event["error"] for event in log.told] == [
            "ExternalServiceError: status 500",
            "CallTimeoutError: the call took longer than 5 s",
            "StorageUnavailableError",
            "OSError",
        ]

    async def test_a_caches_daily_business_is_no_news(self, recorder, log, clock):
        recorder(CacheAnswered(policy="summary", outcome="hit"))
        recorder(CacheAnswered(policy="summary", outcome="miss"))
        recorder(CacheRefreshed(policy="summary", early=True))
        recorder(CacheAnswered(policy="summary", outcome="stale"))
        recorder(CacheRefreshFailed(policy="summary", error=OSError()))
        recorder(Bypassed(policy="ingest", error=OSError()))
        await clock.advance(GATHER_SECONDS)
        assert [event["event"] for event in log.told] == ["CacheAnswered", "CacheRefreshFailed", "Bypassed"]

    async def test_while_the_log_is_away_events_are_dropped_and_counted(
        self, recorder, log, clock, listener, caplog
    ):
        caplog.set_level("WARNING", "src.services.event_feed")
        log.away = True
        for _ in range(3):
            recorder(AN_EVENT)
            await clock.advance(GATHER_SECONDS)
        assert listener.events == [EventDropped(policy="event-log")] * 3
        assert [record.getMessage() for record in caplog.records] == ["events_dropped"]
        log.away = False
        recorder(AN_EVENT)
        await clock.advance(GATHER_SECONDS)
        assert len(log.events) == 1
        assert len(listener.events) == 3

    async def test_refusals_that_gather_are_one_event_with_a_count(self, recorder, log, clock):
        for policy in ("ingest", "read", "ingest", "ingest"):
            recorder(Rejected(policy=policy, retry_after=1.0))
        await clock.advance(GATHER_SECONDS)
        assert [(told["policy"], told.get("times")) for told in log.told] == [("ingest", 3), ("read", None)]
        recorder(Rejected(policy="ingest", retry_after=1.0))
        await clock.advance(GATHER_SECONDS)
        assert "times" not in log.told[-1], "the next gathering counts anew"

    async def test_a_refusal_that_was_dropped_is_not_counted_on(self, recorder, log, clock, listener):
        refusal = Rejected(policy="ingest", retry_after=1.0)
        for event in (refusal, refusal, *[AN_EVENT] * BUFFERED_EVENTS, refusal):
            recorder(event)
        await clock.advance(GATHER_SECONDS)
        assert log.told[-1]["policy"] == "ingest"
        assert "times" not in log.told[-1]
        assert sum(isinstance(event, EventDropped) for event in listener.events) == 3

    async def test_of_too_many_the_oldest_are_dropped_and_counted(self, recorder, log, clock, listener):
        for n in range(BUFFERED_EVENTS + 7):
            recorder(dataclasses.replace(AN_EVENT, seconds=float(n)))
        await clock.advance(GATHER_SECONDS)
        assert [event["seconds"] for event in log.told] == [n + 7 for n in range(BUFFERED_EVENTS)]
        assert listener.events == [EventDropped(policy="event-log")] * 7

    async def test_what_is_left_at_the_end_is_written(self, log, clock, listener):
        recorder = EventRecorder(log, clock, 1, listener)
        recorder.start()
        recorder(AN_EVENT)
        await recorder.aclose()
        assert len(log.events) == 1


class Following:
    """Follows in the background and keeps the bodies that came."""

    def __init__(self, feed, after=None, until=FOLLOW_SECONDS):
        self.bodies = []
        self.task = asyncio.create_task(self._follow(feed, after, until))

    async def _follow(self, feed, after, until):
        async for page in feed.follow(after, until):
            self.bodies += [event.body for event in page]


class TestReading:
    async def test_recent_is_all_there_is_newest_last(self, feed, log):
        written = [b"%d" % n for n in range(2 * PAGE_EVENTS)]
        assert await feed.recent() == []
        await log.append(written)
        assert [event.body for event in await feed.recent()] == written

    async def test_a_follower_gets_what_is_there_and_then_what_comes(self, feed, log, clock):
        written = [b"%d" % n for n in range(PAGE_EVENTS + 1)]
        await log.append(written)
        following = Following(feed)
        await clock.advance(0)
        assert following.bodies == written
        await log.append([b"next"])
        await clock.advance(POLL_SECONDS)
        assert following.bodies == [*written, b"next"]
        following.task.cancel()

    async def test_followers_at_the_same_place_share_a_reading(self, feed, log, clock):
        following = []
        for _ in range(20):
            following.append(Following(feed))
            await clock.advance(POLL_SECONDS / 50)
        log.reads = 0
        await log.append([b"1"])
        await clock.advance(2 * POLL_SECONDS)
        assert [each.bodies for each in following] == [[b"1"]] * 20
        assert log.reads <= 6, "twenty alone would have asked forty times"
        leaving, *staying = following
        leaving.task.cancel()
        await log.append([b"2"])
        await clock.advance(2 * POLL_SECONDS)
        assert [each.bodies for each in staying] == [[b"1", b"2"]] * 19
        for each in staying:
            each.task.cancel()

    async def test_one_that_comes_back_goes_on_where_it_was(self, feed, log, clock):
        await log.append([b"1", b"2", b"3"])
        following = Following(feed, after=log.events[1].id)
        await clock.advance(0)
        assert following.bodies == [b"3"]
        following.task.cancel()

    async def test_an_outage_is_a_pause(self, feed, log, clock):
        following = Following(feed)
        await log.append([b"1"])
        await clock.advance(POLL_SECONDS)
        log.away = True
        await clock.advance(10 * POLL_SECONDS)
        log.away = False
        await log.append([b"2"])
        await clock.advance(POLL_SECONDS)
        assert following.bodies == [b"1", b"2"]
        following.task.cancel()

    async def test_following_ends_in_time(self, feed, clock):
        with feed.place() as until:
            following = Following(feed, until=until)
            await clock.advance(FOLLOW_SECONDS)
            await following.task

    async def test_following_ends_when_the_process_does(self, feed, clock):
        following = Following(feed)
        await clock.advance(0)
        feed.end()
        await clock.advance(POLL_SECONDS)
        await following.task

    async def test_places_are_limited_and_come_back(self, feed, clock):
        held = [feed.place() for _ in range(MAX_FOLLOWERS)]
        for place in held:
            place.__enter__()
            await clock.advance(1)
        with pytest.raises(TooManyFollowersError) as refused, feed.place():
            pass
        assert refused.value.retry_after == FOLLOW_SECONDS - MAX_FOLLOWERS
        held[3].__exit__(None, None, None)
        with feed.place():
            pass
