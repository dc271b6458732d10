"""The breaker store in Redis when its event loop ends before the answer arrives."""

import asyncio

from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.redis import RedisBreakerStore


class SilentRunner:
    """A connection on which no answer comes."""

    async def run(self, script, keys, arguments=()):
        await asyncio.Event().wait()

    def checked(self, reply):
        return reply


def test_an_admission_that_is_closed_after_its_event_loop_raises_nothing():
    admission = RedisBreakerStore(SilentRunner()).admit("name", CircuitBreakerOptions())

    async def begin():
        admission.send(None)

    asyncio.run(begin())
    admission.close()
