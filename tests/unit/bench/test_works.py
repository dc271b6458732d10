"""What the benchmark has everybody do."""

import sys
from pathlib import Path

import orjson

from bench.contestants import STACKS, versions
from bench.works import BATCH_POINTS, BATCH_TYPES, works


def test_every_work_pits_us_against_both_stacks():
    for work in works():
        assert set(STACKS) < set(work.contestants)


def test_a_batch_has_as_many_points_as_it_counts_for():
    batch = next(work for work in works() if work.key == "batch")
    points = [orjson.loads(line) for line in batch.request.body.splitlines()]
    assert len(points) == batch.units == BATCH_POINTS
    assert len({point["type"] for point in points}) == BATCH_TYPES


def test_a_package_that_an_interpreter_has_not_is_told_apart():
    found = versions(Path(sys.executable), ("fastapi", "no-such-package"))
    assert found["fastapi"]
    assert found["no-such-package"] is None
