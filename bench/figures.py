"""The arithmetic of the benchmark, and its tables as Markdown."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
"""The marks before and after the part of a page that the benchmark writes."""
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Turn:
    """The figures of one contestant in one round, or their medians over several rounds.

    Attributes:
        rate: Answers a second.
        p50_ms: Median latency.
        p99_ms: 99th percentile of the latency.
        cpu_seconds: Processor time of the server for a thousand requests.
        round_trips: The number of reads by Redis from sockets of clients, per request.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float
    round_trips: float


def median_turn(turns: Sequence[Turn]) -> Turn:
    """Return the median of each figure."""
    return Turn(*(median(getattr(turn, item.name) for turn in turns) for item in fields(Turn)))


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest of `values` that at least `percent` % of them do not exceed (the nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def times_as_fast(ours: Sequence[Turn], theirs: Sequence[Turn]) -> float:
    """Return our rate divided by `theirs`: the median of the ratios of all rounds.

    The turns of one round follow each other, so a disturbance is likely to affect both.
    """
    return median(mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True))


def format_ratio(times: float) -> str:
    """Return a ratio as text, with two digits or all digits before the decimal point."""
    return f"{times:.0f}{TIMES}" if times >= 99.5 else f"{times:.2g}{TIMES}"


def figures_rows(work: str, turns: Mapping[str, Sequence[Turn]], ours: str) -> list[list[str]]:
    """Return a row for each contestant of one work. The contestant `ours` is compared with each other."""
    medians = {name: median_turn(some) for name, some in turns.items()}
    return [
        [
            work if number == 0 else "",
            name,
            f"{turn.rate:,.0f}",
            "" if name == ours else format_ratio(times_as_fast(turns[ours], turns[name])),
            f"{turn.p50_ms:.1f}",
            f"{turn.p99_ms:.1f}",
            f"{turn.cpu_seconds:.2f}",
            f"{turn.round_trips:.2f}",
        ]
        for number, (name, turn) in enumerate(medians.items())
    ]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table in Markdown, with padded columns so that it is also readable as plain text.

    Args:
        heads: The heads of the columns.
        rows: The cells of each row.
        left: The number of columns that are aligned left. The others are aligned right.
    """
    widths = [max(3, *(len(row[column]) for row in (heads, *rows))) for column in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(heads), line(rule), *(line(row) for row in rows)])


def with_section(page: str, section: str) -> str:
    """Return `page` with the part between `BEGIN` and `END` replaced by `section`.

    Raises:
        ValueError: The page does not contain both marks, once each and in this order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise ValueError(f"the page must have {BEGIN} and {END}, once each")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"
