"""The parent process of several workers, which replaces uvicorn's own.

uvicorn's parent process has these faults: its exit code is 0 if no worker can start; it stops all workers if
one new worker can't start; it ignores signals while it restarts workers or waits for their end; and it
ignores SIGQUIT.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Protocol

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Process

from src.resilience.clock import Clock, SystemClock

CHECK_SECONDS = 0.1
"""The time between two checks of the workers. A signal is handled within this time."""

ANSWER_SECONDS = 0.1
"""The longest time that a check waits for a worker's answer."""

SILENT_SECONDS = 20.0
"""The longest time without an answer before a worker is killed."""

MAX_BACKOFF_SECONDS = 30.0
"""The longest pause before the next start of a worker, if the last workers did not become ready."""

_log = logging.getLogger(__name__)


class WorkerProcess(Protocol):
    """The process of a worker, with the methods of uvicorn's `Process`."""

    @property
    def pid(self) -> int | None:
        """The process id; None before the start."""
        ...

    @property
    def exitcode(self) -> int | None:
        """The exit code; None while the process runs."""
        ...

    def start(self) -> None:
        """Start the process."""
        ...

    def is_ready(self, timeout: float) -> bool:
        """Return whether the worker answers within `timeout` seconds that it is ready."""
        ...

    def ping(self, timeout: float) -> bool:
        """Return whether the worker answers within `timeout` seconds."""
        ...

    def terminate(self) -> None:
        """Send the process the signal to stop."""
        ...

    def kill(self) -> None:
        """End the process at once."""
        ...

    def join(self) -> None:
        """Wait for the end of the process."""
        ...


class Supervisor:
    """Keeps several workers running.

    Args:
        spawn: Creates the process of a worker, which is not started yet.
        workers: The number of workers, at least 1.
        stop_seconds: The longest time in which a worker must stop before it is killed.
        stop_listening: Called before the workers are stopped.
        clock: Measures the times.
        pause: Waits for a number of seconds.
    """

    def __init__(
        self,
        spawn: Callable[[], WorkerProcess],
        workers: int,
        stop_seconds: float,
        stop_listening: Callable[[], object],
        *,
        clock: Clock,
        pause: Callable[[float], object],
    ) -> None:
        self._spawn = spawn
        self._count = workers
        self._stop_seconds = stop_seconds
        self._stop_listening = stop_listening
        self._clock = clock
        self._pause = pause
        self._workers: list[_Worker] = []
        self._outdated: list[_Worker] = []
        self._stopping: list[_Worker] = []
        self._failed_starts = 0
        self._next_start = clock.monotonic()
        self._has_been_ready = False
        self._has_failed = False
        self._is_stopping = False
        self._is_restart_due = False

    def stop(self) -> None:
        """Make `run` stop the workers and return. A signal handler may call this method."""
        self._is_stopping = True

    def restart(self) -> None:
        """Make `run` replace each worker, one after the other. A signal handler may call this method."""
        self._is_restart_due = True

    def run(self) -> int:
        """Keep the workers running until `stop` is called, or no worker can start.

        Returns:
            The exit code: 0 after a stop, 1 if a worker had to be killed during the stop, and
            `STARTUP_FAILURE` if a worker ended before any worker was ready.
        """
        while not (self._is_stopping or self._has_failed):
            self._check()
            self._pause(CHECK_SECONDS)
        was_clean = self._stop_all()
        if self._has_failed:
            return STARTUP_FAILURE
        return 0 if was_clean else 1

    def _check(self) -> None:
        now = self._clock.monotonic()
        for worker in self._workers:
            worker.check(now)
            self._has_been_ready = self._has_been_ready or worker.is_ready
        for worker in [worker for worker in self._workers if worker.has_ended]:
            self._remove_ended(worker, now)
        if self._is_restart_due:
            self._is_restart_due, self._outdated = False, list(self._workers)
        if self._outdated and sum(worker.is_ready for worker in self._workers) > self._count:
            self._begin_stop(self._outdated.pop(0), now)
        self._remove_stopped(now)
        count = self._count + bool(self._outdated)  # a new worker is ready before an old one stops
        while len(self._workers) < count and now >= self._next_start and not self._has_failed:
            self._workers.append(_Worker(self._spawn(), now))

    def _remove_ended(self, worker: "_Worker", now: float) -> None:
        """Remove a worker that ended by itself, or was killed since it did not answer."""
        process = worker.process
        _log.error("worker_ended", extra={"pid": process.pid, "exit_code": process.exitcode})
        self._workers.remove(worker)
        if worker in self._outdated:
            self._outdated.remove(worker)
        if worker.is_ready:
            self._failed_starts = 0
            return
        self._has_failed = not self._has_been_ready
        self._outdated.clear()  # keep the old workers if a new one fails
        self._failed_starts += 1
        self._next_start = now + min(2**self._failed_starts, MAX_BACKOFF_SECONDS)

    def _begin_stop(self, worker: "_Worker", now: float) -> None:
        worker.process.terminate()
        worker.stop_deadline = now + self._stop_seconds
        self._workers.remove(worker)
        self._stopping.append(worker)

    def _remove_stopped(self, now: float) -> bool:
        """Remove stopped workers, kill late ones, and return whether no worker had to be killed."""
        late = [worker for worker in self._stopping if not worker.has_ended and now >= worker.stop_deadline]
        for worker in late:
            _log.error(
                "worker_killed", extra={"pid": worker.process.pid, "after_seconds": self._stop_seconds}
            )
            worker.process.kill()
        self._stopping = [worker for worker in self._stopping if not worker.has_ended]
        return not late

    def _stop_all(self) -> bool:
        """Stop all workers, and return whether no worker had to be killed."""
        self._stop_listening()  # otherwise clients could connect that no worker accepts
        for worker in tuple(self._workers):
            self._begin_stop(worker, self._clock.monotonic())
        was_clean = True
        while self._stopping:
            was_clean = self._remove_stopped(self._clock.monotonic()) and was_clean
            self._pause(CHECK_SECONDS)
        return was_clean


class _Worker:
    """One worker and its state."""

    def __init__(self, process: WorkerProcess, now: float) -> None:
        self.process = process
        self.is_ready = False
        self.stop_deadline = 0.0
        self._answered_at = now
        process.start()

    @property
    def has_ended(self) -> bool:
        return self.process.exitcode is not None

    def check(self, now: float) -> None:
        """Update the state of the worker, and kill the worker if it has not answered for too long."""
        if self.process.is_ready(ANSWER_SECONDS):
            self.is_ready, self._answered_at = True, now
        elif self.process.ping(ANSWER_SECONDS):
            self._answered_at = now
        elif now - self._answered_at >= SILENT_SECONDS:
            self.process.kill()
            self.process.join()


def supervise(config: uvicorn.Config, stop_seconds: float) -> int:
    """Run the workers of `config` until a signal stops them, and return the exit code.

    SIGINT, SIGTERM and SIGQUIT stop the workers; SIGHUP replaces them one after the other.

    Args:
        config: uvicorn's configuration: the application, the address, and the number of workers.
        stop_seconds: The longest time in which a worker must stop before it is killed.
    """
    with config.bind_socket() as listener:
        supervisor = Supervisor(
            lambda: Process(config, [listener]),
            config.workers,
            stop_seconds,
            listener.close,
            clock=SystemClock(),
            pause=threading.Event().wait,  # never set, so this sleeps without ignoring signals
        )
        _handle_signals(supervisor)
        return supervisor.run()


def _handle_signals(supervisor: Supervisor) -> None:
    stops = {"SIGINT", "SIGTERM", "SIGQUIT", "SIGBREAK"}
    for number in signal.Signals:
        if number.name in stops:
            signal.signal(number, lambda *_: supervisor.stop())
    if os.name == "posix":
        signal.signal(signal.SIGHUP, lambda *_: supervisor.restart())
