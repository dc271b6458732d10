"""The internal proxy as two processes with one upstream: a common pace and order, and no lost request."""

import asyncio
import functools
import itertools
import signal
import time
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.support.provider import running_provider
from tests.support.server import Server
from tests.support.upstream import running_upstream

pytestmark = pytest.mark.slow

INTERVAL = 1.0
"""Much longer than the delays of a process on a busy machine, which are tenths of a second."""


class Instance(Server):
    """One process of the API, with a client."""

    def __init__(self, redis_url, folder, **settings):
        super().__init__(redis_url, folder, workers=1, **settings)
        self.client = httpx.AsyncClient(base_url=self.url, timeout=60, verify=False)

    async def get(self, path):
        return await self.client.get(path)

    async def queue_size(self):
        return (await self.get("/api/proxy/status")).json()["queue_size"]

    async def end(self):
        await self.client.aclose()
        if self.process.poll() is None:
            self.process.kill()
        self.stop()


@pytest.fixture
def start_two_instances(redis_server, tmp_path):
    """Return a function that starts two processes on one Redis."""

    @asynccontextmanager
    async def start(**settings):
        with redis_server.connect() as client:
            client.flushall()
        folders = [tmp_path / name for name in "ab"]
        for folder in folders:
            folder.mkdir()
        instances = [Instance(redis_server.url, folder, **settings) for folder in folders]
        try:
            for instance in instances:
                await instance.until_healthy(instance.client)
            yield instances
        finally:
            for instance in instances:
                await instance.end()

    return start


def send_to_each(instances, paths):
    """Send a request for each path, to the instances in turn, and return the tasks."""
    pairs = zip(itertools.cycle(instances), paths, strict=False)
    return [asyncio.create_task(instance.get(path)) for instance, path in pairs]


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def wait_for_queue(size, instance):
    async def is_met():
        return await instance.queue_size() == size

    await until(is_met, seconds=5)


async def wait_for_calls(upstream, times):
    async def is_met():
        return len(upstream.arrivals) >= times

    await until(is_met)


async def status_contains(instance, **figures):
    """Return whether the status of an instance has these values. Its view of the other one lags."""
    found = (await instance.get("/api/proxy/status")).json()
    return found | figures == found


async def test_twenty_requests_do_not_overrun_the_provider(start_two_instances):
    with running_provider() as provider:
        async with start_two_instances(EXTERNAL_SERVICE_URL=provider.url) as both:
            paths = [f"/proxy/score?cpf={12345678900 + n}" for n in range(20)]
            answers = await asyncio.gather(*send_to_each(both, paths))
            assert {answer.status_code for answer in answers} == {200}
            for instance in both:
                await until(
                    functools.partial(status_contains, instance, requests=20, successes=20, queue_size=0)
                )
        stats = httpx.get(f"{provider.url}/stats").json()
        assert (stats["by_endpoint"]["score"], stats["refused"], stats["failed"]) == (20, 0, 0)


async def test_while_calls_are_queued_the_upstream_gets_one_each_interval(start_two_instances):
    async with (
        running_upstream() as upstream,
        start_two_instances(PROXY_UPSTREAM_URL=upstream.url, PROXY_RATE_LIMIT_SECONDS=str(INTERVAL)) as both,
    ):
        await asyncio.gather(*(instance.get(f"/proxy/warm-up/{instance.url[-4:]}") for instance in both))
        await asyncio.gather(*send_to_each(both, (f"/proxy/{n}" for n in range(12))))
        gaps = upstream.gaps[2:]
        assert len(gaps) == 11
        assert max(gaps) <= 1.2 * INTERVAL, gaps
        assert min(gaps) >= 0.9 * INTERVAL, gaps  # less than 1: the upstream is busy too


async def test_equal_requests_to_both_processes_make_one_call(start_two_instances):
    async with (
        running_upstream() as upstream,
        start_two_instances(PROXY_UPSTREAM_URL=upstream.url, PROXY_RATE_LIMIT_SECONDS=str(INTERVAL)) as both,
    ):
        answers = await asyncio.gather(*send_to_each(both, ["/proxy/same"] * 6))
        assert {answer.text for answer in answers} == {"GET /same HTTP/1.1"}
        assert len(upstream.arrivals) == 1


async def test_a_process_that_is_killed_does_not_stop_the_other(start_two_instances):
    async with (
        running_upstream() as upstream,
        start_two_instances(PROXY_UPSTREAM_URL=upstream.url, PROXY_RATE_LIMIT_SECONDS=str(INTERVAL)) as both,
    ):
        doomed, other = both
        dying = send_to_each([doomed], (f"/proxy/dying/{n}" for n in range(6)))
        living = send_to_each([other], (f"/proxy/living/{n}" for n in range(6)))
        await wait_for_calls(upstream, 4)
        doomed.process.send_signal(signal.SIGKILL)
        await asyncio.gather(*dying, return_exceptions=True)
        answers = await asyncio.gather(*living)
        assert {answer.status_code for answer in answers} == {200}
        assert min(upstream.gaps) >= 0.9 * INTERVAL, upstream.gaps  # less than 1: the upstream is busy too
        # at most, two intervals are lost: its last slot, and the grace period of the slot that it waited for
        assert max(upstream.gaps) <= 2.3 * INTERVAL, upstream.gaps


async def test_callers_that_disconnect_leave_the_queue(start_two_instances):
    async with (
        running_upstream() as upstream,
        start_two_instances(PROXY_UPSTREAM_URL=upstream.url, PROXY_RATE_LIMIT_SECONDS="3") as both,
    ):
        one, other = both
        await one.get("/proxy/first")
        leaving = send_to_each([one], (f"/proxy/leaving/{n}" for n in range(5)))
        (staying,) = send_to_each([one], ["/proxy/staying"])
        await wait_for_queue(6, other)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await wait_for_queue(1, other)
        assert (await staying).status_code == 200
        assert [line.split()[1] for _, line in upstream.arrivals] == ["/first", "/staying"]


async def test_a_large_body_streams(start_two_instances):
    size, first_read = 3_000_000, asyncio.Event()

    async def stream(_upstream, _line, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(b"x" * (size // 2))
        await writer.drain()
        await first_read.wait()  # the rest is sent when the caller has read the first part
        writer.write(b"y" * (size // 2))

    async with (
        running_upstream(stream) as upstream,
        start_two_instances(PROXY_UPSTREAM_URL=upstream.url) as (one, _),
        one.client.stream("GET", "/proxy/large") as answer,
    ):
        received = 0
        async for chunk in answer.aiter_raw():
            received += len(chunk)
            if received >= size // 2:
                first_read.set()
        assert received == size


async def test_bytes_after_an_answer_do_not_reach_another_caller(start_two_instances):
    async def answer_too_much(_upstream, line, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(line), line.encode()))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")

    async with (
        running_upstream(answer_too_much) as upstream,
        start_two_instances(PROXY_UPSTREAM_URL=upstream.url, PROXY_RATE_LIMIT_SECONDS="0.05") as both,
    ):
        paths = [f"/proxy/{n}" for n in range(20)]
        for copy in ("MISS", "HIT"):
            answers = await asyncio.gather(*send_to_each(both, paths))
            assert [answer.text for answer in answers] == [f"GET /{n} HTTP/1.1" for n in range(20)]
            assert {answer.headers["x-cache"] for answer in answers} == {copy}


async def test_an_answer_that_breaks_off_is_cut(start_two_instances):
    async def cut(_upstream, _line, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
        await writer.drain()
        writer.close()

    async with (
        running_upstream(cut) as upstream,
        start_two_instances(PROXY_UPSTREAM_URL=upstream.url) as (one, _),
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await one.get("/proxy/cut")
        assert "Traceback" not in one.log.read_text()
        assert "proxy_answer_cut" in one.log.read_text()


async def test_at_sigterm_the_queue_is_rejected_and_calls_being_made_end(start_two_instances):
    async def slow(_upstream, _line, writer):
        await asyncio.sleep(1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

    settings = {"PROXY_RATE_LIMIT_SECONDS": "20", "PROXY_REQUEST_TIMEOUT_SECONDS": "600"}
    async with (
        running_upstream(slow) as upstream,
        start_two_instances(PROXY_UPSTREAM_URL=upstream.url, **settings) as (stopping, other),
    ):
        (being_made,) = send_to_each([stopping], ["/proxy/being-made"])
        await wait_for_calls(upstream, 1)
        waiting = send_to_each([stopping], (f"/proxy/{n}" for n in range(10)))
        await wait_for_queue(10, other)
        began = time.monotonic()
        stopping.process.terminate()
        refused = await asyncio.gather(*waiting)
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "QUEUE_CLOSED")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert (await being_made).text == "slow"
        assert await asyncio.to_thread(stopping.process.wait, 10) in {0, -signal.SIGTERM}
        assert time.monotonic() - began < 10
        assert await other.queue_size() == 0
