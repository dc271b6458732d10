"""The read-through cache."""

from .memory import MemoryCacheStore
from .options import CacheOptions
from .policy import Answer, CacheRead, Compute, ReadThroughCache
from .recent_entries import RecentEntries
from .store import CacheStore, Entry, Lease

__all__ = [
    "Answer",
    "CacheOptions",
    "CacheRead",
    "CacheStore",
    "Compute",
    "Entry",
    "Lease",
    "MemoryCacheStore",
    "ReadThroughCache",
    "RecentEntries",
]
