"""The commands of README.md, typed one after the other, print what it says."""

import shutil
import sys

import pytest

from src.storage.redis.server_binary import find_redis_server
from tests.support.checkout import ROOT, Checkout
from tests.support.readme import as_script, assert_printed, examples

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="there is no bash here"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here"),
    pytest.mark.skipif(find_redis_server() is None, reason="there is no redis-server here"),
]


def test_what_there_is_to_try_works_as_typed(checkout: Checkout) -> None:
    started = checkout.start(CIRCUIT_BREAKER_RESET_TIMEOUT="2", EXTERNAL_SERVICE_FAILURE_RATE="0")
    assert started.returncode == 0, started.stdout + started.stderr
    blocks = [
        example
        for example in examples((ROOT / "README.md").read_text(encoding="utf-8"), "Try")
        if "docker-compose" not in example.commands
    ]
    assert len(blocks) >= 6
    script = as_script(blocks, ("http://localhost:8000", checkout.url), ("sleep 30", "sleep 2"))
    (checkout.folder / "typed.sh").write_text(f"#!/usr/bin/env bash\ncd {checkout.folder}\n{script}")
    (checkout.folder / "typed.sh").chmod(0o755)

    typed = checkout.run("typed.sh")

    assert_printed(blocks, typed.stdout)
