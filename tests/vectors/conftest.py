"""The vectors run on the stores of the contract suites: in memory, on fakeredis and on a real server."""

from tests.contract.conftest import backend, link, store_time

__all__ = ["backend", "link", "store_time"]
