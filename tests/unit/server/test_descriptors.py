"""The number of connections that the limit of open files allows."""

import sys

import pytest

if sys.platform == "win32":
    pytest.skip("Windows has no limit of open files", allow_module_level=True)

import resource

from src.server.descriptors import RESERVED, limit_connections

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "wanted", "fitting", "raised_to"),
    [
        ((4096, 4096), 1000, 1000, 4096),
        ((1024, 4096), 1000, 1000, 1000 + RESERVED),
        ((256, UNLIMITED), 1000, 1000, 1000 + RESERVED),
        ((UNLIMITED, UNLIMITED), 1000, 1000, UNLIMITED),
        ((256, 1024), 1000, 1024 - RESERVED, 1024),
        ((64, 64), 1000, 32, 64),
    ],
)
def test_the_limit_is_raised_as_far_as_needed_and_allowed(monkeypatch, limits, wanted, fitting, raised_to):
    found = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: found[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: found.append(new))
    assert limit_connections(wanted) == fitting
    assert found[-1] == (raised_to, limits[1])


def test_if_the_limit_cannot_be_raised_fewer_connections_are_allowed(monkeypatch):
    def refuse(*_):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, UNLIMITED))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert limit_connections(1000) == 256 - RESERVED
