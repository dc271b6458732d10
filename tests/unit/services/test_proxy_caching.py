"""The copies with which the proxy answers (RFC 9111). The fake clock begins at 2027-01-15 08:00:00 UTC."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from src.services.external_service import ExternalServiceUnavailableError
from tests.support.proxy_fleet import INTERVAL, STALE, TTL, ProxyFleet, body, get, send


@pytest.fixture
def fleet(clock):
    return ProxyFleet(clock)


START = 1_800_000_000


def date(seconds=0.0):
    return format_datetime(datetime.fromtimestamp(START + seconds, UTC), usegmt=True)


def answer_with_number(fleet, *headers):
    """Make the upstream answer /a with `headers` and the number of the call."""

    async def answer(_request):
        return 200, list(headers), str(len(fleet.calls)).encode()

    fleet.answers["/a"] = answer


CACHE_CONTROL, EXPIRES, DATE, AGE, PRAGMA, VARY = "Cache-Control", "Expires", "Date", "Age", "Pragma", "Vary"

LIFETIMES = [
    ([], TTL),
    ([(CACHE_CONTROL, "public")], TTL),
    ([(CACHE_CONTROL, "max-age=3600")], TTL),
    ([(CACHE_CONTROL, "max-age=" + "9" * 5000)], TTL),
    ([(AGE, "500")], TTL),
    ([(VARY, "Accept, Accept-Language")], TTL),
    ([(CACHE_CONTROL, "max-age=30")], 30),
    ([(CACHE_CONTROL, "Max-Age=30")], 30),
    ([(CACHE_CONTROL, "max-age=0030")], 30),
    ([(CACHE_CONTROL, 'max-age="30"')], 30),
    ([(CACHE_CONTROL, "max-age=30; must-revalidate")], 30),
    ([(CACHE_CONTROL, "max-age=30, must-revalidate")], 30),
    ([(CACHE_CONTROL, "max-age=0, s-maxage=30")], 30),
    ([(CACHE_CONTROL, "max-age=40"), (CACHE_CONTROL, "max-age=30")], 30),
    ([(CACHE_CONTROL, "max-age=30"), (PRAGMA, "no-cache")], 30),
    ([(CACHE_CONTROL, "max-age=30"), (EXPIRES, "0")], 30),
    ([(CACHE_CONTROL, "max-age=30"), (AGE, "soon")], 30),
    ([(CACHE_CONTROL, "max-age=30"), (DATE, "soon")], 30),
    ([(CACHE_CONTROL, "max-age=30"), (DATE, date(3600))], 30),
    ([(CACHE_CONTROL, "max-age=30"), (AGE, "10")], 20),
    ([(CACHE_CONTROL, "max-age=30"), (AGE, "10"), (AGE, "20")], 20),
    ([(CACHE_CONTROL, "max-age=30"), (AGE, "10, 20")], 20),
    ([(CACHE_CONTROL, "max-age=30"), (DATE, date(-10))], 20),
    ([(CACHE_CONTROL, "max-age=30"), (DATE, date(-10)), (AGE, "15")], 15),
    ([(CACHE_CONTROL, 'x="no-store, max-age=0", max-age=30')], 30),
    ([(CACHE_CONTROL, r'x="\", no-store, \"", max-age=30')], 30),
    ([(EXPIRES, date(30))], 30),
    ([(EXPIRES, date(40)), (EXPIRES, date(30))], 30),
    ([(EXPIRES, date(3630)), (DATE, date(3600))], 30),
    ([(EXPIRES, date(30)), (DATE, date(-10))], 30),
    ([(EXPIRES, date(3600))], TTL),
]


@pytest.mark.parametrize(("headers", "seconds"), LIFETIMES)
async def test_a_copy_is_used_by_every_worker_until_it_is_stale(fleet, clock, headers, seconds):
    one, other = fleet.worker(), fleet.worker()
    answer_with_number(fleet, *headers)
    first = await clock.drive(one.answer(get("/a")))
    await clock.advance(seconds - 0.5)
    for worker in (one, other):
        copy = await worker.answer(get("/a"))
        assert (copy.source, await body(copy)) == ("HIT", await body(first))
    await clock.advance(0.5)
    assert await body(await clock.drive(other.answer(get("/a")))) == b"2"


NEVER_FRESH = [
    [(CACHE_CONTROL, "max-age=0")],
    [(CACHE_CONTROL, "max-age=60, s-maxage=0")],
    [(CACHE_CONTROL, "max-age=60"), (CACHE_CONTROL, "max-age=0")],
    [(CACHE_CONTROL, "max-age=60, max-age=soon")],
    [(CACHE_CONTROL, "max-age=-1")],
    [(CACHE_CONTROL, "max-age=1.5")],
    [(CACHE_CONTROL, "max-age")],
    [(CACHE_CONTROL, "s-maxage=soon, max-age=60")],
    [(CACHE_CONTROL, "must-revalidate")],
    [(CACHE_CONTROL, "proxy-revalidate")],
    [(CACHE_CONTROL, "max-age=60, No-Store")],
    [(CACHE_CONTROL, "no-cache")],
    [(CACHE_CONTROL, 'no-cache="set-cookie, x-a"')],
    [(CACHE_CONTROL, 'x="unterminated, no-store')],
    [(CACHE_CONTROL, "private, max-age=60")],
    [(CACHE_CONTROL, 'private="x-a, x-b", max-age=60')],
    [(CACHE_CONTROL, "max-age=0"), ("Connection", "cache-control")],
    [(CACHE_CONTROL, "max-age=60"), (AGE, "60")],
    [(CACHE_CONTROL, "max-age=60"), (AGE, "9" * 5000)],
    [(CACHE_CONTROL, "max-age=60"), (DATE, date(-60))],
    [(PRAGMA, "no-cache")],
    [(EXPIRES, date(-3600))],
    [(EXPIRES, date())],
    [(EXPIRES, "0")],
    [(EXPIRES, "")],
    [(EXPIRES, date(3600)), (EXPIRES, "soon")],
    [(EXPIRES, date(3600)), (DATE, date(3600))],
    [(VARY, "*")],
    [(VARY, "Accept"), (VARY, "Origin")],
    [("Set-Cookie", "a=b"), (CACHE_CONTROL, "public")],
]


@pytest.mark.parametrize("headers", NEVER_FRESH)
async def test_an_answer_that_is_not_fresh_is_requested_again_by_every_worker(fleet, clock, headers):
    one, other = fleet.worker(), fleet.worker()
    answer_with_number(fleet, *headers)
    answers = [await clock.drive(worker.answer(get("/a"))) for worker in (one, other, one)]
    assert [(answer.source, await body(answer)) for answer in answers] == [
        ("MISS", b"1"),
        ("MISS", b"2"),
        ("MISS", b"3"),
    ]


async def test_workers_that_wait_for_an_answer_that_is_not_fresh_call_once_each(fleet, clock):
    answer_with_number(fleet, (CACHE_CONTROL, "max-age=0"))
    waiting = [task for _ in range(2) for task in send(fleet.worker(), *[get("/a")] * 3)]
    await clock.advance(5 * INTERVAL)
    assert [await body(task.result()) for task in waiting] == [b"1"] * 3 + [b"2"] * 3


ONE_REQUEST = ["no-store", "no-cache", "max-age=60, no-store", "private", 'no-cache="x-a"']


@pytest.mark.parametrize("cache_control", ONE_REQUEST)
async def test_an_answer_for_one_request_is_not_shared_with_those_that_wait_for_the_same_call(
    fleet, clock, cache_control
):
    answer_with_number(fleet, (CACHE_CONTROL, cache_control))
    waiting = send(fleet.worker(), *[get("/a")] * 3)
    await clock.advance(5 * INTERVAL)
    assert sorted([await body(task.result()) for task in waiting]) == [b"1", b"2", b"3"]


class TestAge:
    async def test_the_time_in_the_upstreams_caches_counts(self, fleet, clock):
        answer_with_number(fleet, (AGE, "10"), (CACHE_CONTROL, "max-age=60"))
        proxy = fleet.worker()
        answer = await clock.drive(proxy.answer(get("/a")))
        assert dict((await answer.buffer.head()).headers)[b"age"] == b"10"
        assert answer.age_seconds is None
        await clock.advance(7)
        copy = await proxy.answer(get("/a"))
        assert copy.age_seconds == 17
        assert b"age" not in dict((await copy.buffer.head()).headers)
        fleet.answers["/a"] = (500, {})
        await clock.advance(TTL)
        stale = await clock.drive(proxy.answer(get("/a")))
        assert (stale.source, stale.age_seconds) == ("STALE", 10 + 7 + TTL)

    async def test_the_time_that_the_answer_took_counts(self, fleet, clock):
        async def slow(_request):
            await clock.sleep(3)
            return 200, {AGE: "10", CACHE_CONTROL: "max-age=30"}, b"slow"

        fleet.answers["/a"] = slow
        proxy = fleet.worker()
        await clock.drive(proxy.answer(get("/a")))
        assert (await proxy.answer(get("/a"))).age_seconds == 13
        await clock.advance(16.5)
        assert (await proxy.answer(get("/a"))).source == "HIT"
        await clock.advance(0.5)
        assert (await clock.drive(proxy.answer(get("/a")))).source == "MISS"


class TestStaleCopies:
    """RFC 9111, section 4.2.4: a stale copy may be used while the upstream can't be reached."""

    @pytest.fixture
    async def after_failure(self, fleet, clock):
        """Request /a, with this header in its answer, and request it again later while the upstream fails."""

        async def after_failure(cache_control, seconds):
            answer_with_number(fleet, (CACHE_CONTROL, cache_control))
            proxy = fleet.worker()
            await body(await clock.drive(proxy.answer(get("/a"))))
            await clock.advance(seconds)
            fleet.answers["/a"] = (500, {})
            return await clock.drive(proxy.answer(get("/a")))

        return after_failure

    @pytest.mark.parametrize("cache_control", ["public", "max-age=0", "max-age=30", 'x="must-revalidate"'])
    async def test_a_stale_copy_takes_the_place_of_an_error(self, after_failure, cache_control):
        answer = await after_failure(cache_control, STALE - 1)
        assert (answer.source, await body(answer)) == ("STALE", b"1")

    @pytest.mark.parametrize("lifetime", ["max-age=100, must-revalidate", "max-age=100, proxy-revalidate"])
    async def test_a_copy_that_must_be_validated_answers_only_while_it_is_fresh(
        self, after_failure, lifetime
    ):
        assert (await after_failure(lifetime, 99)).source == "STALE"
        with pytest.raises(ExternalServiceUnavailableError):
            await after_failure(lifetime, 100)

    @pytest.mark.parametrize(
        "cache_control",
        [
            "s-maxage=30",
            "s-maxage=0",
            "max-age=30, must-revalidate",
            "must-revalidate",
            "no-cache",
            "no-store",
        ],
    )
    async def test_a_stale_copy_that_must_be_validated_never_replaces_an_error(
        self, after_failure, cache_control
    ):
        with pytest.raises(ExternalServiceUnavailableError):
            await after_failure(cache_control, 30)


class TestRequests:
    @pytest.mark.parametrize(
        ("headers", "source"),
        [
            ({"cache_control": "no-cache"}, "MISS"),
            ({"cache_control": "max-age=0"}, "MISS"),
            ({"cache_control": "max-age=10"}, "MISS"),
            ({"cache_control": "max-age=soon"}, "MISS"),
            ({"cache_control": "min-fresh=50"}, "MISS"),
            ({"cache_control": "no-store"}, "MISS"),
            ({"pragma": "no-cache"}, "MISS"),
            ({"cache_control": "max-age=11"}, "HIT"),
            ({"cache_control": "max-age=60", "pragma": "no-cache"}, "HIT"),
            ({"cache_control": "min-fresh=49"}, "HIT"),
            ({"cache_control": "max-stale"}, "HIT"),
            ({"cache_control": "only-if-cached"}, "HIT"),
        ],
    )
    async def test_a_request_can_reject_a_copy(self, fleet, clock, headers, source):
        answer_with_number(fleet)
        proxy = fleet.worker()
        await clock.drive(proxy.answer(get("/a")))
        await clock.advance(10)
        assert (await clock.drive(proxy.answer(get("/a", **headers)))).source == source

    async def test_the_answer_to_a_refresh_is_the_new_copy(self, fleet, clock):
        answer_with_number(fleet)
        proxy = fleet.worker()
        for request in (get("/a"), get("/a", cache_control="no-cache")):
            await clock.drive(proxy.answer(request))
        assert await body(await proxy.answer(get("/a"))) == b"2"

    async def test_with_no_store_the_answer_is_neither_shared_nor_cached(self, fleet, clock):
        answer_with_number(fleet)
        proxy = fleet.worker()
        send(proxy, *[get("/a", cache_control="no-store")] * 2)
        await clock.advance(2 * INTERVAL)
        assert len(fleet.calls) == 2
        assert not fleet.cache._copies

    async def test_requests_that_reject_copies_share_calls_with_each_other(self, fleet, clock):
        proxy = fleet.worker()
        send(proxy, get("/busy"))
        refusing = send(proxy, *[get("/a", cache_control="no-cache")] * 2)
        others = send(proxy, *[get("/a")] * 2)
        await clock.advance(5 * INTERVAL)
        assert [path for _, path in fleet.calls] == ["/busy", "/a"]
        assert [task.result().source for task in refusing + others] == ["MISS", "MISS", "HIT", "HIT"]

    async def test_a_request_that_rejects_copies_gets_a_stale_copy_if_the_upstream_fails(self, fleet, clock):
        proxy = fleet.worker()
        await clock.drive(proxy.answer(get("/a")))
        fleet.answers["/a"] = (500, {})
        answer = await clock.drive(proxy.answer(get("/a", cache_control="no-cache")))
        assert answer.source == "STALE"
