"""Runs a short benchmark as a test. The default suite omits it: it needs two minutes and two cores.

pytest bench/smoke_test.py
"""

import sys
from pathlib import Path

import pytest

from bench import deletion
from bench.__main__ import KEYS, main


@pytest.mark.parametrize("key", KEYS)
def test_each_part_runs_alone_and_prints_its_row(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run one part, quickly."""
    page = Path("docs/performance.md").read_bytes()
    options = ["--quick", "--only", key, "--peer-python", sys.executable]
    monkeypatch.setattr(sys, "argv", ["bench", *options])

    main()

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("| work ")
    rows = 2 if key == "series-day" else 1
    assert printed[2 + rows] == "", "the first table has the rows of this part and no others"
    assert Path("docs/performance.md").read_bytes() == page, "a part of the run writes nothing"


def test_deletion_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Measure a few points."""
    monkeypatch.setattr(sys, "argv", ["bench.deletion", "--points", "20000", "--series", "10"])
    monkeypatch.setattr(deletion, "DENSE_POINTS", 20_000)

    deletion.main()

    assert capsys.readouterr().out.count(" µs ") == 12
