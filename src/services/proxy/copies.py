"""Copies of the upstream's answers: which one answers a request, and which one takes the place of an error.

The settings limit how long a copy is kept. A copy answers requests while it is fresh: by the settings, by the
lifetime in the answer, and by the limits in the request. A stale copy may take the place of an error, since
the upstream can't be reached then (RFC 9111, section 4.2.4), unless the answer forbids that. The age of a
copy includes the age of the answer at its arrival.
"""

import math
import struct
from dataclasses import dataclass
from http import HTTPStatus

from src.resilience.cache.options import CacheOptions
from src.resilience.cache.store import CacheStore, Entry
from src.resilience.clock import Clock
from src.services.proxy.cache_control import CopyLimits
from src.services.proxy.headers import without
from src.services.proxy.response_buffer import Head, ResponseBuffer

MAX_COPY_BYTES = 256 * 1024
"""The longest body that is kept. All copies are in one Redis, beside everything else."""

_RULES = struct.Struct("<dd?")
"""The first bytes of a stored copy: the age in seconds at the time of storing, the lifetime in seconds, and
whether the copy may be used when it is stale."""

_END_OF_LINE = b"\r\n"
_END_OF_HEADERS = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of an answer.

    Attributes:
        head: The head of the answer.
        body: The whole body of the answer.
        age_seconds: The age of the answer.
        lifetime_seconds: The age from which the copy is stale; infinite if the answer states no lifetime.
        is_stale_allowed: Whether a stale copy may take the place of an error.
    """

    head: Head
    body: bytes
    age_seconds: float
    lifetime_seconds: float
    is_stale_allowed: bool

    def write_to(self, buffer: ResponseBuffer) -> ResponseBuffer:
        """Write the whole answer to an empty `buffer`, and return the buffer."""
        buffer.begin(self.head)
        buffer.write(self.body)
        buffer.end()
        return buffer


class Copies:
    """The copies, shared by all workers. While their store is unavailable there are none.

    Args:
        store: The store of the copies.
        options: The time for which copies are kept.
        clock: Measures the age of an answer until it is stored.
    """

    def __init__(self, store: CacheStore, options: CacheOptions, clock: Clock) -> None:
        self._store = store
        self._options = options
        self._clock = clock

    async def find_fresh(self, key: str, limits: CopyLimits) -> Copy | None:
        """Return the copy under `key` if it is fresh and a request with `limits` accepts it."""
        entry = await self._store.read(key, self._options)
        return None if entry is None else _accepted(entry, limits)

    async def find_for_error(self, key: str) -> Copy | None:
        """Return the copy under `key` if it may take the place of an error."""
        entry = await self._store.read_last_good(key, self._options)
        if entry is None:
            return None
        copy = _unpack(entry)
        return copy if copy.is_stale_allowed or copy.age_seconds < copy.lifetime_seconds else None

    async def find_fresh_or_lease(self, key: str, limits: CopyLimits, token: str) -> Copy | None:
        """Return the copy like `find_fresh`, or take the lease for storing another one.

        Args:
            key: The key of the copy.
            limits: The copies that the request accepts.
            token: Names the call that takes the lease.
        """
        found = await self._store.take_lease(key, token, math.inf, self._options)
        if not isinstance(found, Entry):
            return None
        copy = _accepted(found, limits)
        if copy is None:
            await self._store.take_lease(key, token, 0, self._options)
        return copy

    async def keep(self, key: str, token: str, buffer: ResponseBuffer, last: bytes) -> None:
        """Store an answer, if it may be kept, and end the lease. Nothing is stored if the lease was lost.

        Args:
            key: The key of the copy.
            token: Names the call that took the lease.
            buffer: The answer, except for its last piece.
            last: The last piece of its body.
        """
        head = await buffer.head()
        rules = head.rules
        age_seconds = self._clock.monotonic() - rules.generated_at
        is_useful = rules.is_stale_allowed or age_seconds < rules.lifetime_seconds
        is_small = buffer.length + len(last) <= MAX_COPY_BYTES
        if head.status == HTTPStatus.OK and rules.is_shared and is_useful and is_small:
            lines = (name + b":" + value for name, value in without(head.headers, {b"age"}))
            packed = b"".join((
                _RULES.pack(age_seconds, rules.lifetime_seconds, rules.is_stale_allowed),
                _END_OF_LINE.join(lines), _END_OF_HEADERS, buffer.content, last,
            ))  # fmt: skip
            await self._store.fill(key, token, packed, self._options)
        else:
            await self.release(key, token)

    async def release(self, key: str, token: str) -> None:
        """End the lease without storing anything."""
        await self._store.release(key, token)


def _accepted(entry: Entry, limits: CopyLimits) -> Copy | None:
    copy = _unpack(entry)
    fresh_seconds = min(entry.remaining_seconds, copy.lifetime_seconds - copy.age_seconds)
    is_fresh = fresh_seconds > limits.min_fresh_seconds
    return copy if is_fresh and copy.age_seconds < limits.max_age_seconds else None


def _unpack(entry: Entry) -> Copy:
    age_seconds, lifetime_seconds, is_stale_allowed = _RULES.unpack_from(entry.body)
    lines, _, body = entry.body[_RULES.size :].partition(_END_OF_HEADERS)
    fields = (line.partition(b":") for line in lines.split(_END_OF_LINE))
    head = Head(HTTPStatus.OK, tuple((name, value) for name, colon, value in fields if colon))
    return Copy(head, body, age_seconds + entry.age_seconds, lifetime_seconds, is_stale_allowed)
