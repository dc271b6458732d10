"""Cache entries as a worker last read them, for while Redis is unavailable."""

from collections import OrderedDict

from ..clock import Clock
from .store import Entry

_LARGEST_SHARE = 0.1
"""Of all there is room for, that one entry may take."""


class RecentEntries:
    """Entries that grow old by this process's clock and are gone when they have run out.

    Args:
        clock: By which they age.
        max_bytes: Of keys and bodies together; beyond that the one whose last use is longest ago goes, and
            one larger than a tenth of it is not kept at all. 0 keeps none.
    """

    def __init__(self, clock: Clock, max_bytes: int) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, tuple[Entry, float]] = OrderedDict()

    def put(self, key: str, entry: Entry | None) -> None:
        """Keep `entry` as what it is at this moment, and no earlier one; None: there is none now."""
        self.drop(key)
        if entry is None or (size := _size(key, entry)) > _LARGEST_SHARE * self._max_bytes:
            return
        self._entries[key] = entry, self._clock.monotonic()
        self._bytes += size
        while self._bytes > self._max_bytes:
            self.drop(next(iter(self._entries)))

    def get(self, key: str) -> Entry | None:
        """Return what is left of an entry: older than when it was put, and with less time to go."""
        if key not in self._entries:
            return None
        entry, put_at = self._entries[key]
        since = self._clock.monotonic() - put_at
        if since >= entry.remaining_seconds:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry._replace(
            age_seconds=entry.age_seconds + since, remaining_seconds=entry.remaining_seconds - since
        )

    def drop(self, key: str) -> None:
        """Forget the entry, if there is one."""
        if key in self._entries:
            entry, _ = self._entries.pop(key)
            self._bytes -= _size(key, entry)


def _size(key: str, entry: Entry) -> int:
    return len(key) + len(entry.body)
