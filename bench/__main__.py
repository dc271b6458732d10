"""How fast is the API, beside what people would have instead?

Starts a Redis, the provider, this API with one worker and each peer, drives them in turn with the same
requests, and prints what came of it; after a whole run, `docs/performance.md` has the tables. Linux only: the
server has one core, the load and Redis have the other. Run it from the checkout::

    python -m bench
    python -m bench --only ingest cached --rounds 3
"""

import argparse
import os
import platform
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench import summary_growth
from bench.contestants import OURS, STACKS, versions
from bench.figures import (
    TIMES,
    Turn,
    figures_rows,
    markdown,
    median_turn,
    times_as_fast,
    with_section,
    written,
)
from bench.load import Load, driver_name
from bench.processes import CHECKOUT
from bench.rounds import FROZEN_RATE, FROZEN_SECONDS, Bench, HalfLoad, bench
from bench.summary_growth import Growth
from bench.undisturbed import TOLERATED
from bench.works import BATCH_CONNECTIONS, CONNECTIONS, Work, works

PAGE = CHECKOUT / "docs" / "performance.md"
HALF_LOAD, FROZEN, GROWTH = "half-load", "frozen", "growth"
KEYS = (*(work.key for work in works()), HALF_LOAD, FROZEN, GROWTH)
GROWTH_POINTS, GROWTH_ROUNDS = [5_000, 5_000_000], 100

FIGURES = ("work", "server", "a second", "we are", "p50 ms", "p99 ms", "CPU s / 1,000", "round trips")
REACHED = ("work", "reached", "bar", "stretch")


def main() -> None:
    """Read the command line, measure, print and write."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else what was started would outlive us
    others = os.getloadavg()[0]
    reached: list[list[str]] = []
    figures: list[list[str]] = []
    with bench(options.rounds, options.seconds, options.peer_python) as everything:
        for work in works():
            if work.key in options.only:
                _say(work.key)
                turns = everything.at_full_speed(work)
                figures += figures_rows(work.title, turns, OURS.name)
                reached.append(_full_speed_row(work, turns))
        if HALF_LOAD in options.only:
            _say(HALF_LOAD)
            reached.append(_half_load_row(everything.at_half_load()))
        if FROZEN in options.only:
            _say(FROZEN)
            reached.append(_frozen_row(everything.while_redis_is_stopped()))
        made = _how_it_was_made(everything, others)
    if GROWTH in options.only:
        _say(GROWTH)
        reached.append(_growth_row(summary_growth.run(GROWTH_POINTS, GROWTH_ROUNDS)))
    tables = [markdown(REACHED, reached, left=len(REACHED))]
    if figures:
        tables.append(markdown(FIGURES, figures, left=2))
    section = "\n\n".join([*tables, made])
    print(section)
    if set(options.only) == set(KEYS) and options.write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_section(page, section), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=KEYS, default=KEYS, metavar="WORK", help=f"of {', '.join(KEYS)}")
    add("--rounds", type=_at_least_one, default=5, help="turns of everybody, of which the median counts (5)")
    add("--seconds", type=_at_least_one, default=2, help="length of a turn (2)")
    add(
        "--peer-python",
        type=Path,
        help="interpreter that has bench/requirements.txt (else one is made)",
    )
    add("--no-write", dest="write", action="store_false", help=f"leave {PAGE.relative_to(CHECKOUT)} alone")
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _say(key: str) -> None:
    print(f"{key} …", file=sys.stderr)


def _full_speed_row(work: Work, turns: dict[str, list[Turn]]) -> list[str]:
    ours = turns[OURS.name]
    rate = median_turn(ours).rate
    if work.units > 1:
        return [work.title, f"{rate * work.units:,.0f} a second", f"{work.bar:,.0f}", f"{work.stretch:,.0f}"]
    ratios = [times_as_fast(ours, turns[peer.name]) for peer in STACKS if peer.name in turns]
    told = f"{written(min(ratios))} the best peer" if ratios else f"{rate:,.0f} a second, no peer took part"
    return [work.title, told, f"{work.bar:g}{TIMES}", f"{work.stretch:g}{TIMES}"]


def _half_load_row(found: list[HalfLoad]) -> list[str]:
    told = "; ".join(f"{item.name}: {item.p99_ms:.1f} ms at {item.rate:,.0f} a second" for item in found)
    theirs = found[-1].p99_ms
    worst = max(item.p99_ms for item in found[:-1])
    return ["p99 at half load", f"{written(worst / theirs)} FastAPI's ({told})", f"≤ 2{TIMES}", ""]


def _frozen_row(found: dict[str, Load]) -> list[str]:
    cached = found["cached"]
    hits = (cached.requests - cached.errors) / (cached.requests + cached.lost)
    refused = found["refused"]
    told = f"429s {refused.p99_ms:.1f} ms; summaries {cached.p99_ms:.1f} ms, {hits:.0%} of them answered"
    title = f"p99 of the first {FROZEN_SECONDS} s with Redis stopped, {FROZEN_RATE:.0f} a second"
    return [title, told, "≤ 20 ms", ""]


def _growth_row(growth: Growth) -> list[str]:
    small, large = growth.counts
    slowest = max(some[-1] for some in growth.seconds.values())
    of_all = written(growth.read_all_seconds / slowest)
    told = f"{written(growth.worst)}; a read of all points takes {of_all} as long"
    title = f"cold summary over {large:,} points against {small:,}"
    return [title, told, f"≤ 2{TIMES}; ≥ 100{TIMES}", ""]


def _how_it_was_made(everything: Bench, others: float) -> str:
    """Return the line under the tables; `others` is the load average before anything was started."""
    ours = versions(Path(sys.executable), ("fastapi", "starlette", "uvicorn", "uvloop", "redis", "hiredis"))
    theirs = {
        package: version
        for peer in STACKS
        if peer in everything.pythons
        for package, version in versions(everything.pythons[peer], peer.packages).items()
        if package not in ours
    }
    with everything.redis.client() as client:
        redis = client.info("server")["redis_version"]
    packages = ", ".join(f"{package} {version}" for package, version in (ours | theirs).items())
    return (
        f"Made on {datetime.now(UTC):%Y-%m-%d} by `python -m bench`, on {os.cpu_count()} cores "
        f"({platform.machine()}), one for the server and one for the load, Redis and the provider: "
        f"{everything.rounds} rounds of {everything.seconds} s each in turn, {CONNECTIONS} connections "
        f"({BATCH_CONNECTIONS} for the batches), "
        f"{driver_name()}. Turns made again, since the host took more than {TOLERATED:.0%} of the cores' "
        f"time: {everything.undisturbed.repeated}. Load average beforehand: {others:.1f}. "
        f"Python {platform.python_version()}, Redis {redis}, {packages}."
    )


if __name__ == "__main__":
    main()
