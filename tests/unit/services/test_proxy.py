"""The internal proxy on a fake clock: who is asked when, who shares, who is answered with what."""

import asyncio
from dataclasses import replace

import httpx
import pytest

from src.resilience.breaker_store import CircuitBreakerOptions
from src.resilience.cache_store import CacheOptions, MemoryCacheStore
from src.resilience.circuit_breaker import CircuitBreaker
from src.resilience.errors import CircuitOpenError, QueueClosedError, QueueFullError, QueueTimeoutError
from src.resilience.events import CacheAnswered
from src.resilience.memory_breaker_store import MemoryBreakerStore
from src.resilience.memory_pace_store import MemoryPaceStore
from src.resilience.pace_store import PacedQueueOptions
from src.resilience.paced_queue import PacedQueue
from src.resilience.timeout import Timeout
from src.services.external_service import ExternalServiceUnavailableError
from src.services.proxy.response_buffer import ResponseCutError
from src.services.proxy.service import Proxy, ProxyRequest, is_upstream_failure
from src.services.proxy.shared_calls import MAX_KEPT_BYTES, UNREAD_ANSWERS
from src.services.proxy.target import UnsafeTargetError, UpstreamTarget
from src.services.proxy.totals import ProxyTally, ProxyTotals
from src.services.proxy.upstream import Upstream, UpstreamAnswerTooLargeError
from tests.support.clock import FakeClock, settle
from tests.support.listener import RecordingListener

INTERVAL = 1.0
TTL, STALE = 60.0, 600.0
PATIENCE = 20.0
TIMEOUT = 5.0
MAX_BYTES = 2 * MAX_KEPT_BYTES


class Stream(httpx.AsyncByteStream):
    def __init__(self, *chunks):
        self._chunks = chunks

    async def __aiter__(self):
        for chunk in self._chunks:
            yield chunk


class World:
    """Any number of workers before one upstream, which answers as `answers` has it for the path."""

    def __init__(self, clock, capacity=100):
        self.clock = clock
        self.cache = MemoryCacheStore(clock)
        self.breakers = MemoryBreakerStore(clock)
        self.options = PacedQueueOptions(
            interval_seconds=INTERVAL, capacity=capacity, max_wait_seconds=PATIENCE
        )
        self.turns = MemoryPaceStore(self.options, clock)
        self.totals = ProxyTotals()
        self.calls = []
        self.answers = {}
        self.listener = RecordingListener()

    async def add(self, totals):
        self.totals += totals
        return self.totals

    async def upstream(self, request):
        path = request.url.path
        self.calls.append((round(self.clock.monotonic(), 3), path))
        answer = self.answers.get(path)
        if callable(answer):
            answer = await answer(request)
        status, headers, *chunks = answer or (200, {}, path.encode())
        return httpx.Response(status, headers=headers, stream=Stream(*chunks))

    def worker(self):
        queue = PacedQueue(replace(self.options, max_wait_seconds=86_400), self.turns, self.clock)
        breaker_options = CircuitBreakerOptions(failure_threshold=2, open_seconds=30)
        proxy = Proxy(
            target=UpstreamTarget("http://upstream.example"),
            upstream=Upstream(
                httpx.AsyncClient(transport=httpx.MockTransport(self.upstream)),
                self.clock,
                queue.postpone,
                interval_seconds=INTERVAL,
                max_body_bytes=MAX_BYTES,
            ),
            queue=queue,
            breaker=CircuitBreaker(
                "proxy", self.breakers, breaker_options, self.clock, is_failure=is_upstream_failure
            ),
            timeout=Timeout(TIMEOUT, self.clock),
            store=self.cache,
            cache_options=CacheOptions(ttl_seconds=TTL, stale_seconds=STALE, lease_seconds=TIMEOUT + 5),
            tally=ProxyTally(self, self.clock),
            clock=self.clock,
            interval_seconds=INTERVAL,
            patience_seconds=PATIENCE,
            listener=self.listener,
        )
        proxy.queue = queue
        return proxy


@pytest.fixture
def world(clock: FakeClock):
    return World(clock)


def get(path, *, method="GET", priority=0, **headers):
    given = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return ProxyRequest(method, path.encode(), headers=given, request_id=b"id", priority=priority)


def asks(proxy, *requests):
    return [asyncio.create_task(proxy.answer(request)) for request in requests]


async def body(answer):
    return b"".join([chunk async for chunk in answer.buffer.body()])


async def status(answer):
    return (await answer.buffer.head()).status


class TestPace:
    async def test_different_requests_are_an_interval_apart_in_order_of_arrival(self, world, clock):
        waiting = asks(world.worker(), *(get(f"/{n}") for n in range(4)))
        await clock.advance(10)
        assert world.calls == [(0, "/0"), (1, "/1"), (2, "/2"), (3, "/3")]
        answers = [task.result() for task in waiting]
        assert [await body(answer) for answer in answers] == [b"/0", b"/1", b"/2", b"/3"]
        assert [round(answer.waited_seconds) for answer in answers] == [0, 1, 2, 3]

    async def test_by_priority_lower_is_sooner(self, world, clock):
        proxy = world.worker()
        await proxy.set_policy("priority")
        waiting = asks(proxy, get("/first"))
        await settle()
        waiting += asks(proxy, get("/late", priority=5), get("/soon", priority=-5), get("/mid"))
        await clock.advance(10)
        assert [path for _, path in world.calls] == ["/first", "/soon", "/mid", "/late"]
        assert await proxy.policy() == "priority"

    async def test_a_429_holds_up_the_line_and_is_passed_on(self, world, clock):
        world.answers["/0"] = (429, {"Retry-After": "7"})
        first, second = asks(world.worker(), get("/0"), get("/1"))
        await clock.advance(20)
        assert world.calls == [(0, "/0"), (7, "/1")]
        assert await status(first.result()) == 429
        assert second.result().copy == "MISS"

    async def test_a_slow_call_slows_nobody_else(self, world, clock):
        async def slow(_):
            await clock.sleep(4)
            return 200, {}, b"slow"

        world.answers["/0"] = slow
        first, second = asks(world.worker(), get("/0"), get("/1"))
        await clock.advance(2)
        assert second.done()
        assert not first.done()
        await clock.advance(2)
        assert await body(first.result()) == b"slow"


class TestSharing:
    async def test_equal_requests_in_line_share_one_call(self, world, clock):
        waiting = asks(world.worker(), get("/busy"), *[get("/same")] * 5)
        await clock.advance(10)
        assert world.calls == [(0, "/busy"), (1, "/same")]
        assert [await body(task.result()) for task in waiting[1:]] == [b"/same"] * 5
        assert {task.result().copy for task in waiting} == {"MISS"}

    @pytest.mark.parametrize(
        "other",
        [
            get("/same", method="HEAD"), get("/same", accept="text/html"), get("/same", accept_language="de"),
            get("/same", authorization="Basic x"), get("/same", cookie="a=b"),
        ],
    )  # fmt: skip
    async def test_requests_that_may_get_another_answer_do_not(self, world, clock, other):
        asks(world.worker(), get("/same"), other)
        await clock.advance(10)
        assert len(world.calls) == 2

    async def test_what_speaks_for_somebody_is_asked_each_time(self, world, clock):
        proxy = world.worker()
        asks(proxy, *[get("/mine", cookie="a=b")] * 2)
        await clock.advance(10)
        asks(proxy, get("/mine", cookie="a=b"), get("/mine"))
        await clock.advance(10)
        assert len(world.calls) == 4

    @pytest.mark.parametrize("headers", [{"Set-Cookie": "a=b"}, {"Cache-Control": "private"}, {"Vary": "*"}])
    async def test_an_answer_for_one_alone_is_the_first_ones(self, world, clock, headers):
        world.answers["/same"] = (200, headers, b"yours")
        first, second, third = asks(world.worker(), *[get("/same")] * 3)
        await clock.advance(10)
        assert [at for at, _ in world.calls] == [0, 1, 2]
        assert [task.result().waited_seconds for task in (first, second, third)] == [0, 1, 2]
        assert await body(second.result()) == b"yours"

    async def test_who_leaves_harms_no_other(self, world, clock):
        proxy = world.worker()
        asks(proxy, get("/busy"))
        first, second = asks(proxy, *[get("/same")] * 2)
        await settle()
        first.cancel()
        await clock.advance(5)
        assert second.result().copy == "MISS"

    async def test_when_the_last_one_leaves_the_upstream_is_not_asked(self, world, clock):
        proxy = world.worker()
        _, *leaving, staying = asks(proxy, get("/busy"), *[get("/same")] * 2, get("/other"))
        await settle()
        for task in leaving:
            task.cancel()
        await settle()
        assert (await proxy.status()).line.size == 1
        again = asks(proxy, get("/same"))
        await clock.advance(5)
        assert world.calls == [(0, "/busy"), (1, "/other"), (2, "/same")]
        assert staying.result().copy == again[0].result().copy == "MISS"

    async def test_a_call_under_way_goes_on_without_its_callers(self, world, clock):
        async def slow(_):
            await clock.sleep(2)
            return 200, {}, b"slow"

        world.answers["/same"] = slow
        proxy = world.worker()
        (leaving,) = asks(proxy, get("/same"))
        await settle()
        leaving.cancel()
        await clock.advance(2)
        assert (await proxy.answer(get("/same"))).copy == "HIT"

    async def test_two_workers_with_the_same_request_ask_once(self, world, clock):
        one, other = world.worker(), world.worker()
        first, _, second = *asks(one, get("/same"), get("/else")), *asks(other, get("/same"))
        await clock.advance(10)
        assert sorted(path for _, path in world.calls) == ["/else", "/same"]
        assert world.calls[1][0] < 1.2 * INTERVAL  # the turn that was not needed is not lost
        assert first.result().copy == "MISS"
        answer = second.result()
        assert (answer.copy, await body(answer)) == ("HIT", b"/same")


class TestCopies:
    async def test_a_200_is_answered_from_its_copy_until_the_ttl(self, world, clock):
        proxy = world.worker()
        first = await clock.drive(proxy.answer(get("/a")))
        await clock.advance(TTL - 1)
        copy = await proxy.answer(get("/a"))
        assert (copy.copy, copy.age_seconds, copy.waited_seconds) == ("HIT", TTL - 1, 0)
        assert await copy.buffer.head() == await first.buffer.head()
        assert await body(copy) == await body(first) == b"/a"
        await clock.advance(1)
        assert (await clock.drive(proxy.answer(get("/a")))).copy == "MISS"
        assert [event.outcome for event in world.listener.of(CacheAnswered)] == ["miss", "hit", "miss"]

    @pytest.mark.parametrize(
        "answer",
        [
            (404, {}, b"none"),
            (302, {"Location": "/b"}),
            (206, {}, b"part"),
            (200, {"Cache-Control": "no-store"}, b"once"),
            (200, {}, b"x" * (MAX_KEPT_BYTES + 1)),
        ],
    )
    async def test_what_may_not_be_kept_is_not(self, world, clock, answer):
        world.answers["/a"] = answer
        proxy = world.worker()
        for _ in range(2):
            got = await clock.drive(proxy.answer(get("/a")))
            assert (got.copy, await status(got), await body(got)) == ("MISS", answer[0], b"".join(answer[2:]))
        assert len(world.calls) == 2

    async def test_the_largest_copy(self, world, clock):
        world.answers["/a"] = (200, {"Content-Length": str(MAX_KEPT_BYTES)}, b"x" * MAX_KEPT_BYTES)
        proxy = world.worker()
        await body(await clock.drive(proxy.answer(get("/a"))))
        assert (await proxy.answer(get("/a"))).copy == "HIT"

    async def test_who_has_the_whole_answer_finds_it_kept(self, world, clock):
        world.answers["/a"] = (200, {"Content-Length": "2"}, b"a", b"b")
        proxy = world.worker()
        answer = await clock.drive(proxy.answer(get("/a")))
        got = b""
        async for chunk in answer.buffer.body():
            got += chunk
            if got == b"ab":  # its end has not been told yet
                assert (await proxy.answer(get("/a"))).copy == "HIT"


class TestSlowReaders:
    async def test_the_oldest_is_cut_when_unread_answers_become_too_much(self, world, clock):
        world.answers = {f"/{n}": (200, {}, b"x" * MAX_BYTES) for n in range(UNREAD_ANSWERS + 1)}
        waiting = asks(world.worker(), *(get(path) for path in world.answers))
        await clock.advance(UNREAD_ANSWERS * INTERVAL)
        oldest, *others = [task.result() for task in waiting]
        with pytest.raises(ResponseCutError, match="too slowly"):
            await body(oldest)
        assert {len(await body(answer)) for answer in others} == {MAX_BYTES}

    async def test_one_that_broke_off_counts_as_well(self, world, clock):
        async def cut(_):
            return 200, {}, b"x" * MAX_BYTES, b"and too much"

        world.answers = dict.fromkeys((f"/{n}" for n in range(UNREAD_ANSWERS + 1)), cut)
        waiting = asks(world.worker(), *(get(path) for path in world.answers))
        await clock.advance(UNREAD_ANSWERS * INTERVAL)
        lengths = [task.result().buffer.length for task in waiting]
        assert lengths == [0] + [MAX_BYTES] * UNREAD_ANSWERS


class TestFailures:
    async def failing(self, world, clock):
        """A worker that has a stale copy of /a, and whose upstream fails."""
        proxy = world.worker()
        await body(await clock.drive(proxy.answer(get("/a"))))
        await clock.advance(TTL)
        world.answers |= dict.fromkeys(("/a", "/b"), (500, {}))
        return proxy

    async def test_the_last_good_answer_stands_in(self, world, clock):
        proxy = await self.failing(world, clock)
        answer = await clock.drive(proxy.answer(get("/a")))
        assert (answer.copy, answer.age_seconds, await body(answer)) == ("STALE", TTL, b"/a")
        await clock.advance(STALE)
        with pytest.raises(ExternalServiceUnavailableError):
            await clock.drive(proxy.answer(get("/a")))

    async def test_without_one_the_caller_is_told_when_to_come_back(self, world, clock):
        proxy = await self.failing(world, clock)
        with pytest.raises(ExternalServiceUnavailableError) as caught:
            await clock.drive(proxy.answer(get("/b")))
        assert caught.value.retry_after == INTERVAL
        with pytest.raises(ExternalServiceUnavailableError) as caught:  # the one that opens the breaker
            await clock.drive(proxy.answer(get("/b")))
        assert caught.value.retry_after == pytest.approx(30)

    async def test_an_open_breaker_answers_at_once(self, world, clock):
        proxy = await self.failing(world, clock)
        for _ in range(2):
            await clock.drive(asyncio.gather(proxy.answer(get("/b")), return_exceptions=True))
        calls = len(world.calls)
        with pytest.raises(CircuitOpenError) as caught:
            await proxy.answer(get("/b"))
        assert 0 < caught.value.retry_after <= 30
        assert (await proxy.answer(get("/a"))).copy == "STALE"
        assert len(world.calls) == calls

    async def test_a_line_behind_a_breaker_that_opens_is_told_at_the_next_turn(self, world, clock):
        proxy = await self.failing(world, clock)
        world.answers |= {f"/{n}": (500, {}) for n in range(10)}
        waiting = asks(proxy, *(get(f"/{n}") for n in range(10)))
        await clock.advance(2 * INTERVAL)  # the third turn finds it open, and is passed down the line
        assert all(task.done() for task in waiting)
        refused = [task.exception() for task in waiting]
        assert [type(error) for error in refused] == [ExternalServiceUnavailableError] * 2 + [
            CircuitOpenError
        ] * 8

    async def test_a_breaker_forced_open_refuses_too(self, world, clock):
        proxy = world.worker()
        await proxy._breaker.force_open()
        with pytest.raises(CircuitOpenError) as caught:
            await proxy.answer(get("/a"))
        assert caught.value.retry_after >= 1

    async def test_errors_of_the_client_do_not_open_it(self, world, clock):
        world.answers["/a"] = (404, {})
        proxy = world.worker()
        for _ in range(5):
            assert await status(await clock.drive(proxy.answer(get("/a")))) == 404

    async def test_an_upstream_that_is_too_slow_has_failed(self, world, clock):
        async def hang(_):
            await asyncio.Event().wait()

        proxy = await self.failing(world, clock)
        world.answers |= {"/a": hang, "/b": hang}
        stale, failed = asks(proxy, get("/a"), get("/b"))
        await clock.advance(TIMEOUT + INTERVAL)
        assert stale.result().copy == "STALE"
        assert isinstance(failed.exception(), ExternalServiceUnavailableError)

    async def test_an_answer_that_breaks_off_is_cut_and_not_kept(self, world, clock):
        class Cut(httpx.AsyncByteStream):
            async def __aiter__(self):
                yield b"half"
                raise httpx.ReadError("cut")

        proxy = world.worker()
        proxy._shared_calls._upstream._client = httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Cut()))
        )
        answer = await clock.drive(proxy.answer(get("/a")))
        with pytest.raises(ResponseCutError):
            await body(answer)
        assert not world.cache._copies
        assert (await proxy.status()).breaker.failure_count == 1

    @pytest.mark.parametrize("answer", [(600, {}), (200, {"X-Odd": b"a\x01b"})])
    async def test_what_is_no_answer_of_http_is_a_failure_and_not_kept(self, world, clock, answer):
        proxy = await self.failing(world, clock)
        world.answers |= dict.fromkeys(("/a", "/b"), answer)
        assert (await clock.drive(proxy.answer(get("/a")))).copy == "STALE"
        assert (await proxy.status()).breaker.failure_count == 1
        copies = dict(world.cache._copies)
        with pytest.raises(ExternalServiceUnavailableError):
            await clock.drive(proxy.answer(get("/b")))
        assert world.cache._copies == copies

    async def test_an_answer_too_long_is_said_to_be_and_is_no_failure(self, world, clock):
        world.answers["/a"] = (200, {"Content-Length": str(MAX_BYTES + 1)}, b"x")
        proxy = world.worker()
        with pytest.raises(UpstreamAnswerTooLargeError):
            await clock.drive(proxy.answer(get("/a")))
        assert (await proxy.status()).breaker.failure_count == 0

    async def test_a_full_line_answers_with_the_last_good_answer_or_says_so(self, clock):
        world = World(clock, capacity=2)
        proxy = await self.failing(world, clock)
        world.answers.clear()
        waiting = asks(proxy, *(get(f"/{n}") for n in range(3)))  # one has its turn, two wait
        await settle()
        assert (await proxy.answer(get("/a"))).copy == "STALE"
        with pytest.raises(QueueFullError) as caught:
            await proxy.answer(get("/b"))
        assert caught.value.retry_after == pytest.approx(INTERVAL, abs=INTERVAL)
        await clock.advance(caught.value.retry_after)
        again = asks(proxy, get("/b"))
        await clock.advance(10)
        assert again[0].result().copy == "MISS"
        await asyncio.gather(*waiting)

    async def test_each_waits_no_longer_than_its_own_patience(self, world, clock):
        proxy = world.worker()
        await clock.drive(proxy.answer(get("/first")))
        first = asks(proxy, get("/a"))[0]
        await settle()
        await proxy.queue.postpone(2 * PATIENCE)
        await clock.advance(PATIENCE - 5)
        second = asks(proxy, get("/a"))[0]
        await clock.advance(5)
        assert isinstance(first.exception(), QueueTimeoutError)
        await clock.advance(PATIENCE - 5.5)
        assert not second.done()
        await clock.advance(0.5)
        assert isinstance(second.exception(), QueueTimeoutError)
        assert (await proxy.status()).line.size == 0
        await clock.advance(2 * PATIENCE)
        assert len(world.calls) == 1

    async def test_a_worker_that_stops_answers_its_line_and_finishes_its_calls(self, world, clock):
        async def slow(_):
            await clock.sleep(2)
            return 200, {}, b"slow"

        world.answers["/0"] = slow
        proxy = await self.failing(world, clock)
        under_way, stale, refused = asks(proxy, get("/0"), get("/a"), get("/b"))
        await settle()
        proxy.queue.close()
        await settle()
        assert stale.result().copy == "STALE"
        assert isinstance(refused.exception(), QueueClosedError)
        assert not under_way.done()
        await clock.advance(2)
        assert await body(under_way.result()) == b"slow"

    async def test_a_path_that_tries_to_leave_is_not_even_counted(self, world):
        proxy = world.worker()
        with pytest.raises(UnsafeTargetError):
            await proxy.answer(get("/../a"))
        assert (await proxy.status()).totals == ProxyTotals()


async def test_the_status_tells_what_became_of_each(clock):
    world = World(clock, capacity=2)
    proxy = world.worker()
    await clock.drive(proxy.answer(get("/a")))  # success
    await proxy.answer(get("/a"))  # hit
    await clock.advance(TTL)
    world.answers["/a"] = (500, {})
    await clock.drive(proxy.answer(get("/a")))  # fallback
    world.answers["/b"] = (404, {})
    await clock.drive(proxy.answer(get("/b")))  # success
    await clock.advance(INTERVAL)
    waiting = asks(proxy, get("/c"), get("/d"), get("/e"), get("/f"))  # the last is one too many
    await clock.advance(0.5)
    status = await proxy.status()
    assert (status.line.policy, status.line.capacity, status.interval_seconds) == ("fifo", 2, INTERVAL)
    assert status.line.size == 2
    assert status.line.oldest_age_seconds == pytest.approx(0.5, abs=0.01)
    await clock.advance(10)
    totals = (await proxy.status()).totals
    assert (totals.requests, totals.successes, totals.cache_hits, totals.fallbacks) == (8, 5, 1, 1)
    assert totals.failures == 1
    assert totals.mean_latency_ms > 0
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_closing_stops_calls_under_way(world, clock):
    async def hang(_):
        await asyncio.Event().wait()

    world.answers["/a"] = hang
    proxy = world.worker()
    (waiting,) = asks(proxy, get("/a"))
    await settle()
    await proxy.aclose()
    assert not proxy._shared_calls._begun
    waiting.cancel()
