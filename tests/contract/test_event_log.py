"""The event log and the lease of the stress test, on fakeredis and on a real server."""

import pytest

from src.services.errors import StorageUnavailableError
from src.services.events.log import LoggedEvent
from src.storage.fleet.event_log import KEPT_EVENTS, RedisEventLog
from src.storage.fleet.leases import RedisStressLease


@pytest.fixture(params=["fakeredis", "redis"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def log(link):
    return RedisEventLog(link)


def bodies(events):
    return [event.body for event in events]


class TestEventLog:
    async def test_a_new_log_is_empty(self, log):
        assert await log.read(None, 10) == []

    async def test_events_are_read_as_written_oldest_first(self, log):
        written = [b'{"n":1}', b"\x00\xff\r\n", b'{"n":"\xc3\xa9"}']
        await log.append(written[:2])
        await log.append(written[2:])
        assert bodies(await log.read(None, 10)) == written

    async def test_one_append_is_one_round_trip(self, log, link):
        before = link.round_trips
        await log.append([b"%d" % n for n in range(100)])
        assert link.round_trips == before + 1

    async def test_a_reader_continues_after_its_position(self, log):
        await log.append([b"1", b"2", b"3"])
        first = await log.read(None, 2)
        assert bodies(first) == [b"1", b"2"]
        rest = await log.read(first[-1].id, 2)
        assert bodies(rest) == [b"3"]
        assert await log.read(rest[-1].id, 2) == []
        await log.append([b"4"])
        assert bodies(await log.read(rest[-1].id, 2)) == [b"4"]

    async def test_a_position_that_is_not_in_the_log_is_accepted(self, log):
        await log.append([b"1"])
        assert bodies(await log.read("5-7", 10)) == [b"1"]
        assert await log.read("9999999999999999999-0", 10) == []

    async def test_the_oldest_events_are_removed_when_the_log_is_full(self, log):
        for start in range(0, 3 * KEPT_EVENTS, 500):
            await log.append([b"%d" % n for n in range(start, start + 500)])
        kept = await log.read(None, 3 * KEPT_EVENTS)
        assert KEPT_EVENTS <= len(kept) <= KEPT_EVENTS + 200
        assert kept[-1] == LoggedEvent(kept[-1].id, b"%d" % (3 * KEPT_EVENTS - 1))

    async def test_a_server_that_rejects_commands_counts_as_unavailable(self, log, link):
        await link.send("SET", "events", "something else")
        with pytest.raises(StorageUnavailableError):
            await log.append([b"1"])
        with pytest.raises(StorageUnavailableError):
            await log.read(None, 1)


class TestStressLease:
    async def test_one_holder_has_the_lease_and_others_get_its_remaining_time(self, link):
        ours, theirs = RedisStressLease(link), RedisStressLease(link)
        assert await ours.take("ours", 30) == 0
        assert 29 < await theirs.take("theirs", 60) <= 30
        await theirs.release("theirs")
        assert await theirs.take("theirs", 60) > 0
        await ours.release("ours")
        assert await theirs.take("theirs", 60) == 0

    async def test_after_a_clock_set_back_a_dead_holder_loses_the_lease(self, link):
        """Without this rule, a clock set back by an hour would prevent stress tests for an hour."""
        lease = RedisStressLease(link)
        await lease.take("dead", 30)
        await link.send("PEXPIRE", "lab:stress", 3_630_000)  # the remaining time by the new clock
        assert await lease.take("ours", 30) == 0
        assert 29 < await lease.take("theirs", 30) <= 30

    @pytest.mark.parametrize("seconds", [0, -1, 121])
    async def test_the_longest_duration_of_the_lease_is_limited(self, link, seconds):
        with pytest.raises(ValueError, match="seconds"):
            await RedisStressLease(link).take("ours", seconds)

    async def test_the_lease_expires(self, link):
        lease = RedisStressLease(link)
        await lease.take("ours", 30)
        assert 29_000 < await link.send("PTTL", "lab:stress") <= 30_000
        await link.send("PEXPIRE", "lab:stress", -1)  # the lease of a dead holder expires
        assert await lease.take("theirs", 30) == 0
        await lease.release("ours")
        assert await link.send("GET", "lab:stress") == b"theirs"
