"""The benchmark: the speed of this API beside that of its peers.

It starts a Redis, the provider, this API with one worker, and each peer. It sends the same requests to each
of them in turn, and prints the results. A complete run also updates the tables in `docs/performance.md`. It
needs Linux: the server runs on one core, and the load and Redis on the other. Run it from the checkout::

    python -m bench
    python -m bench --only ingest cached --rounds 3
    python -m bench --only memory series-day --quick
"""

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import cold_hour, memory, redis_time, series_day, summary_growth
from bench.contestants import OURS, STACKS, versions
from bench.figures import figures_rows, markdown, with_section
from bench.load import driver_name
from bench.peers.databases import DATABASES
from bench.processes import CHECKOUT
from bench.reached import (
    HEADS,
    cold_hour_row,
    day_rows,
    frozen_row,
    full_speed_row,
    growth_row,
    half_load_row,
    many_types_row,
    memory_row,
    redis_time_row,
)
from bench.rounds import Bench, bench
from bench.undisturbed import TOLERATED
from bench.works import BATCH_CONNECTIONS, CONNECTIONS, LARGE_BATCH_POINTS, works

PAGE = CHECKOUT / "docs" / "performance.md"
GROWTH_POINTS, GROWTH_ROUNDS = (5_000, 5_000_000), 100
QUICK_SHARE = 0.01
"""The share of the points and requests that a quick run uses."""
QUICK_GROWTH_POINTS = (5_000, 50_000)

FIGURES = ("work", "server", "a second", "we are", "p50 ms", "p99 ms", "CPU s / 1,000", "round trips")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of the measurements.

    Attributes:
        share: The share of the points and requests of a part.
        growth_points: The numbers of points that the growth compares.
        growth_rounds: The number of timings for each of them.
    """

    share: float = 1.0
    growth_points: tuple[int, ...] = GROWTH_POINTS
    growth_rounds: int = GROWTH_ROUNDS


QUICK = Sizes(QUICK_SHARE, QUICK_GROWTH_POINTS, growth_rounds=5)


def _cold_hour(everything: Bench, sizes: Sizes) -> list[list[str]]:
    points = round(cold_hour.POINTS * sizes.share)
    return [cold_hour_row(cold_hour.measure(everything, points), points)]


def _many_types(everything: Bench, sizes: Sizes) -> list[list[str]]:
    types = round(LARGE_BATCH_POINTS * sizes.share)
    return [many_types_row(redis_time.measure_many_types(everything, sizes.share), types)]


def _growth(everything: Bench, sizes: Sizes) -> list[list[str]]:
    return [growth_row(summary_growth.run(everything, list(sizes.growth_points), sizes.growth_rounds))]


PARTS: dict[str, Callable[[Bench, Sizes], list[list[str]]]] = {
    "half-load": lambda everything, _: [half_load_row(everything.at_half_load())],
    "frozen": lambda everything, _: [frozen_row(everything.while_redis_is_stopped())],
    "redis-time": lambda everything, sizes: [redis_time_row(redis_time.measure(everything, sizes.share))],
    "many-types": _many_types,
    "memory": lambda everything, sizes: [memory_row(memory.measure(everything, sizes.share))],
    "series-day": lambda everything, sizes: day_rows(series_day.measure(everything, sizes.share)),
    "cold-hour": _cold_hour,
    "growth": _growth,
}
"""The measurements that do not run at full speed. Each function returns its rows of the first table."""

KEYS = (*(work.key for work in works()), *PARTS)


def main() -> None:
    """Read the command line, measure, print and write."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the started processes are ended too
    others = os.getloadavg()[0]
    reached: list[list[str]] = []
    figures: list[list[str]] = []
    sizes = QUICK if options.quick else Sizes()
    rounds, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    with bench(rounds, seconds, options.peer_python) as everything:
        for work in works():
            if work.key in options.only:
                _say(work.key)
                turns = everything.at_full_speed(work)
                figures += figures_rows(work.title, turns, OURS.name)
                reached.append(full_speed_row(work, turns))
        for key, measure in PARTS.items():
            if key in options.only:
                _say(key)
                reached += measure(everything, sizes)
        made = _conditions(everything, others)
    tables = [markdown(HEADS, reached, left=len(HEADS))]
    if figures:
        tables.append(markdown(FIGURES, figures, left=2))
    section = "\n\n".join([*tables, made])
    print(section)
    if set(options.only) == set(KEYS) and options.write and not options.quick:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_section(page, section), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=KEYS, default=KEYS, metavar="WORK", help=f"of {', '.join(KEYS)}")
    add("--rounds", type=_at_least_one, default=5, help="turns of each contestant; the median counts (5)")
    add("--seconds", type=_at_least_one, default=2, help="length of a turn (2)")
    add(
        "--quick",
        action="store_true",
        help="one round of a second with a hundredth of the points, to test the benchmark itself",
    )
    add(
        "--peer-python",
        type=Path,
        help="interpreter with bench/requirements.txt installed (default: a new environment)",
    )
    add("--no-write", dest="write", action="store_false", help=f"do not change {PAGE.relative_to(CHECKOUT)}")
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _say(key: str) -> None:
    print(f"{key} …", file=sys.stderr)


def _conditions(everything: Bench, others: float) -> str:
    """Return the line under the tables; `others` is the load average before the benchmark."""
    ours = versions(Path(sys.executable), ("fastapi", "starlette", "uvicorn", "uvloop", "redis", "hiredis"))
    theirs = {
        package: version
        for peer in STACKS
        if peer in everything.programs
        for package, version in versions(everything.programs[peer], peer.packages).items()
        if package not in ours
    }
    databases = {item.name: item.version() for item in DATABASES if item in everything.programs}
    with everything.redis.client() as client:
        redis = client.info("server")["redis_version"]
    packages = ", ".join(f"{package} {version}" for package, version in (ours | theirs | databases).items())
    return (
        f"Made on {datetime.now(UTC):%Y-%m-%d} by `python -m bench`, on {os.cpu_count()} cores "
        f"({platform.machine()}), one for the server and one for the load, Redis and the provider: "
        f"{everything.rounds} rounds of {everything.seconds} s each in turn, "
        f"{CONNECTIONS} connections ({BATCH_CONNECTIONS} for the batches), {driver_name()}. "
        f"Turns made again, since the host took more than {TOLERATED:.0%} of the cores' "
        f"time: {everything.undisturbed.repeated}. Load average beforehand: {others:.1f}. "
        f"Python {platform.python_version()}, Redis {redis}, {packages}."
    )


if __name__ == "__main__":
    main()
