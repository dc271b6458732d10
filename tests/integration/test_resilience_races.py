"""Several processes compete for limited resources in one real Redis."""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from src.resilience import CircuitBreaker, CircuitBreakerOptions, SystemClock
from src.resilience.circuit_breaker import BreakerState
from src.resilience.circuit_breaker.redis import RedisBreakerStore
from src.storage.redis.link import RedisLink

pytestmark = pytest.mark.slow

PROCESSES = 4

RACER = """
import asyncio, json, sys, time
from contextlib import aclosing
from src.resilience import CircuitBreaker, CircuitBreakerOptions, CircuitOpenError, Quota, SystemClock
from src.resilience.circuit_breaker.redis import RedisBreakerStore
from src.storage.redis.link import RedisAddress, RedisLink, connect
from src.storage.patterns.batched_rate_limiter import BatchedRateLimiter

def tell(what):
    print(json.dumps(what), flush=True)

async def wait_for_command():
    return await asyncio.to_thread(sys.stdin.readline)

def bank(link, options):
    return CircuitBreaker("bank", RedisBreakerStore(link), CircuitBreakerOptions(**options), SystemClock())

async def hit(link, algorithm, callers):
    "Take units of a quota of 10, as `callers` concurrent callers, and send the number of allowed ones."
    limiter = BatchedRateLimiter(algorithm, Quota(10, 3600), link, SystemClock())
    decisions = await asyncio.gather(*(limiter.hit("alice") for _ in range(callers)))
    tell(sum(decision.allowed for decision in decisions))

async def probe(link, options, callers):
    "Make `callers` concurrent calls, send their outcomes, and let the probes succeed on command."
    breaker, outcomes, finish = bank(link, options), [], asyncio.Event()

    async def call():
        outcomes.append("probed")
        await finish.wait()

    async def run():
        try:
            await breaker.run(call)
        except CircuitOpenError:
            outcomes.append("rejected")

    async with asyncio.TaskGroup() as callers_at_once:
        for _ in range(callers):
            callers_at_once.create_task(run())
        while len(outcomes) < callers:
            await asyncio.sleep(0.001)
        tell(outcomes)
        await wait_for_command()
        finish.set()

async def hang(link, options):
    "Make one call, send the times at which it began and was admitted, and never end it."
    began = time.monotonic()

    async def call():
        tell([began, time.monotonic()])
        await asyncio.Event().wait()

    await bank(link, options).run(call)

async def insist(link, options):
    "Call until admitted. Send the first refusal, then the time of each call and of the admission."
    breaker, began = bank(link, options), []

    async def call():
        return time.monotonic()

    while True:
        began.append(time.monotonic())
        try:
            tell({"began": began, "let_through": await breaker.run(call)})
            return
        except CircuitOpenError:
            if len(began) == 1:
                tell("refused")
        await asyncio.sleep(0.005)

async def main(url, part, *arguments):
    async with aclosing(RedisLink(connect(RedisAddress(url)), SystemClock())) as link:
        assert await link.ping(timeout_seconds=10)
        tell("ready")
        await wait_for_command()
        await globals()[part](link, *map(json.loads, arguments))

asyncio.run(main(*sys.argv[1:]))
"""


class Racer:
    """A process that runs one function of `RACER` after the start signal."""

    def __init__(self, url: str, part: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RACER, url, part, *map(json.dumps, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read_line(self) -> object:
        """Return the next line of its output."""
        line = self._process.stdout.readline()
        assert line, "the process ended without output"
        return json.loads(line)

    def start_race(self) -> None:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP. It keeps its resources."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self._process.kill()
        self._process.communicate(timeout=20)


StartRacer = Callable[..., Racer]


@pytest.fixture
def racer(redis_server) -> Iterator[StartRacer]:
    """Return a function that starts racers. All of them end with the test."""
    racers: list[Racer] = []

    def start(part: str, *arguments: object) -> Racer:
        racers.append(Racer(redis_server.url, part, *arguments))
        return racers[-1]

    yield start
    for each in racers:
        each.kill()


def release(racers: list[Racer]) -> list[object]:
    """Start all processes at once, and return the output of each."""
    assert [each.read_line() for each in racers] == ["ready"] * len(racers)
    for each in racers:
        each.start_race()
    return [each.read_line() for each in racers]


async def opened_breaker(link: RedisLink, **options: object) -> CircuitBreaker:
    """Return the breaker of the racers after a failure and the end of its open time."""
    store = RedisBreakerStore(link)
    breaker = CircuitBreaker("bank", store, CircuitBreakerOptions(**options), SystemClock())

    async def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await breaker.run(fail)
    async with asyncio.timeout(10):
        while (await breaker.status()).state is not BreakerState.HALF_OPEN:
            await asyncio.sleep(0.001)
    return breaker


@pytest.mark.parametrize(
    "algorithm",
    ["sliding_window_log", "sliding_window_counter", "fixed_window", "token_bucket", "leaky_bucket"],
)
def test_a_quota_of_ten_admits_ten_of_a_hundred(racer: StartRacer, algorithm: str) -> None:
    racers = [racer("hit", algorithm, 100 // PROCESSES) for _ in range(PROCESSES)]

    admitted = release(racers)

    assert sum(admitted) == 10


async def test_three_half_open_permits_admit_three_of_twenty_callers(
    racer: StartRacer, redis_link: RedisLink
) -> None:
    options = {"failure_threshold": 1, "open_seconds": 0.001, "half_open_permits": 3}
    breaker = await opened_breaker(redis_link, **options)
    racers = [racer("probe", options, 20 // PROCESSES) for _ in range(PROCESSES)]

    outcomes = release(racers)

    assert Counter(itertools.chain.from_iterable(outcomes)) == {"probed": 3, "rejected": 17}
    for each in racers:
        each.start_race()
    async with asyncio.timeout(10):
        while (await breaker.status()).state is not BreakerState.CLOSED:
            await asyncio.sleep(0.001)


async def test_another_worker_gets_the_permit_of_a_killed_prober_when_its_lease_ends(
    racer: StartRacer, redis_link: RedisLink
) -> None:
    lease_seconds = 1.0
    options = {"failure_threshold": 1, "open_seconds": 0.001, "probe_lease_seconds": lease_seconds}
    breaker = await opened_breaker(redis_link, **options)
    prober, traffic = racer("hang", options), racer("insist", options)
    assert (prober.read_line(), traffic.read_line()) == ("ready", "ready")

    prober.start_race()
    asked, probing = prober.read_line()
    traffic.start_race()
    assert traffic.read_line() == "refused"
    prober.kill()
    result = traffic.read_line()

    # Measured by calls, so that the test does not fail on a slow machine: the lease began between
    # `asked` and `probing`, nobody got through before it was over, and nobody was refused after that.
    *refused, _ = result["began"]
    assert result["let_through"] >= asked + lease_seconds
    assert [began for began in refused if began > probing + lease_seconds] == []
    assert (await breaker.status()).state is BreakerState.CLOSED


@pytest.mark.parametrize("end", [Racer.kill, Racer.freeze], ids=["killed", "frozen"])
async def test_a_live_prober_keeps_its_permit_and_that_of_a_dead_one_expires_soon(
    racer: StartRacer, redis_link: RedisLink, end: Callable[[Racer], None]
) -> None:
    renewal_seconds = 1.0  # the shortest
    options = {"failure_threshold": 1, "open_seconds": 0.001, "probe_lease_seconds": 600.0}
    breaker = await opened_breaker(redis_link, **options)
    prober, traffic = racer("hang", options), racer("insist", options)
    assert (prober.read_line(), traffic.read_line()) == ("ready", "ready")

    prober.start_race()
    prober.read_line()
    traffic.start_race()
    assert traffic.read_line() == "refused"
    await asyncio.sleep(3 * renewal_seconds)
    ended = time.monotonic()
    end(prober)
    result = await asyncio.to_thread(traffic.read_line)

    # As above. The last renewal may have been running when the prober ended.
    *refused, _ = result["began"]
    assert result["let_through"] >= ended
    assert [began for began in refused if began > ended + 1.5 * renewal_seconds] == []
    assert (await breaker.status()).state is BreakerState.CLOSED
