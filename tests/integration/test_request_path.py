"""The modules of `src` that the two most frequent requests pass, counted by their calls.

docs/architecture.md names the two numbers. A module more means a longer way: change the numbers only where
the module earns its place.
"""

import asyncio
import re
import sys
from contextlib import contextmanager
from pathlib import Path

from tests.support.api import metric

SOURCE = Path("src").resolve()
TICKS = 20
"""Iterations of the event loop in which the worker reports an answered request to logs and instruments."""


@contextmanager
def modules_passed():
    """Collect the modules of which a function is called."""
    passed = set()

    def note_call(frame, event, _argument):
        module = frame.f_code.co_filename
        if event == "call" and module.startswith(f"{SOURCE}/"):
            passed.add(module.removeprefix(f"{SOURCE}/"))

    sys.setprofile(note_call)
    try:
        yield passed
    finally:
        sys.setprofile(None)


async def modules_of(request):
    await request()  # the first request may open connections and load scripts
    for _ in range(TICKS):
        await asyncio.sleep(0)
    with modules_passed() as passed:
        answer = await request()
        for _ in range(TICKS):
            await asyncio.sleep(0)
    return answer, passed


def number_of(request):
    page = Path("docs/architecture.md").read_text(encoding="utf-8")
    return int(re.search(rf"\*{request}\* passes (\d+)\b", page)[1])


async def test_the_modules_that_a_measurement_passes(api):
    answer, passed = await modules_of(lambda: api.post("/api/metrics", json=metric()))
    assert answer.status_code == 201
    assert len(passed) <= number_of("a measurement"), sorted(passed)


async def test_the_modules_that_a_cached_summary_passes(api):
    await api.post("/api/metrics", json=metric())
    answer, passed = await modules_of(lambda: api.get("/api/metrics/summary?type=cpu"))
    assert answer.headers["x-cache"] == "HIT"
    assert len(passed) <= number_of("a cached summary"), sorted(passed)
