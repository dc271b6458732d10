"""The rows of the first table: each result beside its target and its stretch target."""

from collections.abc import Mapping, Sequence
from statistics import median

from bench.contestants import OURS, STACKS
from bench.figures import TIMES, Turn, format_ratio, median_turn, times_as_fast
from bench.load import Load
from bench.memory import Footprint
from bench.peers.databases import DATABASES, INFLUXDB
from bench.rounds import FROZEN_RATE, FROZEN_SECONDS, HalfLoad
from bench.series_day import SeriesDay
from bench.summary_growth import Growth
from bench.works import SERIES, Work

HEADS = ("work", "reached", "bar", "stretch")


def full_speed_row(work: Work, turns: Mapping[str, Sequence[Turn]]) -> list[str]:
    """Return the row of a work: times the best stack, or units a second and times each database."""
    ours = turns[OURS.name]
    rate = median_turn(ours).rate
    if work.units > 1:
        reached = [f"{rate * work.units:,.0f} a second"]
        reached += [
            f"{format_ratio(times_as_fast(ours, turns[peer.name]))} {peer.name}"
            for peer in DATABASES
            if peer.name in turns
        ]
        return [work.title, "; ".join(reached), *work.target]
    ratios = [times_as_fast(ours, turns[peer.name]) for peer in STACKS if peer.name in turns]
    best = (
        f"{format_ratio(min(ratios))} the best peer" if ratios else f"{rate:,.0f} a second, no peer took part"
    )
    return [work.title, best, *work.target]


def half_load_row(found: Sequence[HalfLoad]) -> list[str]:
    """Return the row of the latency at half load; FastAPI's is the last."""
    reached = "; ".join(f"{item.name}: {item.p99_ms:.1f} ms at {item.rate:,.0f} a second" for item in found)
    theirs = found[-1].p99_ms
    worst = max(item.p99_ms for item in found[:-1])
    return ["p99 at half load", f"{format_ratio(worst / theirs)} FastAPI's ({reached})", f"≤ 2{TIMES}", ""]


def frozen_row(found: Mapping[str, Load]) -> list[str]:
    """Return the row of the requests while Redis is stopped."""
    cached = found["cached"]
    hits = (cached.requests - cached.errors) / (cached.requests + cached.lost)
    refused = found["refused"]
    reached = f"429s {refused.p99_ms:.1f} ms; summaries {cached.p99_ms:.1f} ms, {hits:.0%} of them answered"
    title = f"p99 of the first {FROZEN_SECONDS} s with Redis stopped, {FROZEN_RATE:.0f} a second"
    return [title, reached, "≤ 20 ms", ""]


def redis_time_row(microseconds: float) -> list[str]:
    """Return the row of the time that Redis needs for a measurement."""
    return ["Redis time for one measurement stored alone", f"{microseconds:.0f} µs", "≤ 50 µs", "40 µs"]


def many_types_row(milliseconds: float, types: int) -> list[str]:
    """Return the row of the longest time at a stretch that a batch of many types takes Redis."""
    title = f"Redis time at a stretch for a batch of {types:,} points of {types:,} types"
    return [title, f"{milliseconds:.0f} ms", "< 1,000 ms", ""]


def memory_row(found: Mapping[str, Footprint]) -> list[str]:
    """Return the row of the memory per point, for each form of ingest."""
    reached = "; ".join(f"{name} {_bytes(footprint)}" for name, footprint in found.items())
    return ["Redis memory a stored point", reached, "≤ 20; 24; 28 bytes", "16; 20; 24"]


def day_rows(day: SeriesDay) -> list[list[str]]:
    """Return the rows of a day of many series: memory, and the summaries."""
    reached = f"{1000 * day.matching_seconds:.0f} ms; {1000 * day.groups_seconds:.0f} ms"
    memory = f"Redis memory a point, {SERIES:,} series, a point every 10 s, over a day"
    reads = f"summary that matches {SERIES:,} series, daily, cold; with {SERIES:,} groups"
    return [
        [memory, _bytes(day.footprint), "≤ 32 bytes", "26"],
        [reads, reached, "≤ 120 ms; 150 ms", "60 ms"],
    ]


def cold_hour_row(seconds: Mapping[str, Sequence[float]], points: int) -> list[str]:
    """Return the row of the cold summary of an hour, in comparison with each database."""
    ours = seconds[OURS.name]
    reached = [f"{1000 * median(ours):.1f} ms"]
    for database in DATABASES:
        if theirs := seconds.get(database.name):
            times = median(their / our for their, our in zip(theirs, ours, strict=True))
            reached.append(f"{database.name} {1000 * median(theirs):,.0f} ms, {format_ratio(times)} as long")
    title = f"cold summary of an hour, {points:,} points"
    return [title, "; ".join(reached), f"{INFLUXDB.name} ≥ 20{TIMES} as long", f"50{TIMES}"]


def growth_row(growth: Growth) -> list[str]:
    """Return the row of the growth of a cold summary."""
    small, large = growth.counts
    slowest = max(some[-1] for some in growth.seconds.values())
    of_all = format_ratio(growth.read_all_seconds / slowest)
    reached = (
        f"{format_ratio(growth.worst_request)} as a request; {format_ratio(growth.worst_in_store)} in the "
        f"store alone, at the worst time of day; a read of all points takes {of_all} as long"
    )
    title = f"cold summary over {large:,} points against {small:,}"
    return [title, reached, f"≤ 1.5{TIMES}", f"1.25{TIMES}"]


def _bytes(footprint: Footprint) -> str:
    return f"{footprint.memory_bytes:.1f} bytes (append-only file: {footprint.file_bytes:.0f})"
