"""The internal proxy on a fake clock: the calls of the upstream, and the answer to each request."""

import asyncio

import httpx
import pytest

from src.resilience.errors import CircuitOpenError, QueueClosedError, QueueFullError, QueueTimeoutError
from src.resilience.events import CacheAnswered
from src.services.external_service import ExternalServiceUnavailableError
from src.services.proxy.copies import MAX_COPY_BYTES
from src.services.proxy.response_buffer import ResponseCutError
from src.services.proxy.service import MAX_WAIT_SHARE
from src.services.proxy.shared_calls import UNREAD_ANSWERS
from src.services.proxy.target import UnsafeTargetError
from src.services.proxy.totals import ProxyTotals
from src.services.proxy.upstream import UpstreamAnswerTooLargeError
from tests.support.clock import FakeClock, settle
from tests.support.proxy_fleet import (
    CALL_TIMEOUT,
    INTERVAL,
    MAX_BYTES,
    REQUEST_TIMEOUT,
    STALE,
    TTL,
    ProxyFleet,
    body,
    get,
    send,
    status,
)


@pytest.fixture
def fleet(clock: FakeClock):
    return ProxyFleet(clock)


class TestPace:
    async def test_different_requests_are_an_interval_apart_in_order_of_arrival(self, fleet, clock):
        waiting = send(fleet.worker(), *(get(f"/{n}") for n in range(4)))
        await clock.advance(10)
        assert fleet.calls == [(0, "/0"), (1, "/1"), (2, "/2"), (3, "/3")]
        answers = [task.result() for task in waiting]
        assert [await body(answer) for answer in answers] == [b"/0", b"/1", b"/2", b"/3"]
        assert [round(answer.waited_seconds) for answer in answers] == [0, 1, 2, 3]

    async def test_with_the_policy_priority_a_lower_number_is_served_sooner(self, fleet, clock):
        proxy = fleet.worker()
        await proxy.set_policy("priority")
        waiting = send(proxy, get("/first"))
        await settle()
        waiting += send(proxy, get("/late", priority=5), get("/soon", priority=-5), get("/mid"))
        await clock.advance(10)
        assert [path for _, path in fleet.calls] == ["/first", "/soon", "/mid", "/late"]
        assert await proxy.policy() == "priority"

    async def test_a_429_postpones_all_calls_and_is_passed_on(self, fleet, clock):
        fleet.answers["/0"] = (429, {"Retry-After": "7"})
        first, second = send(fleet.worker(), get("/0"), get("/1"))
        await clock.advance(20)
        assert fleet.calls == [(0, "/0"), (7, "/1")]
        assert await status(first.result()) == 429
        assert second.result().source == "MISS"

    async def test_a_slow_call_delays_no_other(self, fleet, clock):
        async def slow(_):
            await clock.sleep(4)
            return 200, {}, b"slow"

        fleet.answers["/0"] = slow
        first, second = send(fleet.worker(), get("/0"), get("/1"))
        await clock.advance(2)
        assert second.done()
        assert not first.done()
        await clock.advance(2)
        assert await body(first.result()) == b"slow"


class TestSharing:
    async def test_equal_requests_in_the_queue_share_one_call(self, fleet, clock):
        waiting = send(fleet.worker(), get("/busy"), *[get("/same")] * 5)
        await clock.advance(10)
        assert fleet.calls == [(0, "/busy"), (1, "/same")]
        assert [await body(task.result()) for task in waiting[1:]] == [b"/same"] * 5
        assert {task.result().source for task in waiting} == {"MISS"}

    @pytest.mark.parametrize(
        "other",
        [
            get("/same", method="HEAD"), get("/same", accept="text/html"), get("/same", accept_language="de"),
            get("/same", authorization="Basic x"), get("/same", cookie="a=b"),
        ],
    )  # fmt: skip
    async def test_requests_that_may_get_another_answer_share_no_call(self, fleet, clock, other):
        send(fleet.worker(), get("/same"), other)
        await clock.advance(10)
        assert len(fleet.calls) == 2

    async def test_requests_with_credentials_share_no_call(self, fleet, clock):
        proxy = fleet.worker()
        send(proxy, *[get("/mine", cookie="a=b")] * 2)
        await clock.advance(10)
        send(proxy, get("/mine", cookie="a=b"), get("/mine"))
        await clock.advance(10)
        assert len(fleet.calls) == 4

    @pytest.mark.parametrize("headers", [{"Set-Cookie": "a=b"}, {"Cache-Control": "private"}, {"Vary": "*"}])
    async def test_a_personal_answer_goes_only_to_the_first_caller(self, fleet, clock, headers):
        fleet.answers["/same"] = (200, headers, b"yours")
        first, second, third = send(fleet.worker(), *[get("/same")] * 3)
        await clock.advance(10)
        assert [at for at, _ in fleet.calls] == [0, 1, 2]
        assert [task.result().waited_seconds for task in (first, second, third)] == [0, 1, 2]
        assert await body(second.result()) == b"yours"

    async def test_a_caller_who_leaves_does_not_affect_the_others(self, fleet, clock):
        proxy = fleet.worker()
        send(proxy, get("/busy"))
        first, second = send(proxy, *[get("/same")] * 2)
        await settle()
        first.cancel()
        await clock.advance(5)
        assert second.result().source == "MISS"

    async def test_when_all_callers_leave_the_upstream_is_not_called(self, fleet, clock):
        proxy = fleet.worker()
        _, *leaving, staying = send(proxy, get("/busy"), *[get("/same")] * 2, get("/other"))
        await settle()
        for task in leaving:
            task.cancel()
        await settle()
        assert (await proxy.status()).queue.size == 1
        again = send(proxy, get("/same"))
        await clock.advance(5)
        assert fleet.calls == [(0, "/busy"), (1, "/other"), (2, "/same")]
        assert staying.result().source == again[0].result().source == "MISS"

    async def test_a_call_being_made_continues_without_its_callers(self, fleet, clock):
        async def slow(_):
            await clock.sleep(2)
            return 200, {}, b"slow"

        fleet.answers["/same"] = slow
        proxy = fleet.worker()
        (leaving,) = send(proxy, get("/same"))
        await settle()
        leaving.cancel()
        await clock.advance(2)
        assert (await proxy.answer(get("/same"))).source == "HIT"

    async def test_two_workers_with_the_same_request_make_one_call(self, fleet, clock):
        one, other = fleet.worker(), fleet.worker()
        first, _, second = *send(one, get("/same"), get("/else")), *send(other, get("/same"))
        await clock.advance(10)
        assert sorted(path for _, path in fleet.calls) == ["/else", "/same"]
        assert fleet.calls[1][0] < 1.2 * INTERVAL  # the unused slot is not lost
        assert first.result().source == "MISS"
        answer = second.result()
        assert (answer.source, await body(answer)) == ("HIT", b"/same")


class TestCopies:
    async def test_a_copy_of_a_200_answers_until_the_ttl(self, fleet, clock):
        proxy = fleet.worker()
        first = await clock.drive(proxy.answer(get("/a")))
        await clock.advance(TTL - 1)
        copy = await proxy.answer(get("/a"))
        assert (copy.source, copy.age_seconds, copy.waited_seconds) == ("HIT", TTL - 1, 0)
        assert await copy.buffer.head() == await first.buffer.head()
        assert await body(copy) == await body(first) == b"/a"
        await clock.advance(1)
        assert (await clock.drive(proxy.answer(get("/a")))).source == "MISS"
        assert [event.outcome for event in fleet.listener.of(CacheAnswered)] == ["miss", "hit", "miss"]

    @pytest.mark.parametrize(
        "answer",
        [
            (404, {}, b"none"),
            (302, {"Location": "/b"}),
            (206, {}, b"part"),
            (200, {"Cache-Control": "no-store"}, b"once"),
            (200, {}, b"x" * (MAX_COPY_BYTES + 1)),
        ],
    )
    async def test_other_responses_are_not_stored(self, fleet, clock, answer):
        fleet.answers["/a"] = answer
        proxy = fleet.worker()
        for _ in range(2):
            got = await clock.drive(proxy.answer(get("/a")))
            found = (got.source, await status(got), await body(got))
            assert found == ("MISS", answer[0], b"".join(answer[2:]))
        assert len(fleet.calls) == 2

    async def test_a_body_of_the_greatest_length_is_stored(self, fleet, clock):
        fleet.answers["/a"] = (200, {"Content-Length": str(MAX_COPY_BYTES)}, b"x" * MAX_COPY_BYTES)
        proxy = fleet.worker()
        await body(await clock.drive(proxy.answer(get("/a"))))
        assert (await proxy.answer(get("/a"))).source == "HIT"

    async def test_after_the_whole_body_was_read_the_copy_is_stored(self, fleet, clock):
        fleet.answers["/a"] = (200, {"Content-Length": "2"}, b"a", b"b")
        proxy = fleet.worker()
        answer = await clock.drive(proxy.answer(get("/a")))
        got = b""
        async for chunk in answer.buffer.body():
            got += chunk
            if got == b"ab":  # the end has not been reported yet
                assert (await proxy.answer(get("/a"))).source == "HIT"


class TestSlowReaders:
    async def test_the_oldest_unread_response_is_cut_when_the_memory_budget_is_exceeded(self, fleet, clock):
        fleet.answers = {f"/{n}": (200, {}, b"x" * MAX_BYTES) for n in range(UNREAD_ANSWERS + 1)}
        waiting = send(fleet.worker(), *(get(path) for path in fleet.answers))
        await clock.advance(UNREAD_ANSWERS * INTERVAL)
        oldest, *others = [task.result() for task in waiting]
        with pytest.raises(ResponseCutError, match="too slowly"):
            await body(oldest)
        assert {len(await body(answer)) for answer in others} == {MAX_BYTES}

    async def test_an_incomplete_response_counts_towards_the_memory_budget(self, fleet, clock):
        async def cut(_):
            return 200, {}, b"x" * MAX_BYTES, b"and too much"

        fleet.answers = dict.fromkeys((f"/{n}" for n in range(UNREAD_ANSWERS + 1)), cut)
        waiting = send(fleet.worker(), *(get(path) for path in fleet.answers))
        await clock.advance(UNREAD_ANSWERS * INTERVAL)
        lengths = [task.result().buffer.length for task in waiting]
        assert lengths == [0] + [MAX_BYTES] * UNREAD_ANSWERS


class TestFailures:
    async def failing(self, fleet, clock):
        """Return a worker with a stale copy of /a and an upstream that fails."""
        proxy = fleet.worker()
        await body(await clock.drive(proxy.answer(get("/a"))))
        await clock.advance(TTL)
        fleet.answers |= dict.fromkeys(("/a", "/b"), (500, {}))
        return proxy

    async def test_a_stale_copy_takes_the_place_of_an_error(self, fleet, clock):
        proxy = await self.failing(fleet, clock)
        answer = await clock.drive(proxy.answer(get("/a")))
        assert (answer.source, answer.age_seconds, await body(answer)) == ("STALE", TTL, b"/a")
        await clock.advance(STALE)
        with pytest.raises(ExternalServiceUnavailableError):
            await clock.drive(proxy.answer(get("/a")))

    async def test_without_a_copy_the_error_has_a_retry_after(self, fleet, clock):
        proxy = await self.failing(fleet, clock)
        with pytest.raises(ExternalServiceUnavailableError) as caught:
            await clock.drive(proxy.answer(get("/b")))
        assert caught.value.retry_after == fleet.options.interval_seconds
        with pytest.raises(ExternalServiceUnavailableError) as caught:  # this one opens the breaker
            await clock.drive(proxy.answer(get("/b")))
        assert caught.value.retry_after == pytest.approx(30)

    async def test_an_open_breaker_rejects_at_once(self, fleet, clock):
        proxy = await self.failing(fleet, clock)
        for _ in range(2):
            await clock.drive(asyncio.gather(proxy.answer(get("/b")), return_exceptions=True))
        calls = len(fleet.calls)
        with pytest.raises(CircuitOpenError) as caught:
            await proxy.answer(get("/b"))
        assert 0 < caught.value.retry_after <= 30
        assert (await proxy.answer(get("/a"))).source == "STALE"
        assert len(fleet.calls) == calls

    async def test_when_the_breaker_opens_the_queue_is_rejected_with_the_next_slot(self, fleet, clock):
        proxy = await self.failing(fleet, clock)
        fleet.answers |= {f"/{n}": (500, {}) for n in range(10)}
        waiting = send(proxy, *(get(f"/{n}") for n in range(10)))
        await clock.advance(2 * INTERVAL)  # the third call is rejected, and its slot passes to the next
        assert all(task.done() for task in waiting)
        refused = [task.exception() for task in waiting]
        assert [type(error) for error in refused] == [ExternalServiceUnavailableError] * 2 + [
            CircuitOpenError
        ] * 8

    async def test_a_breaker_that_is_forced_open_rejects_without_a_time(self, fleet, clock):
        proxy = fleet.worker()
        await proxy._breaker.force_open()
        with pytest.raises(CircuitOpenError) as caught:
            await proxy.answer(get("/a"))
        assert caught.value.retry_after is None

    async def test_client_errors_do_not_open_the_breaker(self, fleet, clock):
        fleet.answers["/a"] = (404, {})
        proxy = fleet.worker()
        for _ in range(5):
            assert await status(await clock.drive(proxy.answer(get("/a")))) == 404

    async def test_a_call_that_takes_too_long_fails(self, fleet, clock):
        async def hang(_):
            await asyncio.Event().wait()

        proxy = await self.failing(fleet, clock)
        fleet.answers |= {"/a": hang, "/b": hang}
        stale, failed = send(proxy, get("/a"), get("/b"))
        await clock.advance(CALL_TIMEOUT + INTERVAL)
        assert stale.result().source == "STALE"
        assert isinstance(failed.exception(), ExternalServiceUnavailableError)

    async def test_an_incomplete_response_is_cut_and_not_stored(self, fleet, clock):
        fleet.answers["/a"] = (200, {}, b"half", httpx.ReadError("cut"))
        proxy = fleet.worker()
        answer = await clock.drive(proxy.answer(get("/a")))
        with pytest.raises(ResponseCutError):
            await body(answer)
        assert not fleet.cache._copies
        assert (await proxy.status()).breaker.failure_count == 1

    @pytest.mark.parametrize("answer", [(600, {}), (200, {"X-Odd": b"a\x01b"})])
    async def test_a_response_that_is_not_http_is_a_failure_and_not_stored(self, fleet, clock, answer):
        proxy = await self.failing(fleet, clock)
        fleet.answers |= dict.fromkeys(("/a", "/b"), answer)
        assert (await clock.drive(proxy.answer(get("/a")))).source == "STALE"
        assert (await proxy.status()).breaker.failure_count == 1
        copies = dict(fleet.cache._copies)
        with pytest.raises(ExternalServiceUnavailableError):
            await clock.drive(proxy.answer(get("/b")))
        assert fleet.cache._copies == copies

    async def test_a_response_that_is_too_long_is_an_error_but_no_failure(self, fleet, clock):
        fleet.answers["/a"] = (200, {"Content-Length": str(MAX_BYTES + 1)}, b"x")
        proxy = fleet.worker()
        with pytest.raises(UpstreamAnswerTooLargeError):
            await clock.drive(proxy.answer(get("/a")))
        assert (await proxy.status()).breaker.failure_count == 0

    async def test_if_the_queue_is_full_a_stale_copy_answers_or_else_an_error(self, clock):
        fleet = ProxyFleet(clock, capacity=2)
        proxy = await self.failing(fleet, clock)
        fleet.answers.clear()
        waiting = send(proxy, *(get(f"/{n}") for n in range(3)))  # one has its slot, two wait
        await settle()
        assert (await proxy.answer(get("/a"))).source == "STALE"
        with pytest.raises(QueueFullError) as caught:
            await proxy.answer(get("/b"))
        assert caught.value.retry_after == pytest.approx(INTERVAL, abs=INTERVAL)
        await clock.advance(caught.value.retry_after)
        again = send(proxy, get("/b"))
        await clock.advance(10)
        assert again[0].result().source == "MISS"
        await asyncio.gather(*waiting)

    async def test_a_request_that_would_wait_too_long_is_rejected_at_once(self, fleet, clock):
        proxies = [fleet.worker(), fleet.worker()]
        await body(await clock.drive(proxies[0].answer(get("/a"))))
        await clock.advance(TTL)
        places = int(MAX_WAIT_SHARE * REQUEST_TIMEOUT / INTERVAL)  # and one call that starts at once
        waiting = [send(proxies[n % 2], get(f"/{n}"))[0] for n in range(places + 1)]
        await clock.advance(0.5 * INTERVAL)
        status = await proxies[0].status()
        assert (status.queue.size, status.queue.capacity, status.is_full) == (places, 100, True)
        for proxy in proxies:
            assert (await proxy.answer(get("/a"))).source == "STALE"
            with pytest.raises(QueueFullError) as caught:
                await proxy.answer(get("/late"))
            assert caught.value.retry_after == pytest.approx(0.5 * INTERVAL)
        await clock.advance(caught.value.retry_after)
        assert not (await proxies[0].status()).is_full
        again = send(proxies[1], get("/late"))[0]
        await clock.advance(REQUEST_TIMEOUT)
        assert [task.result().source for task in [*waiting, again]] == ["MISS"] * (places + 2)

    async def test_under_lasting_overload_every_admitted_request_is_answered(self, fleet, clock):
        async def slow(_request):
            await clock.sleep(0.9)
            return 200, {}, b"slow"

        fleet.answers = {f"/{n}": slow for n in range(900)}
        proxies = [fleet.worker(), fleet.worker()]
        tasks = []
        for n in range(900):
            tasks += send(proxies[n % 2], get(f"/{n}"))
            await clock.advance(INTERVAL / 9)
        await clock.advance(2 * REQUEST_TIMEOUT)
        errors = [error for task in tasks if (error := task.exception()) is not None]
        assert {type(error) for error in errors} == {QueueFullError}
        assert len(tasks) - len(errors) == len(fleet.calls) >= 100

    async def test_during_a_long_pause_of_the_upstream_requests_are_rejected_at_once(self, fleet, clock):
        fleet.answers["/0"] = (429, {"Retry-After": "100"})
        proxy = fleet.worker()
        await clock.drive(proxy.answer(get("/0")))
        with pytest.raises(QueueFullError) as caught:
            await proxy.answer(get("/1"))
        assert caught.value.retry_after == pytest.approx(100 - MAX_WAIT_SHARE * REQUEST_TIMEOUT)
        await clock.advance(caught.value.retry_after)
        again = send(proxy, get("/1"))[0]
        await clock.advance(REQUEST_TIMEOUT)
        assert again.result().source == "MISS"

    async def test_each_request_has_its_own_timeout(self, fleet, clock):
        proxy = fleet.worker()
        await clock.drive(proxy.answer(get("/first")))
        first = send(proxy, get("/a"))[0]
        await settle()
        await proxy.queue.postpone(2 * REQUEST_TIMEOUT)
        await clock.advance(REQUEST_TIMEOUT - 5)
        second = send(proxy, get("/a"))[0]
        await clock.advance(5)
        assert isinstance(first.exception(), QueueTimeoutError)
        await clock.advance(REQUEST_TIMEOUT - 5.5)
        assert not second.done()
        await clock.advance(0.5)
        assert isinstance(second.exception(), QueueTimeoutError)
        assert (await proxy.status()).queue.size == 0
        await clock.advance(2 * REQUEST_TIMEOUT)
        assert len(fleet.calls) == 1

    async def test_a_worker_that_stops_rejects_its_queue_and_finishes_its_calls(self, fleet, clock):
        async def slow(_):
            await clock.sleep(2)
            return 200, {}, b"slow"

        fleet.answers["/0"] = slow
        proxy = await self.failing(fleet, clock)
        being_made, stale, refused = send(proxy, get("/0"), get("/a"), get("/b"))
        await settle()
        proxy.queue.close()
        await settle()
        assert stale.result().source == "STALE"
        assert isinstance(refused.exception(), QueueClosedError)
        assert not being_made.done()
        await clock.advance(2)
        assert await body(being_made.result()) == b"slow"

    async def test_a_path_outside_the_base_path_is_not_counted(self, fleet):
        proxy = fleet.worker()
        with pytest.raises(UnsafeTargetError):
            await proxy.answer(get("/../a"))
        assert (await proxy.status()).totals == ProxyTotals()


async def test_the_status_counts_the_result_of_each_request(clock):
    fleet = ProxyFleet(clock, capacity=2)
    proxy = fleet.worker()
    await clock.drive(proxy.answer(get("/a")))  # success
    await proxy.answer(get("/a"))  # hit
    await clock.advance(TTL)
    fleet.answers["/a"] = (500, {})
    await clock.drive(proxy.answer(get("/a")))  # fallback
    fleet.answers["/b"] = (404, {})
    await clock.drive(proxy.answer(get("/b")))  # success
    await clock.advance(INTERVAL)
    waiting = send(proxy, get("/c"), get("/d"), get("/e"), get("/f"))  # the last one is above the limit
    await clock.advance(0.5)
    status = await proxy.status()
    assert (status.queue.policy, status.queue.capacity) == ("fifo", 2)
    assert status.interval_seconds == fleet.options.interval_seconds
    assert status.queue.size == 2
    assert status.queue.oldest_age_seconds == pytest.approx(0.5, abs=0.01)
    await clock.advance(10)
    totals = (await proxy.status()).totals
    assert (totals.requests, totals.successes, totals.cache_hits, totals.fallbacks) == (8, 5, 1, 1)
    assert totals.failures == 1
    assert totals.mean_latency_ms > 0
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_closing_cancels_calls_being_made(fleet, clock):
    async def hang(_):
        await asyncio.Event().wait()

    fleet.answers["/a"] = hang
    proxy = fleet.worker()
    (waiting,) = send(proxy, get("/a"))
    await settle()
    await proxy.aclose()
    assert not proxy._calls._running
    waiting.cancel()


@pytest.mark.parametrize("settled", [True, False], ids=["being made and in the queue", "just begun"])
async def test_closing_answers_the_requests_that_wait_at_once(fleet, clock, settled):
    async def hang(_):
        await asyncio.Event().wait()

    fleet.answers["/a"] = hang
    proxy = fleet.worker()
    waiting = send(proxy, get("/a"), get("/b"))
    if settled:
        await settle()
    else:
        while not proxy._calls._running:
            await asyncio.sleep(0)
    await proxy.aclose()
    await settle()
    outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert {type(outcome) for outcome in outcomes} == {ExternalServiceUnavailableError}
    assert clock.monotonic() == 0
