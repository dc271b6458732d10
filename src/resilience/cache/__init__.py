"""The read-through cache."""

from .answer import Answer, CacheRead
from .memory import MemoryCacheStore
from .options import CacheOptions
from .policy import Compute, ReadThroughCache
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
