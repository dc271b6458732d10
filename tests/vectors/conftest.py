"""The vectors run against the stores of the contract suites: memory, fakeredis and a real redis-server."""

from tests.contract.conftest import advance, backend, link, store_time

__all__ = ["advance", "backend", "link", "store_time"]
