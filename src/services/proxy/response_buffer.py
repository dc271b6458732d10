"""An answer of the upstream as it comes in: written once, read by many, each from the start.

Whoever reads gets what has arrived so far and waits for the rest. So a first byte goes on before the last has
come, and a slow reader keeps nobody waiting. A buffer holds its whole answer; who writes it bounds it, and a
`BufferBudget` bounds what readers who take their time keep from being freed.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from src.services.errors import ServiceError
from src.services.proxy.headers import Headers

_END_OF_LINE = b"\r\n"
_END_OF_HEADERS = b"\r\n\r\n"


class ResponseCutError(ServiceError):
    """The answer broke off after it had begun. The message says why, and the cause is what it failed with."""


@dataclass(frozen=True, slots=True)
class Head:
    """What comes before the body."""

    status: int
    headers: Headers


class ResponseBuffer:
    """One answer.

    Attributes:
        length: Of the body so far, in bytes.
    """

    def __init__(self) -> None:
        self.length = 0
        self._head: Head | None = None
        self._chunks: list[bytes] = []
        self._is_over = False
        self._error: Exception | None = None
        self._news = asyncio.Event()

    def begin(self, head: Head) -> None:
        """Write what comes before the body."""
        self._head = head
        self._tell()

    def write(self, chunk: bytes) -> None:
        """Write the next piece of the body."""
        self._chunks.append(chunk)
        self.length += len(chunk)
        self._tell()

    def end(self) -> None:
        """Say that the answer is complete."""
        self._is_over = True
        self._tell()

    def fail(self, error: Exception) -> None:
        """Say that nothing more comes, and why."""
        self._error = error
        self.end()

    def forget(self) -> None:
        """Let go of the body: whoever has not read all of it is cut."""
        self._chunks.clear()
        self.length = 0
        self.fail(ResponseCutError("it was read too slowly, and newer answers need the memory"))

    async def head(self) -> Head:
        """Return what comes before the body as soon as it is there.

        Raises:
            Exception: What the buffer failed with before.
        """
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self._news.wait()
        return self._head

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body piece by piece, from its start, as it comes.

        Raises:
            ResponseCutError: It broke off; all that came before has been yielded.
        """
        position = 0
        while True:
            while position < len(self._chunks):
                yield self._chunks[position]
                position += 1
            if self._error is not None:
                raise ResponseCutError(str(self._error)) from self._error
            if self._is_over:
                return
            await self._news.wait()

    def packed(self, last: bytes = b"") -> bytes:
        """Return headers and body, with `last` at its end, as one value to be kept; without the status."""
        assert self._head is not None, "a buffer has a head before it has a body"
        lines = (name + b":" + value for name, value in self._head.headers)
        return b"".join((_END_OF_LINE.join(lines), _END_OF_HEADERS, *self._chunks, last))

    def unpack(self, status: int, packed: bytes) -> None:
        """Write the whole answer that `packed` was made of."""
        lines, _, body = packed.partition(_END_OF_HEADERS)
        fields = (line.partition(b":") for line in lines.split(_END_OF_LINE))
        self.begin(Head(status, tuple((name, value) for name, colon, value in fields if colon)))
        self.write(body)
        self.end()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class BufferBudget:
    """Tapes that are written and still read.

    A reader that takes nothing keeps its buffer from being freed for as long as its connection lasts. So the
    shelf forgets the oldest when all of them become too much.

    Args:
        max_bytes: What the bodies may come to. One alone may be longer.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffers: WeakKeyDictionary[ResponseBuffer, None] = (
            WeakKeyDictionary()
        )  # in the order they were put

    def put(self, buffer: ResponseBuffer) -> None:
        """Put a buffer to which nothing more is written."""
        older = [each for each in self._buffers if each.length]
        self._buffers[buffer] = None
        held = buffer.length + sum(each.length for each in older)
        for oldest in older:
            if held <= self._max_bytes:
                return
            held -= oldest.length
            del self._buffers[oldest]
            oldest.forget()
