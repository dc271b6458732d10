"""The import: points from a file, or from standard input, into a running service."""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rich.console import Console
from rich.progress import DownloadColumn

from src.cli.transfer.exporting import STANDARD
from src.cli.transfer.import_state import ImportState, ImportStateFile
from src.cli.transfer.progress import running_progress
from src.cli.transfer.service_client import (
    DEFAULT_URL,
    BatchResult,
    BatchTooLargeError,
    ServiceClient,
    TransferError,
    check_service,
    connect_service,
)
from src.resilience.clock import Clock

MAX_BATCH_BYTES = 1 << 20
"""The largest number of bytes of the lines of a batch, unless a single line is longer."""

MAX_BATCH_POINTS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """The options of an import, with the names of the flags.

    Attributes:
        file: The file, with a point a line; `STANDARD` for standard input. A name that ends with `.gz` stands
            for gzip.
        url: Base URL of the service, http or https.
        api_key: Its key, if it needs one.
        batch_points: Points sent at once, 1 to `MAX_BATCH_POINTS`.

    Raises:
        ValueError: An option is out of its range; the message begins with its name.
    """

    file: str
    url: str = DEFAULT_URL
    api_key: str | None = None
    batch_points: int = 5_000

    def __post_init__(self) -> None:
        check_service(self.url, self.api_key)
        if not 1 <= self.batch_points <= MAX_BATCH_POINTS:
            raise ValueError(f"batch_points must be 1 to {MAX_BATCH_POINTS}, not {self.batch_points}")


async def run_import(options: ImportOptions, console: Console, clock: Clock, stdin: BinaryIO) -> int:
    """Import, with a progress bar if `console` is a terminal.

    A file that was imported in part is continued. Each batch has its own idempotency key, so a batch
    whose answer was lost is stored once.

    Args:
        options: The options.
        console: Shows the progress, the points that are rejected, and the result.
        clock: The clock for the waits that the service requests.
        stdin: Standard input.

    Returns:
        The number of points that were rejected, in earlier runs too.

    Raises:
        TransferError: The import is not complete.
    """
    states = None if options.file == STANDARD else ImportStateFile(Path(options.file), options.url)
    found = states.load() if states else None
    state = found or ImportState(options.batch_points)
    if not state.batch_points:
        state = replace(state, batch_points=options.batch_points)
    with _opened(options.file, stdin) as source:
        batches = _Batches(source, state.batch_points)
        if state.lines:
            batches.skip(state, options)
            console.print(f"Continuing after line {state.lines}.")
        async with connect_service(options.url, options.api_key, clock, console.print) as service:
            state = await _import(batches, state, states, service, console)
    console.print(f"Imported {state.accepted} points from {options.file} into {options.url}.")
    if state.rejected:
        console.print(f"The service rejected {state.rejected} points.")
    return state.rejected


async def _import(
    batches: "_Batches",
    state: ImportState,
    states: ImportStateFile | None,
    service: ServiceClient,
    console: Console,
) -> ImportState:
    if states:  # before the first batch, whose answer may be lost
        states.save(state)
    with running_progress(console, DownloadColumn()) as progress:
        task = progress.add_task("bytes", total=batches.source.size)
        for batch in batches:
            if batch.numbers:
                result = await _store(batch, service, state, states)
                for error in result.errors:
                    console.print(f"line {batch.numbers[error.index]}: {error.field}: {error.message}")
                state = replace(
                    state,
                    accepted=state.accepted + result.accepted,
                    rejected=state.rejected + result.rejected,
                )
                progress.update(task, completed=batches.source.position())
            state = replace(state, lines=batches.count, digest=batches.digest)
            if states:
                states.save(state)
    return state


async def _store(
    batch: "_Batch", service: ServiceClient, state: ImportState, states: ImportStateFile | None
) -> BatchResult:
    try:
        return await service.store(batch.lines, batch.key)
    except BatchTooLargeError:
        if states:
            states.save(replace(state, batch_points=0))
        raise


class _Source(NamedTuple):
    """The source of an import.

    Attributes:
        lines: Its lines. A line that is longer than `MAX_BATCH_BYTES` is split into parts.
        size: Its size in bytes, None if it is unknown.
        position: Returns how many bytes have been read.
    """

    lines: Iterator[bytes]
    size: int | None
    position: Callable[[], int]


@contextmanager
def _opened(name: str, stdin: BinaryIO) -> Iterator[_Source]:
    """Open the source of the import.

    Raises:
        TransferError: The source can't be read.
    """
    if name == STANDARD:
        yield _Source(iter(partial(stdin.readline, MAX_BATCH_BYTES), b""), None, lambda: 0)
        return
    path = Path(name)
    try:
        with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else nullcontext(file) as lines:
            yield _Source(iter(partial(lines.readline, MAX_BATCH_BYTES), b""), path.stat().st_size, file.tell)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise TransferError(f"{name} is not gzip, or is cut short") from None
    except OSError as error:
        raise TransferError(f"{name} can't be read: {error.strerror}") from None


class _Batch(NamedTuple):
    """Lines that are sent at once.

    Attributes:
        lines: The lines, without blank ones.
        numbers: The number of each line in the file, from 1.
        key: The idempotency key, which depends on all lines from the beginning to the last one.
    """

    lines: bytes
    numbers: list[int]
    key: str


class _Batches:
    """The batches of a file.

    Args:
        source: The file.
        most: The largest number of points in a batch.

    Attributes:
        source: The file.
        count: Number of lines so far.
    """

    def __init__(self, source: _Source, most: int) -> None:
        self.source = source
        self._most = most
        self._hash = hashlib.sha256()
        self._next: bytes | None = None
        self.count = 0

    @property
    def digest(self) -> str:
        """SHA-256 of the lines so far."""
        return self._hash.hexdigest()

    def skip(self, state: ImportState, options: ImportOptions) -> None:
        """Skip the lines that have been imported.

        Raises:
            TransferError: The file no longer begins with these lines.
        """
        while self.count < state.lines and self._take():
            pass
        if self.digest != state.digest:
            raise TransferError(
                f"{options.file} has changed since its import into {options.url} began: remove "
                f"{options.file}.import.json to import all of it"
            )

    def __iter__(self) -> Iterator[_Batch]:
        while self._peek():
            lines: list[bytes] = []
            numbers: list[int] = []
            size = 0
            while (line := self._peek()) and len(lines) < self._most:
                if lines and size + len(line) > MAX_BATCH_BYTES:
                    break
                self._take()
                if line.strip():
                    lines.append(line if line.endswith(b"\n") else line + b"\n")
                    numbers.append(self.count)
                    size += len(line)
            yield _Batch(b"".join(lines), numbers, f"{self.digest}-{len(lines)}")

    def _peek(self) -> bytes:
        if self._next is None:
            self._next = next(self.source.lines, b"")
        return self._next

    def _take(self) -> bytes:
        line, self._next = self._peek(), None
        if line:
            self._hash.update(line)
            self.count += 1
        return line
