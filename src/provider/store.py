"""A bounded key-value store in memory."""

from collections.abc import Mapping

MAX_KEYS = 10_000


class StoreFullError(Exception):
    """The store has its largest number of keys."""


class KeyValueStore:
    """A bounded dictionary of documents as bytes.

    Args:
        entries: The entries at first.
        capacity: The largest number of keys, including those of `entries`.
    """

    def __init__(self, entries: Mapping[str, bytes], capacity: int = MAX_KEYS) -> None:
        self._entries = dict(entries)
        self._capacity = capacity

    def get(self, key: str) -> bytes | None:
        """Return the value of `key`; None if there is no such key."""
        return self._entries.get(key)

    def put(self, key: str, value: bytes) -> bool:
        """Store `value` under `key`.

        Returns:
            True if the key is new, False if a value was replaced.

        Raises:
            StoreFullError: The key is new, and the store is full.
        """
        is_new = key not in self._entries
        if is_new and len(self._entries) >= self._capacity:
            raise StoreFullError(f"the store already has {self._capacity} keys; delete one first")
        self._entries[key] = value
        return is_new

    def delete(self, key: str) -> bool:
        """Delete `key`, and return whether it existed."""
        return self._entries.pop(key, None) is not None

    def keys(self) -> list[str]:
        """Return all keys in ascending order."""
        return sorted(self._entries)
