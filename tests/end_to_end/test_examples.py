"""Every example runs as documented and prints the expected results."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from examples import fastapi_resilience

pytestmark = pytest.mark.slow

FACTS = {
    "rate_limiting": [
        # algorithm, allowed requests of each burst, maximum in any window
        "sliding_window_log 1 4 1 0 5 5",
        "sliding_window_counter 1 4 0 2 3 6",
        "fixed_window 1 4 5 0 5 9",
        "token_bucket 1 4 1 3 2 8",
        "leaky_bucket 1 4 1 3 2 8",
        "hit, cost 4 no 2 10.0 s",  # the refusal
        "hit, cost 2 yes 0",  # shows that the refusal took no units
        "3.00 call 4 started",
        "call 6 rejected, retry after 4 s",
    ],
    "retry_patterns": [
        "exponential 0.10 0.20 0.40 0.80 1.60 1000",
        "answer after 3 calls",
        "raised ServiceDownError() after 4 calls",
        "raised ValueError('no such account') after 1 calls",
        "Retry-After Retried attempt=1 delay=3.00",
        "none 4000 4.00 times",
        "10 % of calls, 10 in reserve 1109 1.11 times",
    ],
    "circuit_breaker": [
        "5.10 bank StateChanged before=CLOSED after=OPEN reason=failures in a row: 3",
        "43.10 bank StateChanged before=HALF_OPEN after=CLOSED reason=probes succeeded: 1",
        "calls that reached the service 25",
        "StateChanged before=CLOSED after=OPEN reason=slow calls: 5 of 10",
        "force_open OPEN rejected at once forced open",
        "force_closed, down CLOSED failed forced closed",
    ],
    "combined_patterns": [
        "flaky: 20 % fail bare 158 0 42",
        "flaky: 20 % fail guarded 199 1 0",
        "long tail: 4 % take 3 s guarded 200 0 0 0.15 s",
        "down: all fail bare 0 0 200",
        "down: all fail guarded 0 200 0",
        "before=HALF_OPEN after=CLOSED reason=probes succeeded: 1",
    ],
    "fastapi_resilience": [
        '0 up 200 "clients";r=7;t=10 1',
        "1 down 503 1 2 price unavailable",
        "3 down 503 5 0 refused by prices",
        "9 up 429 1 0 refused by clients",
        '12 up 200 "clients";r=2;t=10 1',
    ],
}


def test_every_example_is_tested():
    assert {path.stem for path in Path("examples").glob("*.py")} - {"__init__"} == FACTS.keys()


@pytest.mark.parametrize("as_module", [True, False], ids=["as a module", "as a file"])
@pytest.mark.parametrize("name", FACTS)
def test_an_example_runs_and_prints_at_most_80_columns(name, as_module):
    program = ["-m", f"examples.{name}"] if as_module else [f"examples/{name}.py"]
    ran = subprocess.run(
        [sys.executable, "-W", "error", *program],
        env=os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    shown = re.sub(r"\s+", " ", ran.stdout)
    assert [fact for fact in FACTS[name] if fact not in shown] == [], ran.stdout
    assert "…" not in ran.stdout, "a part of the output is missing"


async def test_the_app_of_the_example_can_be_served():
    transport = httpx.ASGITransport(fastapi_resilience.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        answers = [await client.get("/prices/tea") for _ in range(9)]

    assert answers[0].json() == {"item": "tea", "price": 9.5}
    assert [answer.status_code for answer in answers] == [200] * 8 + [429]
