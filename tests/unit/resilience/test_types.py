"""The types of the ways to call: signatures are kept, and misuse is a type error."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(find_spec("mypy") is None, reason="there is no mypy here")

SETUP = """
from src.resilience import Bulkhead, BulkheadOptions, Retry, RetryOptions, SystemClock, Timeout
from src.resilience.clock import SystemRandomizer

clock = SystemClock()
retry = Retry(RetryOptions(), clock, SystemRandomizer())
bulkhead = Bulkhead(BulkheadOptions(), clock)


@retry
async def total(items: int, *, discount: int = 0) -> int:
    return items - discount


@retry.sync
def stock(item: str) -> int:
    return 7
"""

RIGHT = """
import asyncio
from collections.abc import Coroutine

from src.resilience import *

every_name_is_imported: Exponential = Exponential(0.1, 5.0)


async def use() -> int:
    task: asyncio.Task[int] = asyncio.create_task(total(2, discount=1))
    RetryOptions(retry_on=OSError, abort_on=(ConnectionError, TimeoutError))
    patient: Bulkhead = bulkhead.with_options(max_wait_seconds=9)
    async with patient as permit:
        permit.fail(ValueError("failed"))
    count: int = stock("tea")
    return await task + await Timeout(1, clock).run(lambda: total(3)) + retry.run_sync(lambda: count)
"""

WRONG = [
    'total("two")',
    "total(2, discounts=1)",
    'x: str = stock("tea")',
    'retry.with_options(attempts="3")',
    "retry.with_options(retries=3)",
    "@retry\ndef plain() -> int:\n    return 42",
    "async def use() -> str:\n    return await total(2)",
    'bulkhead.permit().fail("failed")',
    "async def use() -> None:\n    async with retry:\n        pass",
    "bulkhead.run_sync(lambda: 42)",
    "from src.resilience import Linear",
    "RetryOptions(retry_on=[OSError])",
    "RetryOptions(abort_on=(OSError, int))",
]


def files_in_error(folder, package, *options):
    """Check files with valid and invalid uses of `package`; return the files in error, and mypy's output."""
    right = folder / "right.py"
    right.write_text((SETUP + RIGHT).replace("src.resilience", package))
    wrong = [folder / f"wrong_{number}.py" for number in range(len(WRONG))]
    for path, code in zip(wrong, WRONG, strict=True):
        path.write_text(f"{SETUP}\n{code}\n".replace("src.resilience", package))

    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", *options, right, *wrong]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)

    rejected = {
        line.split(":")[0].rsplit("/", 1)[-1] for line in ran.stdout.splitlines() if ": error:" in line
    }
    return rejected, ran.stdout + ran.stderr


WRONG_FILES = {f"wrong_{number}.py" for number in range(len(WRONG))}


@pytest.mark.slow
def test_signatures_are_kept_and_misuse_is_an_error(tmp_path):
    rejected, output = files_in_error(tmp_path, "src.resilience")
    assert rejected == WRONG_FILES, output
