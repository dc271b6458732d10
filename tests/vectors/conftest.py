"""The vectors run on the stores of the contract suites: in memory, on fakeredis and on a real server."""

from tests.contract.conftest import advance, backend, link, store_time

__all__ = ["advance", "backend", "link", "store_time"]
