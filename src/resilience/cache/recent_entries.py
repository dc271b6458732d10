"""The cache entries that a worker has read recently. They are served while Redis is unavailable."""

from collections import OrderedDict

from ..clock import Clock
from .store import Entry

_LARGEST_SHARE = 0.1
"""The largest share of the memory for one entry."""


class RecentEntries:
    """Entries with ages by the clock of this process. An expired entry is removed.

    Args:
        clock: The clock for ages.
        max_bytes: The largest total size of keys and bodies. Beyond it, the least recently used entry is
            removed. An entry larger than a tenth of this size is not kept. 0: no entry is kept.
    """

    def __init__(self, clock: Clock, max_bytes: int) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, tuple[Entry, float]] = OrderedDict()

    def put(self, key: str, entry: Entry | None) -> None:
        """Replace the entry under `key` by `entry`, which was just read. None removes the entry."""
        self.drop(key)
        if entry is None or (size := _size(key, entry)) > _LARGEST_SHARE * self._max_bytes:
            return
        self._entries[key] = entry, self._clock.monotonic()
        self._bytes += size
        while self._bytes > self._max_bytes:
            self.drop(next(iter(self._entries)))

    def get(self, key: str) -> Entry | None:
        """Return the entry under `key` with its current age and remaining time, or None if there is none."""
        if key not in self._entries:
            return None
        entry, put_at = self._entries[key]
        elapsed = self._clock.monotonic() - put_at
        if elapsed >= entry.remaining_seconds:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry._replace(
            age_seconds=entry.age_seconds + elapsed, remaining_seconds=entry.remaining_seconds - elapsed
        )

    def drop(self, key: str) -> None:
        """Remove the entry under `key`, if there is one."""
        if key in self._entries:
            entry, _ = self._entries.pop(key)
            self._bytes -= _size(key, entry)


def _size(key: str, entry: Entry) -> int:
    return len(key) + len(entry.body)
