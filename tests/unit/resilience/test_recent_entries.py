from src.resilience.cache.recent_entries import RecentEntries
from src.resilience.cache.store import Entry


def entry(body=b"one", age=1.0, remaining=10.0):
    return Entry(body, age, remaining, 0.5)


def test_an_entry_ages_until_it_expires(clock):
    entries = RecentEntries(clock, 1000)
    entries.put("k", entry())
    clock.jump(4)
    assert entries.get("k") == Entry(b"one", 5.0, 6.0, 0.5)
    clock.jump(6)
    assert entries.get("k") is None


def test_a_newer_entry_replaces_an_older_one_and_can_be_dropped(clock):
    entries = RecentEntries(clock, 1000)
    assert entries.get("k") is None
    entries.put("k", entry(b"one"))
    entries.put("k", entry(b"two"))
    assert entries.get("k").body == b"two"
    entries.drop("k")
    entries.drop("k")
    assert entries.get("k") is None
    entries.put("k", entry(b"three"))
    entries.put("k", None)
    assert entries.get("k") is None


def test_the_least_recently_used_entry_is_evicted(clock):
    entries = RecentEntries(clock, 100)
    for key in "abcdefghij":
        entries.put(key, entry(b"123456789"))
    entries.get("a")
    entries.put("k", entry(b"123456789"))
    assert [key for key in "abcdefghijk" if entries.get(key)] == list("acdefghijk")


def test_a_large_entry_is_not_kept_and_evicts_nothing(clock):
    entries = RecentEntries(clock, 100)
    entries.put("a", entry(b"1"))
    entries.put("b", entry(b"1" * 10))
    assert entries.get("a")
    assert entries.get("b") is None


def test_a_large_entry_removes_an_earlier_entry_of_its_key(clock):
    entries = RecentEntries(clock, 100)
    entries.put("a", entry(b"old"))
    entries.put("a", entry(b"1" * 10))
    assert entries.get("a") is None


def test_a_capacity_of_zero_keeps_no_entry(clock):
    entries = RecentEntries(clock, 0)
    entries.put("a", entry(b""))
    assert entries.get("a") is None
