"""The rounds of the benchmark: the order of the contestants, and the values read around each load."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench.contestants import FASTAPI, OURS, Contestant, programs, serving
from bench.figures import Turn
from bench.load import Load, Request, drive, send
from bench.processes import LOAD_CORE, RedisServer, cpu_seconds, free_port, running, running_redis, suspended
from bench.undisturbed import Undisturbed
from bench.works import LIMITS, ONE_AN_HOUR, Work, works
from src.resilience.clock import SystemClock

FROZEN_RATE = 200.0
"""Requests a second while Redis is stopped."""
FROZEN_SECONDS = 30
"""The time for which Redis is stopped."""
BACK_SECONDS = 10.0

_CACHE_HEADERS = ("x-cache", "x-fastapi-cache", "x-redis-cache")


class WrongAnswerError(Exception):
    """A contestant gave a wrong answer."""


@dataclass(frozen=True, slots=True)
class Served:
    """A running contestant."""

    contestant: Contestant
    pid: int
    port: int

    def check(self, work: Work) -> None:
        """Check the answer to the request of `work`.

        Raises:
            WrongAnswerError: The status is wrong, or a cached answer was expected.
        """
        status, headers, body = send(work.request_to(self.contestant), self.port)
        is_hit = "HIT" in [headers.get(name) for name in _CACHE_HEADERS]
        if status != work.status_of(self.contestant) or is_hit < work.is_hit_at(self.contestant):
            raise WrongAnswerError(
                f"{self.contestant.name} answers {work.key} with {status}, {headers}, {body[:500]!r}"
            )


@dataclass(frozen=True, slots=True)
class HalfLoad:
    """The latency at half of the highest rate of a server.

    Attributes:
        name: The contestant and the work.
        rate: Requests per second.
        p99_ms: 99th percentile of the latency, the median of the rounds.
    """

    name: str
    rate: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Bench:
    """The shared parts of all measurements.

    Attributes:
        redis: The Redis of all contestants, which is emptied before every turn.
        provider_url: The external service, which never fails.
        programs: The program of each available contestant.
        rounds: The number of turns of each contestant; the median counts.
        seconds: The length of a turn.
        undisturbed: Makes each measurement.
    """

    redis: RedisServer
    provider_url: str
    programs: Mapping[Contestant, Path]
    rounds: int
    seconds: int
    undisturbed: Undisturbed

    def at_full_speed(self, work: Work) -> dict[str, list[Turn]]:
        """Return the turns of each contestant with `work`, in order of the rounds.

        During a turn the others are suspended: they share its core, and a database works on after a load.
        """
        turns: dict[str, list[Turn]] = {}
        with ExitStack() as stack:
            contestants = [item for item in work.contestants if item in self.programs]
            served = [stack.enter_context(self.served(item, work.environment)) for item in contestants]
            for one in served:  # warms the processes up
                self._any_turn(one, work, seconds=1)
            for _ in range(self.rounds):
                for one in served:
                    with suspended(other.pid for other in served if other is not one):
                        turns.setdefault(one.contestant.name, []).append(self._turn(one, work, self.seconds))
        return turns

    def at_half_load(self) -> list[HalfLoad]:
        """Return the latencies of this API's ingest and cached summary, and of FastAPI's hello."""
        ingest, cached = (_work("ingest"), _work("cached"))
        entries = [(OURS, ingest), (OURS, cached), (FASTAPI, cached)]
        with ExitStack() as stack:
            served = {who: stack.enter_context(self.served(who, LIMITS)) for who in (OURS, FASTAPI)}
            self._any_turn(served[OURS], cached, seconds=1)
            self._any_turn(served[FASTAPI], cached, seconds=1)
            loads: list[list[Load]] = [[] for _ in entries]
            for _ in range(self.rounds):
                for (who, work), found in zip(entries, loads, strict=True):
                    full = self._turn(served[who], work, self.seconds)
                    paced = partial(self._paced_turn, served[who], work, full.rate / 2)
                    found.append(self.undisturbed.measure(paced))
        names = [f"{who.name}, {work.key}" if who is OURS else who.name for who, work in entries]
        return [
            HalfLoad(name, median(load.rate for load in found), median(load.p99_ms for load in found))
            for name, found in zip(names, loads, strict=True)
        ]

    def while_redis_is_stopped(self) -> dict[str, Load]:
        """Return the results of refused requests and of cached summaries while Redis is stopped."""
        found: dict[str, Load] = {}
        with self.served(OURS, ONE_AN_HOUR) as ours:
            for work in (_work("refused"), _work("cached")):
                found[work.key] = self.undisturbed.measure(partial(self._frozen_turn, ours, work))
        return found

    @contextmanager
    def served(self, contestant: Contestant, environment: Mapping[str, str]) -> Iterator[Served]:
        """Serve with `contestant` until the block ends.

        Args:
            contestant: An available contestant.
            environment: Settings in addition to the URLs of Redis and the provider.
        """
        shared = {"REDIS_URL": self.redis.url, "EXTERNAL_SERVICE_URL": self.provider_url}
        with serving(contestant, self.programs[contestant], {**shared, **environment}) as (pid, port):
            yield Served(contestant, pid, port)

    def _make_ready(self, served: Served, work: Work) -> None:
        with self.redis.client() as client:
            client.flushall()
        for request in work.before:
            send(request, served.port)
        served.check(work)

    def _turn(self, served: Served, work: Work, seconds: int) -> Turn:
        return self.undisturbed.measure(partial(self._any_turn, served, work, seconds))

    def _any_turn(self, served: Served, work: Work, seconds: int) -> Turn:
        self._make_ready(served, work)
        cpu, reads = cpu_seconds(served.pid), self._reads()
        load = _driven(work, served, seconds)
        cpu, reads = cpu_seconds(served.pid) - cpu, self._reads() - reads
        return Turn(load.rate, load.p50_ms, load.p99_ms, 1000 * cpu / load.requests, reads / load.requests)

    def _paced_turn(self, served: Served, work: Work, rate: float) -> Load:
        self._make_ready(served, work)
        return _driven(work, served, self.seconds, rate)

    def _frozen_turn(self, served: Served, work: Work) -> Load:
        self._make_ready(served, work)
        os.kill(self.redis.process.pid, signal.SIGSTOP)
        try:
            return drive(work.request, served.port, work.connections, FROZEN_SECONDS, FROZEN_RATE)
        finally:
            os.kill(self.redis.process.pid, signal.SIGCONT)
            _wait_until(lambda: send(Request("GET", "/health"), served.port).status == 200)

    def _reads(self) -> int:
        with self.redis.client() as client:
            return int(client.info("stats")["total_reads_processed"])


@contextmanager
def bench(rounds: int, seconds: int, peers: Path | None) -> Iterator[Bench]:
    """Start the shared parts of the measurements.

    Args:
        rounds: The number of turns of each contestant.
        seconds: The length of a turn.
        peers: The interpreter with the peers; None creates one. A peer that it cannot import is left out.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis())
        port = free_port()
        provider = [sys.executable, "-m", "src.provider", "--port", str(port)]
        stack.enter_context(running(provider, LOAD_CORE, {}, port))
        yield Bench(
            redis,
            f"http://127.0.0.1:{port}",
            programs(peers),
            rounds,
            seconds,
            Undisturbed(),
        )


def _driven(work: Work, served: Served, seconds: int, rate: float | None = None) -> Load:
    load = drive(work.request_to(served.contestant), served.port, work.connections, seconds, rate)
    refusals = load.requests if work.status_of(served.contestant) >= 400 else 0
    if load.lost or load.errors != refusals:
        raise WrongAnswerError(f"{served.contestant.name} at {work.key}: {load}")
    return load


def _work(key: str) -> Work:
    return next(work for work in works() if work.key == key)


def _wait_until(is_so: Callable[[], bool]) -> None:
    clock = SystemClock()
    gives_up_at = clock.monotonic() + BACK_SECONDS
    while not is_so():
        if clock.monotonic() > gives_up_at:
            raise WrongAnswerError(f"{OURS.name} is not back {BACK_SECONDS:g} s after Redis")
