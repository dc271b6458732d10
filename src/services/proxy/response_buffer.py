"""An answer of the upstream while it arrives: written once, read by any number of callers from its start.

A reader gets what has arrived so far and then waits for the rest. So the first bytes are passed on before
the last have arrived, and a slow reader delays nobody else. A buffer holds the whole answer. Its writer
bounds the length of one answer, and a `BufferBudget` bounds all answers that slow readers keep in memory.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from src.services.errors import ServiceError
from src.services.proxy.cache_control import ReuseRules
from src.services.proxy.headers import Headers

CHUNK_BYTES = 64 * 1024
"""The largest number of bytes that a reader gets at once. A slow reader's connection holds no more."""


class ResponseCutError(ServiceError):
    """The answer ended early, after its head. The message has the reason."""


@dataclass(frozen=True, slots=True)
class Head:
    """The status and the headers of an answer.

    Attributes:
        status: HTTP status.
        headers: The headers for the caller.
        rules: The rules for the reuse of the answer.
    """

    status: int
    headers: Headers
    rules: ReuseRules = field(default_factory=ReuseRules)


class ResponseBuffer:
    """One answer. The writer calls `begin`, then `write` for each piece of the body, then `end` or `fail`."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._body = bytearray()
        self._is_complete = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def length(self) -> int:
        """Bytes of the body so far."""
        return len(self._body)

    @property
    def content(self) -> bytes:
        """The body so far."""
        return bytes(self._body)

    def begin(self, head: Head) -> None:
        """Write the head."""
        self._head = head
        self._wake_readers()

    def write(self, chunk: bytes) -> None:
        """Write the next piece of the body."""
        self._body += chunk
        self._wake_readers()

    def end(self) -> None:
        """Mark the answer as complete."""
        self._is_complete = True
        self._wake_readers()

    def fail(self, error: Exception) -> None:
        """End the answer before it is complete.

        Args:
            error: Raised by `head` if there is no head yet. Otherwise `body` raises a `ResponseCutError`.
        """
        self._error = error
        self.end()

    def discard(self) -> None:
        """Free the body. A reader that has not read all of it gets a `ResponseCutError`."""
        self._body.clear()
        self.fail(ResponseCutError("it was read too slowly, and newer answers need the memory"))

    async def head(self) -> Head:
        """Wait for the head and return it.

        Raises:
            Exception: The error with which the answer ended before its head.
        """
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        return self._head

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body from its start, at most `CHUNK_BYTES` at once, and wait for what is missing.

        Raises:
            ResponseCutError: The answer broke off. Everything that arrived before has been yielded, unless it
                was discarded.
        """
        position = 0
        while True:
            while chunk := bytes(self._body[position : position + CHUNK_BYTES]):
                position += len(chunk)
                yield chunk
            if self._error is not None:
                raise ResponseCutError(str(self._error)) from self._error
            if self._is_complete:
                return
            await self._changed.wait()

    def _wake_readers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class BufferBudget:
    """A bound on the answers that have ended and are still being read.

    A reader that takes nothing keeps its answer in memory for as long as its connection lasts. So when all
    answers together exceed the budget, the oldest are discarded.

    Args:
        max_bytes: The largest number of bytes of all bodies together. A single one may be longer.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffers: WeakKeyDictionary[ResponseBuffer, None] = WeakKeyDictionary()  # the oldest first

    def add(self, buffer: ResponseBuffer) -> None:
        """Count an answer that has ended, and discard the oldest answers if there are too many bytes."""
        older = [each for each in self._buffers if each.length]
        self._buffers[buffer] = None
        held_bytes = buffer.length + sum(each.length for each in older)
        for oldest in older:
            if held_bytes <= self._max_bytes:
                return
            held_bytes -= oldest.length
            del self._buffers[oldest]
            oldest.discard()
