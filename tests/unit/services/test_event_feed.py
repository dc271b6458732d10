"""Recording events without delays, and following them from any position."""

import asyncio
import dataclasses
import math
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.resilience.errors import CallTimeoutError
from src.resilience.events import (
    Bypassed,
    CacheAnswered,
    CacheRefreshed,
    CacheRefreshFailed,
    FellBack,
    Rejected,
    SlotTaken,
    StateChanged,
    TimedOut,
    Waited,
)
from src.services.errors import StorageUnavailableError
from src.services.events.feed import (
    FOLLOW_SECONDS,
    MAX_FOLLOWERS,
    PAGE_EVENTS,
    POLL_SECONDS,
    QUIET_SECONDS,
    EventFeed,
    TooManyFollowersError,
)
from src.services.events.log import LoggedEvent
from src.services.events.recorder import BUFFERED_EVENTS, GATHER_SECONDS, EventDropped, EventRecorder
from src.services.external_service import ExternalServiceError
from tests.support.clock import FakeClock, settle
from tests.support.examples import examples

AN_EVENT = TimedOut(policy="p", seconds=1.0)


class MemoryLog:
    """An `EventLog` in a list, which a test can make unavailable."""

    def __init__(self):
        self.events = []
        self.appends = 0
        self.reads = 0
        self.is_unavailable = False
        self.forgotten = 0

    async def append(self, bodies):
        self._raise_if_unavailable()
        self.appends += 1
        for body in bodies:
            self.events.append(LoggedEvent(str(len(self.events)), body))

    async def read(self, after, limit):
        self._raise_if_unavailable()
        self.reads += 1
        start = max(self.forgotten, 0 if after is None else int(after) + 1)
        return self.events[start : start + limit]

    def _raise_if_unavailable(self):
        if self.is_unavailable:
            raise StorageUnavailableError("unavailable at redis://secret")

    @property
    def bodies(self):
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
    async def test_events_of_a_short_time_are_written_together(self, recorder, log, clock):
        for seconds in (1.0, 2.0, 3.0):
            recorder(TimedOut(policy="p", seconds=seconds))
        assert log.appends == 0
        await clock.advance(GATHER_SECONDS)
        assert log.appends == 1
        assert [event["seconds"] for event in log.bodies] == [1.0, 2.0, 3.0]
        recorder(AN_EVENT)
        await clock.advance(GATHER_SECONDS)
        assert log.appends == 2

    async def test_an_event_has_its_time_worker_policy_and_details(self, recorder, log, clock):
        recorder(StateChanged(policy="external-service", before="CLOSED", after="OPEN", reason="5 in a row"))
        await clock.advance(GATHER_SECONDS)
        assert log.bodies == [
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

    async def test_for_foreign_errors_only_the_class_is_shown(self, recorder, log, clock):
        for error in (
            ExternalServiceError("status 500"),
            CallTimeoutError(5),
            StorageUnavailableError("no route to redis://secret"),
            OSError("/run/secret.sock"),
        ):
            recorder(FellBack(policy="p", error=error))
        await clock.advance(GATHER_SECONDS)
        assert [event["error"] for event in log.bodies] == [
            "ExternalServiceError: status 500",
            "CallTimeoutError: the call took longer than 5 s",
            "StorageUnavailableError",
            "OSError",
        ]

    async def test_cache_hits_and_misses_are_not_written_to_the_log(self, recorder, log, clock):
        recorder(CacheAnswered(policy="summary", outcome="hit"))
        recorder(CacheAnswered(policy="summary", outcome="miss"))
        recorder(CacheRefreshed(policy="summary", early=True))
        recorder(SlotTaken(policy="proxy", seconds=1.0))
        recorder(CacheAnswered(policy="summary", outcome="stale"))
        recorder(CacheRefreshFailed(policy="summary", error=OSError()))
        recorder(Bypassed(policy="ingest", error=OSError()))
        await clock.advance(GATHER_SECONDS)
        assert [event["event"] for event in log.bodies] == [
            "CacheAnswered",
            "CacheRefreshFailed",
            "Bypassed",
        ]

    async def test_while_the_log_is_unavailable_events_are_dropped_and_counted(
        self, recorder, log, clock, listener, caplog
    ):
        caplog.set_level("WARNING", "src.services.events.recorder")
        log.is_unavailable = True
        for _ in range(3):
            recorder(AN_EVENT)
            await clock.advance(GATHER_SECONDS)
        assert listener.events == [EventDropped(policy="event-log")] * 3
        assert [record.getMessage() for record in caplog.records] == ["events_dropped"]
        log.is_unavailable = False
        recorder(AN_EVENT)
        await clock.advance(GATHER_SECONDS)
        assert len(log.events) == 1
        assert len(listener.events) == 3

    async def test_rejections_are_merged_into_one_event_with_a_count(self, recorder, log, clock):
        for policy in ("ingest", "read", "ingest", "ingest"):
            recorder(Rejected(policy=policy, retry_after=1.0))
        await clock.advance(GATHER_SECONDS)
        assert [(body["policy"], body.get("times")) for body in log.bodies] == [
            ("ingest", 3),
            ("read", None),
        ]
        recorder(Rejected(policy="ingest", retry_after=1.0))
        await clock.advance(GATHER_SECONDS)
        assert "times" not in log.bodies[-1], "the next event has a new count"
        for times in (20, 3):
            recorder(Rejected(policy="ingest", times=times, retry_after=1.0))
        await clock.advance(GATHER_SECONDS)
        assert log.bodies[-1]["times"] == 23

    async def test_waits_of_a_policy_are_one_event_with_a_count_and_the_longest_wait(
        self, recorder, log, clock
    ):
        for seconds in (0.2, 0.5, 0.1):
            recorder(Waited(policy="limiter", seconds=seconds))
        recorder(Waited(policy="bulkhead", seconds=3.0))
        recorder(Rejected(policy="bulkhead", retry_after=1.0))
        await clock.advance(GATHER_SECONDS)
        assert [event["event"] for event in log.bodies] == ["Rejected"], "waits are merged over a longer time"
        recorder(Waited(policy="limiter", seconds=0.3))
        for _ in range(11):
            await clock.advance(GATHER_SECONDS)
        body = [
            (event["policy"], event["event"], event.get("times"), event.get("seconds"))
            for event in log.bodies
        ]
        assert body == [
            ("bulkhead", "Rejected", None, None), ("limiter", "Waited", 4, 0.5),
            ("bulkhead", "Waited", None, 3.0),
        ]  # fmt: skip

    async def test_a_dropped_rejection_is_decided_again(self, recorder, log, clock, listener):
        refusal = Rejected(policy="ingest", retry_after=1.0)
        for event in (refusal, refusal, *[AN_EVENT] * BUFFERED_EVENTS, refusal):
            recorder(event)
        await clock.advance(GATHER_SECONDS)
        assert log.bodies[-1]["policy"] == "ingest"
        assert "times" not in log.bodies[-1]
        assert sum(event.times for event in listener.of(EventDropped)) == 3

    async def test_when_the_buffer_is_full_the_oldest_events_are_dropped_and_counted(
        self, recorder, log, clock, listener
    ):
        for n in range(BUFFERED_EVENTS + 7):
            recorder(dataclasses.replace(AN_EVENT, seconds=float(n)))
        await clock.advance(GATHER_SECONDS)
        assert [event["seconds"] for event in log.bodies] == [n + 7 for n in range(BUFFERED_EVENTS)]
        assert listener.events == [EventDropped(policy="event-log")] * 7

    async def test_closing_writes_the_buffered_events(self, log, clock, listener):
        recorder = EventRecorder(log, clock, 1, listener)
        recorder.start()
        recorder(AN_EVENT)
        await recorder.aclose()
        assert len(log.events) == 1


class Follower:
    """Follows a feed in the background, and keeps the received bodies.

    Args:
        feed: The feed.
        after: The position after which the follower begins.
        is_slow: Whether the follower stops reading until `may_read` is set.
    """

    def __init__(self, feed, after=None, *, is_slow=False):
        self.bodies = []
        self.empty_pages = 0
        self.may_read = asyncio.Event()
        if not is_slow:
            self.may_read.set()
        self.task = asyncio.create_task(self._follow(feed, after))

    async def _follow(self, feed, after):
        with feed.slot() as until:
            async for page in feed.follow(after, until):
                assert len(page) <= PAGE_EVENTS
                self.bodies += [event.body for event in page]
                self.empty_pages += not page
                await self.may_read.wait()

    async def leave(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def follow(feed, clock):
    """Follow `feed`, and end all followers after the test."""
    followings = []

    async def begin(after=None, **options):
        followings.append(Follower(feed, after, **options))
        await clock.advance(0)
        return followings[-1]

    yield begin
    for following in followings:
        await following.leave()


class TestReading:
    async def test_recent_returns_the_whole_log_newest_last(self, feed, log):
        written = [b"%d" % n for n in range(2 * PAGE_EVENTS)]
        assert await feed.recent() == []
        await log.append(written)
        assert [event.body for event in await feed.recent()] == written

    async def test_a_follower_gets_past_events_and_then_new_events(self, follow, log, clock):
        written = [b"%d" % n for n in range(PAGE_EVENTS + 1)]
        await log.append(written)
        following = await follow()
        assert following.bodies == written
        await log.append([b"next"])
        await clock.advance(POLL_SECONDS)
        assert following.bodies == [*written, b"next"]

    async def test_for_all_followers_the_log_is_read_once(self, follow, log, clock):
        followings = [await follow() for _ in range(20)]
        log.reads = followings[-1].empty_pages = 0
        for n in range(10):
            await log.append([b"%d" % n])
            await clock.advance(POLL_SECONDS)
        assert [each.bodies for each in followings] == [[b"%d" % n for n in range(10)]] * 20
        assert log.reads == 10
        assert followings[-1].empty_pages == 0, "no empty page is needed between events"
        leaving, *staying = followings
        await leaving.leave()
        await log.append([b"more"])
        await clock.advance(POLL_SECONDS)
        assert {each.bodies[-1] for each in staying} == {b"more"}

    async def test_a_log_without_followers_is_not_read(self, follow, log, clock):
        first, last = await follow(), await follow()
        await first.leave()
        await clock.advance(POLL_SECONDS)
        await last.leave()
        log.reads = 0
        await clock.advance(10 * POLL_SECONDS)
        assert log.reads == 0
        await log.append([b"1"])
        assert (await follow()).bodies == [b"1"]

    async def test_a_follower_that_reconnects_continues_at_its_position(self, follow, log, clock):
        await log.append([b"1", b"2", b"3"])
        await follow()
        following = await follow(after=log.events[1].id)
        assert following.bodies == [b"3"]
        await log.append([b"4"])
        await clock.advance(POLL_SECONDS)
        assert following.bodies == [b"3", b"4"]

    async def test_a_follower_with_an_unknown_position_does_not_affect_others(self, follow, log, clock):
        await log.append([b"1"])
        at_unknown_position = await follow(after="1000000")
        following = await follow()
        await log.append([b"2"])
        await clock.advance(POLL_SECONDS)
        assert following.bodies == [b"1", b"2"]
        assert at_unknown_position.bodies == []

    async def test_a_slow_follower_delays_no_other_and_misses_no_event(self, follow, log, clock):
        following = await follow()
        slow = await follow(is_slow=True)
        written = []
        for n in range(2 * PAGE_EVENTS):
            written += [b"%d" % n]
            await log.append(written[-1:])
            await clock.advance(POLL_SECONDS)
        assert following.bodies == written
        assert len(slow.bodies) <= 1
        slow.may_read.set()
        await clock.advance(POLL_SECONDS)
        assert slow.bodies == written

    async def test_a_follower_after_a_pause_gets_exactly_the_log(self, follow, log):
        await log.append([b"1"])
        await (await follow()).leave()
        log.forgotten = 1
        await log.append([b"2"])
        assert (await follow()).bodies == [b"2"]

    async def test_followers_continue_after_an_outage(self, follow, log, clock):
        await log.append([b"0", b"1"])
        following = await follow()
        log.is_unavailable = True
        back = await follow(after=log.events[0].id)
        await clock.advance(10 * POLL_SECONDS)
        log.is_unavailable = False
        await clock.advance(POLL_SECONDS)
        assert back.bodies == [b"1"]
        await log.append([b"2"])
        await clock.advance(POLL_SECONDS)
        assert following.bodies == [b"0", b"1", b"2"]
        assert back.bodies == [b"1", b"2"]

    @pytest.mark.parametrize("away", [False, True])
    async def test_without_events_there_are_empty_pages(self, follow, log, clock, away):
        following = await follow()
        log.is_unavailable = away
        following.empty_pages = 0
        await clock.advance(10 * (QUIET_SECONDS + POLL_SECONDS))
        assert following.empty_pages == 10

    async def test_following_ends_at_its_time_limit(self, follow, clock):
        following = await follow()
        await clock.advance(FOLLOW_SECONDS - 1)
        assert not following.task.done()
        await clock.advance(1 + QUIET_SECONDS)
        assert following.task.done()

    async def test_following_ends_when_the_process_stops(self, feed, follow, log, clock):
        following = await follow()
        log.is_unavailable = True
        back = await follow(after="7")
        feed.end()
        await clock.advance(POLL_SECONDS)
        assert following.task.done()
        assert back.task.done()

    async def test_slots_are_limited_and_are_released(self, feed, clock):
        held = [feed.slot() for _ in range(MAX_FOLLOWERS)]
        for place in held:
            place.__enter__()
            await clock.advance(1)
        with pytest.raises(TooManyFollowersError) as refused, feed.slot():
            pass
        assert refused.value.retry_after == FOLLOW_SECONDS + QUIET_SECONDS - MAX_FOLLOWERS
        held.pop(3).__exit__(None, None, None)
        with feed.slot():
            pass
        for place in held:
            place.__exit__(None, None, None)


class SlowLog(MemoryLog):
    """A log whose replies take some time."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock

    async def read(self, after, limit):
        page = await super().read(after, limit)
        await self._clock.sleep(0.15)
        return page


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, PAGE_EVENTS + 1)),
        st.tuples(st.just("follow"), st.tuples(st.one_of(st.just(0), st.floats(0, 1)), st.booleans())),
        st.tuples(st.sampled_from(["read on", "leave"]), st.integers(0, 4)),
        st.tuples(st.just("away"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([0.1, POLL_SECONDS])),
    ),
    max_size=30,
)


@patch(
    "src.services.events.feed.QUIET_SECONDS", math.inf
)  # otherwise an append would also notify a forgotten follower
@settings(max_examples=examples(200), deadline=None)
@given(STEPS)
async def test_every_follower_gets_all_events_after_its_position_once_and_in_order(steps):
    clock = FakeClock()
    log = SlowLog(clock)
    feed, followings = EventFeed(log, clock), []
    for step, how in steps:
        match step:
            case "write" if not log.is_unavailable:
                await log.append([b"%d" % n for n in range(len(log.events), len(log.events) + how)])
            case "follow":
                start = round(how[0] * len(log.events))
                after = log.events[start - 1].id if start else None
                followings.append((Follower(feed, after, is_slow=how[1]), start))
            case "read on" if how < len(followings):
                followings[how][0].may_read.set()
            case "leave" if how < len(followings):
                await followings.pop(how)[0].leave()
            case "away":
                log.is_unavailable = how
            case "wait":
                await clock.advance(how)
        await settle()
    log.is_unavailable = False
    for following, _ in followings:
        following.may_read.set()
    await clock.advance(20 * POLL_SECONDS)
    for following, start in followings:
        assert following.bodies == [event.body for event in log.events[start:]]
        await following.leave()
