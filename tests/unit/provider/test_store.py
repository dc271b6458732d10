"""The provider's keys and values."""

import pytest

from src.provider.store import KeyValueStore, StoreFullError


def test_a_value_is_stored_replaced_and_deleted():
    store = KeyValueStore({})
    assert store.put("a", b"1") is True
    assert store.put("a", b"2") is False
    assert store.get("a") == b"2"
    assert store.delete("a") is True
    assert store.delete("a") is False
    assert store.get("a") is None


def test_a_full_store_refuses_new_keys_and_still_replaces_old_ones():
    store = KeyValueStore({"seed": b"1"}, capacity=2)
    store.put("a", b"1")
    with pytest.raises(StoreFullError, match="already has 2 keys"):
        store.put("b", b"1")
    assert store.put("a", b"2") is False
    store.delete("a")
    assert store.put("b", b"1") is True


def test_keys_are_listed_in_order():
    assert KeyValueStore({"b": b"1", "a": b"1"}).keys() == ["a", "b"]
