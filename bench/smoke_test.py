"""Does the benchmark run, in little? Not in the default suite: it takes half a minute, and two cores.

pytest bench/smoke_test.py
"""

import sys
from pathlib import Path

import pytest

from bench.__main__ import main


def test_a_short_run_prints_every_table_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run every work but the growth once."""
    works = ["ingest", "cached", "refused", "batch", "half-load", "frozen"]
    options = ["--rounds", "1", "--seconds", "1", "--peer-python", sys.executable]
    monkeypatch.setattr(sys, "argv", ["bench", "--only", *works, *options])
    page = Path("docs/performance.md").read_bytes()

    main()

    printed = capsys.readouterr()
    assert "`POST /api/metrics`, limiter on" in printed.out
    assert "with Redis stopped" in printed.out
    assert printed.out.count("| this API") == 4, "a row for each work at full speed"
    assert Path("docs/performance.md").read_bytes() == page, "a part of the run writes nothing"
