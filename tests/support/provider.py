"""The provider in a separate process."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

COMMAND = [sys.executable, "-m", "src.provider"]


class Provider:
    """A running provider. `log` is complete once it has ended."""

    def __init__(self, *flags: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.log = ""
        self.url = self._read_url()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.log += self.process.communicate(timeout=10)[1]
        return self.process.returncode

    def _read_url(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line
            if found := re.search(r"running on (http://\S+)", line):
                return found[1]
        raise AssertionError(f"the provider did not start:\n{self.log}")


@contextmanager
def running_provider(*flags: str) -> Iterator[Provider]:
    provider = Provider(*flags)
    try:
        yield provider
    finally:
        if provider.process.poll() is None:
            provider.process.kill()
            provider.process.communicate()
