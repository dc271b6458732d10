"""The breaker store in Redis when its event loop ends before a reply arrives."""

import asyncio

from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.redis import RedisBreakerStore


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
