"""The breaker store in Redis when its event loop ends before a reply arrives."""

import asyncio
import gc

import pytest
from redis.exceptions import ResponseError

from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.redis import RedisBreakerStore
from tests.support.clock import settle


class SilentRunner:
    """A connection on which no reply arrives."""

    async def run(self, script, keys, arguments=()):
        await asyncio.Event().wait()

    def checked(self, reply):
        return reply


def test_closing_an_admission_after_its_event_loop_raises_nothing():
    admission = RedisBreakerStore(SilentRunner()).admit("name", CircuitBreakerOptions())

    async def begin():
        admission.send(None)

    asyncio.run(begin())
    admission.close()


class FailingRunner(SilentRunner):
    """A connection whose scripts fail, as they do on a key of another program."""

    async def run(self, script, keys, arguments=()):
        raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


async def test_an_error_of_the_admission_is_raised_and_reported_nowhere_else():
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, report: reports.append(report))
    with pytest.raises(ResponseError):
        await RedisBreakerStore(FailingRunner()).admit("name", CircuitBreakerOptions())
    await settle()
    gc.collect()
    await settle()
    assert reports == []
