"""Keys and values in memory, as many as there is room for."""

from collections.abc import Mapping

MAX_KEYS = 10_000


class StoreFullError(Exception):
    """There is no room for one more key."""


class KeyValueStore:
    """A bounded dictionary of documents, each kept as the bytes it came in.

    Args:
        entries: What it holds at first.
        capacity: How many keys there is room for, those of `entries` included.
    """

    def __init__(self, entries: Mapping[str, bytes], capacity: int = MAX_KEYS) -> None:
        self._entries = dict(entries)
        self._capacity = capacity

    def get(self, key: str) -> bytes | None:
        """Return the value of `key`, None where there is none."""
        return self._entries.get(key)

    def put(self, key: str, value: bytes) -> bool:
        """Store `value` under `key`.

        Returns:
            True when the key is new, False when a value was replaced.

        Raises:
            StoreFullError: The key is new and there is no room for it.
        """
        is_new = key not in self._entries
        if is_new and len(self._entries) >= self._capacity:
            raise StoreFullError(f"all {self._capacity} keys are taken, delete one first")
        self._entries[key] = value
        return is_new

    def delete(self, key: str) -> bool:
        """Forget `key` and return whether it was there."""
        return self._entries.pop(key, None) is not None

    def keys(self) -> list[str]:
        """Return every key in order."""
        return sorted(self._entries)
