"""Measures the cost of durability: each write is on the disk before the server acknowledges it.

It runs this API on a redis-server with an append-only file, and switches `appendfsync` between `everysec` and
`always` from round to round. With a C compiler, it also simulates a slower disk: each `fdatasync` is delayed.
Run it from the checkout, on Linux::

    python -m bench.durability
    python -m bench.durability --rounds 7 --sync-ms 0 5
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from bench.contestants import OURS, serving
from bench.figures import markdown
from bench.load import Load, drive, send
from bench.processes import CHECKOUT, LOAD_CORE, RedisServer, free_port, running, running_redis
from bench.slow_disk import slow_disk
from bench.undisturbed import Undisturbed
from bench.works import Work, works

POLICIES = ("everysec", "always")
SECONDS = 2


@dataclass(frozen=True, slots=True)
class Target:
    """An API and the Redis that it uses."""

    redis: RedisServer
    port: int

    def turn(self, work: Work, policy: str, seconds: int = SECONDS) -> Load:
        """Drive `work` at full speed on an empty Redis that syncs by `policy`."""
        with self.redis.client() as client:
            client.flushall()
            client.config_set("appendfsync", policy)
        for request in work.before:
            send(request, self.port)
        return drive(work.request, self.port, work.connections, seconds)


@contextmanager
def running_target(sync_seconds: float) -> Iterator[Target]:
    """Run Redis, the provider and the API until the block ends. Each sync takes `sync_seconds` longer."""
    with ExitStack() as stack:
        disk = CHECKOUT / "data"  # the temporary folder may be in memory
        disk.mkdir(exist_ok=True)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=disk))
        delayed = slow_disk(Path(folder), sync_seconds) if sync_seconds else {}
        if delayed is None:
            raise SystemExit("a slower disk cannot be simulated: there is no C compiler")
        options = ("--dir", folder, "--appendonly", "yes", "--auto-aof-rewrite-percentage", "0")
        redis = stack.enter_context(running_redis(*options, environment=delayed))
        port = free_port()
        provider = [sys.executable, "-m", "src.provider", "--port", str(port)]
        stack.enter_context(running(provider, LOAD_CORE, {}, port))
        environment = {"REDIS_URL": redis.url, "EXTERNAL_SERVICE_URL": f"http://127.0.0.1:{port}"}
        environment |= works()[0].environment
        _, port = stack.enter_context(serving(OURS, Path(sys.executable), environment))
        yield Target(redis, port)


def compared() -> list[Work]:
    """Return the compared works: ingest by one client and by many, cached summaries, batches."""
    by_key = {work.key: work for work in works()}
    alone = replace(by_key["ingest"], title="`POST /api/metrics`, one client", connections=1)
    many = replace(by_key["ingest"], title="`POST /api/metrics`, 32 clients")
    return [alone, many, by_key["cached"], by_key["batch"]]


def measure(sync_ms: float, rounds: int) -> Iterator[list[str]]:
    """Yield a row for each work: rates, their ratio, and latencies of both policies."""
    undisturbed = Undisturbed()
    with running_target(sync_ms / 1000) as target:
        for work in compared():
            target.turn(work, POLICIES[0], seconds=1)  # warms the process up
            pairs: list[dict[str, Load]] = []
            for number in range(rounds):
                order = POLICIES if number % 2 else tuple(reversed(POLICIES))
                pairs.append(
                    {policy: undisturbed.measure(partial(target.turn, work, policy)) for policy in order}
                )
            yield [f"+{sync_ms:g} ms" if sync_ms else "as it is", work.title, *_figures(pairs)]


def _figures(pairs: list[dict[str, Load]]) -> list[str]:
    def medians(figure: Callable[[Load], float], digits: int) -> list[str]:
        return [f"{median(figure(pair[policy]) for pair in pairs):,.{digits}f}" for policy in POLICIES]

    ratio = median(pair["always"].rate / pair["everysec"].rate for pair in pairs)
    latencies = medians(lambda load: load.p50_ms, 1) + medians(lambda load: load.p99_ms, 1)
    errors = [str(sum(pair[policy].errors + pair[policy].lost for pair in pairs)) for policy in POLICIES]
    return [*medians(lambda load: load.rate, 0), f"{ratio:.2f}", *latencies, " / ".join(errors)]


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each policy")
    parser.add_argument(
        "--sync-ms", type=float, nargs="+", default=[0, 1, 5, 20], help="the delays of each sync in ms"
    )
    options = parser.parse_args()
    heads = ["sync", "work", "everysec a second", "always a second", "always / everysec"]
    heads += ["everysec p50 ms", "always p50 ms", "everysec p99 ms", "always p99 ms", "errors"]
    print(markdown(heads, [row for delay in options.sync_ms for row in measure(delay, options.rounds)]))


if __name__ == "__main__":
    main()
