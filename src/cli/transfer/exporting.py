"""The export: one metric type or all of them, from a running service to a file or to standard output."""

from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import MofNCompleteColumn

from src.analytics.points import parse_timestamp
from src.cli.transfer.part_file import LineSink, PartFile, Tail
from src.cli.transfer.progress import running_progress
from src.cli.transfer.service_client import (
    DEFAULT_URL,
    ServiceClient,
    TransferError,
    check_service,
    connect_service,
)
from src.resilience.clock import Clock

STANDARD = "-"
"""The name of standard output, and of standard input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """The options of an export, with the names of the flags.

    Attributes:
        url: Base URL of the service, http or https.
        api_key: Its key, if it needs one.
        output: The file; `STANDARD` for standard output. A name that ends with `.gz` stands for gzip.
        type: The metric type; None for all of them.
        from_: The first instant, RFC 3339; None for the beginning.
        to: The instant after the last, RFC 3339; None for the end.
        label: `name:value` of the series, as the service takes them.

    Raises:
        ValueError: An option is out of its range; the message begins with its name.
    """

    url: str = DEFAULT_URL
    api_key: str | None = None
    output: str = STANDARD
    type: str | None = None
    from_: str | None = None
    to: str | None = None
    label: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_service(self.url, self.api_key)
        for name, text in (("from", self.from_), ("to", self.to)):
            try:
                parse_timestamp(text or "2000-01-01T00:00:00Z")
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


async def run_export(options: ExportOptions, console: Console, clock: Clock, stdout: BinaryIO) -> None:
    """Export, with a progress bar if `console` is a terminal.

    Args:
        options: The options.
        console: Shows the progress and the result.
        clock: The clock for the waits that the service requests.
        stdout: Standard output.

    Raises:
        TransferError: The export is not complete. The file keeps its lines, and the next export continues.
    """
    async with connect_service(options.url, options.api_key, clock, console.print) as service:
        if options.output == STANDARD:
            points = await _export(options, service, Tail(), _Stream(stdout), console)
        else:
            with _part_file(options) as file:
                if file.tail.lines:
                    console.print(f"Continuing after {file.tail.lines} points.")
                points = await _export(options, service, file.tail, file, console)
                file.complete()
    console.print(f"Exported {points} points from {options.url} to {options.output}.")


class _Stream:
    """Standard output as a `LineSink`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, lines: bytes) -> None:
        """Write whole lines at once."""
        self._stream.write(lines)
        self._stream.flush()


@contextmanager
def _part_file(options: ExportOptions) -> Iterator[PartFile]:
    described = {
        "type": options.type, "from": options.from_, "to": options.to, "labels": list(options.label),
    }  # fmt: skip
    file = PartFile(Path(options.output), described)
    try:
        with closing(file):
            yield file
    except OSError as error:
        raise TransferError(f"{options.output} can't be written: {error.strerror}") from None


async def _export(
    options: ExportOptions, service: ServiceClient, tail: Tail, sink: LineSink, console: Console
) -> int:
    """Write the points after `tail`, and return the number of all points."""
    sizes = await service.types()
    names = list(sizes) if options.type is None else [options.type]
    is_whole = not (options.from_ or options.to or options.label)
    points = tail.lines
    with running_progress(console, MofNCompleteColumn()) as progress:
        total = sum(sizes.get(name, 0) for name in names) if is_whole else None
        task = progress.add_task("points", total=total, completed=points)
        for name in names:
            if name < tail.type:
                continue
            start = tail.timestamp if name == tail.type else options.from_
            lines = service.export(_query(name, start, options))
            async for part in _after(tail, lines) if name == tail.type else lines:
                sink.write(part)
                points += part.count(b"\n")
                progress.update(task, completed=points)
    return points


def _query(name: str, start: str | None, options: ExportOptions) -> list[tuple[str, str]]:
    bounds = [(key, text) for key, text in (("from", start), ("to", options.to)) if text is not None]
    return [("type", name), *bounds, *(("label", label) for label in options.label)]


async def _after(tail: Tail, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of an export from the timestamp of `tail` on, without those that `tail` has.

    Raises:
        TransferError: The export begins with other lines.
    """
    known = Tail()
    async for part in lines:
        start = 0
        while known.lines < tail.count and start < len(part):
            end = part.index(b"\n", start) + 1
            known.add(part[start:end])
            start = end
        if known.lines == tail.count and start:
            _check_same(known, tail)
        if start < len(part):
            yield part[start:]
    _check_same(known, tail)


def _check_same(known: Tail, tail: Tail) -> None:
    if (known.count, known.digest) != (tail.count, tail.digest):
        raise TransferError(
            f"the points of {tail.type} at {tail.timestamp} have changed since the export began: remove the "
            "part that is there, and begin again"
        )
