"""The vectors run against the stores of the contract suites: memory, fakeredis and a real redis-server."""

from tests.contract.conftest import backend, link, store_time

__all__ = ["backend", "link", "store_time"]
