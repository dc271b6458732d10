"""The file of an export that can be continued.

While the export runs, its lines are in `FILE.part`, and what it exports is in `FILE.part.json`. Once the
export is complete, `FILE.part` becomes `FILE`. A process that is killed leaves both, and the next export to
`FILE` continues after the last complete line.

A file whose name ends with `.gz` is a sequence of gzip members (RFC 1952, section 2.2), one for each block of
lines. So a new member may begin at the end of the last complete one.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import orjson

from src.cli.transfer.service_client import TransferError

BLOCK_BYTES = 1 << 20
"""Lines that are written at once. They are what a process loses that is killed."""

_READ_BYTES = 1 << 16
_GZIP_WINDOW_BITS = 31


class LineSink(Protocol):
    """The destination of the lines of an export."""

    def write(self, lines: bytes) -> None:
        """Write whole lines."""
        ...


@dataclass(slots=True)
class Tail:
    """The end of the lines so far: the last timestamp of the last type, and the lines that have both.

    Attributes:
        lines: Number of all lines.
        type: The type of the last line; empty if there is none.
        timestamp: The timestamp of the last line.
        count: Number of the last lines with this type and timestamp.
    """

    lines: int = 0
    type: str = ""
    timestamp: str = ""
    count: int = 0
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, line: bytes) -> None:
        """Add a line.

        Raises:
            ValueError: It is not a point.
        """
        point = orjson.loads(line)
        if (point["type"], point["timestamp"]) != (self.type, self.timestamp):
            self.type, self.timestamp, self.count = point["type"], point["timestamp"], 0
            self._digest = hashlib.sha256()
        self.lines += 1
        self.count += 1
        self._digest.update(line)

    @property
    def digest(self) -> str:
        """A digest of the last `count` lines."""
        return self._digest.hexdigest()


class PartFile:
    """The file of an export, while it is open.

    Args:
        path: The path of the complete export.
        description: A description of the export, which a continued export must match.

    Attributes:
        tail: The end of the lines that an earlier export has left.

    Raises:
        TransferError: The file exists already, or can't be written, or an export of something else is there.
    """

    def __init__(self, path: Path, description: Mapping[str, object]) -> None:
        self._path = path
        self._part = path.parent / f"{path.name}.part"
        self._about = path.parent / f"{path.name}.part.json"
        self._is_gzip = path.suffix == ".gz"
        self._block = bytearray()
        if path.exists():
            raise TransferError(f"{path} exists already: remove it, or choose another file")
        try:
            self._check_description(description)
            self._file = self._part.open("r+b" if self._part.exists() else "w+b")
        except OSError as error:
            raise TransferError(f"{path} can't be written: {error.strerror}") from None
        try:
            self.tail, end = self._read_tail()
            self._file.truncate(end)
            self._file.seek(0, os.SEEK_END)
        except BaseException:
            self._file.close()
            raise

    def write(self, lines: bytes) -> None:
        """Write whole lines."""
        self._block += lines
        if len(self._block) >= BLOCK_BYTES:
            self._write_block()

    def close(self) -> None:
        """Close the file, so that another export can continue it. Once it is complete, do nothing."""
        if not self._file.closed:
            with self._file:
                self._write_block()
                is_empty = self._file.tell() == 0
            if is_empty:
                self._part.unlink()
                self._about.unlink()

    def complete(self) -> None:
        """Close the file and rename it to its final name."""
        with self._file:
            self._write_block()
            os.fsync(self._file.fileno())
        self._part.replace(self._path)
        self._about.unlink()

    def _write_block(self) -> None:
        if self._block:
            self._file.write(gzip.compress(self._block) if self._is_gzip else self._block)
            self._file.flush()
            self._block.clear()

    def _check_description(self, description: Mapping[str, object]) -> None:
        if not self._part.exists() or not self._part.stat().st_size:
            self._about.write_bytes(orjson.dumps(description))
        elif not self._about.exists() or orjson.loads(self._about.read_bytes()) != description:
            raise TransferError(
                f"{self._part} is of another export: remove it, or choose another file than {self._path}"
            )

    def _read_tail(self) -> tuple[Tail, int]:
        """Return the tail of the complete lines, and the position of its end."""
        tail, end = Tail(), 0
        try:
            for block, end_of_block in _members(self._file) if self._is_gzip else _lines(self._file):
                for line in block.splitlines(keepends=True):
                    tail.add(line)
                end = end_of_block
        except (ValueError, KeyError, TypeError):
            raise TransferError(f"{self._part} has something else than points: remove it") from None
        return tail, end


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield each complete line, and the position of its end."""
    end = 0
    for line in file:
        if line.endswith(b"\n"):
            end += len(line)
            yield line, end


def _members(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the content of each complete gzip member, and the position of its end, up to a broken one."""
    end, unread = 0, b""
    while True:
        member, parts = zlib.decompressobj(wbits=_GZIP_WINDOW_BITS), []
        while not member.eof:
            piece = unread or file.read(_READ_BYTES)
            if not piece:
                return
            try:
                parts.append(member.decompress(piece))
            except zlib.error:
                return
            unread = member.unused_data
            end += len(piece) - len(unread)
        yield b"".join(parts), end
