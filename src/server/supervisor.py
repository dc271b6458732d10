"""The parent of several workers.

It takes the place of uvicorn's own. That one ends with 0 when no worker can start, ends a fleet that serves
when one worker can't start, sees no signal while it restarts workers or waits for their end, and ignores
SIGQUIT.
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

LOOK_SECONDS = 0.1
"""How often the workers are looked at, and the longest that a signal waits."""

ANSWER_SECONDS = 0.1
"""How long a look waits for a worker's answer."""

SILENT_SECONDS = 20.0
"""How long a worker may not answer before it is killed."""

MAX_BACKOFF_SECONDS = 30.0
"""The longest pause before the next start of a worker, where the last ones did not serve."""

_log = logging.getLogger(__name__)


class WorkerProcess(Protocol):
    """A worker's process, as uvicorn has it."""

    @property
    def pid(self) -> int | None:
        """Its id, once it was started."""
        ...

    @property
    def exitcode(self) -> int | None:
        """The code that it ended with; None while it runs."""
        ...

    def start(self) -> None:
        """Start it."""
        ...

    def is_ready(self, timeout: float) -> bool:
        """Return whether it answers within `timeout` seconds that it serves."""
        ...

    def ping(self, timeout: float) -> bool:
        """Return whether it answers within `timeout` seconds."""
        ...

    def terminate(self) -> None:
        """Have it stop."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def join(self) -> None:
        """Return when it has ended."""
        ...


class Supervisor:
    """Keeps several workers running.

    Args:
        spawn: Makes a worker's process, not yet started.
        workers: How many, at least 1.
        stop_seconds: How long a worker may take to stop before it is killed.
        stop_listening: Called before the workers are stopped.
        clock: Tells the time.
        pause: Waits for so many seconds.
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
        self._leaving: list[_Worker] = []
        self._starts_without_service = 0
        self._next_start = clock.monotonic()
        self._has_served = False
        self._has_failed = False
        self._is_stopping = False
        self._is_restart_due = False

    def stop(self) -> None:
        """Have `run` stop the workers and return. A signal's handler may call it."""
        self._is_stopping = True

    def restart(self) -> None:
        """Have each worker replaced, one after the other. A signal's handler may call it."""
        self._is_restart_due = True

    def run(self) -> int:
        """Keep the workers running until `stop` is called, or no worker can start.

        Returns:
            The exit code: 0 after a stop, 1 if a worker had to be killed for it, and `STARTUP_FAILURE` if a
            worker ended before any had served.
        """
        while not (self._is_stopping or self._has_failed):
            self._look()
            self._pause(LOOK_SECONDS)
        was_clean = self._stop_all()
        if self._has_failed:
            return STARTUP_FAILURE
        return 0 if was_clean else 1

    def _look(self) -> None:
        now = self._clock.monotonic()
        for worker in self._workers:
            worker.look(now)
            self._has_served = self._has_served or worker.is_ready
        for worker in [worker for worker in self._workers if worker.has_ended]:
            self._lose(worker, now)
        if self._is_restart_due:
            self._is_restart_due, self._outdated = False, list(self._workers)
        if self._outdated and sum(worker.is_ready for worker in self._workers) > self._count:
            self._leave(self._outdated.pop(0), now)
        self._forget_those_who_left(now)
        wanted = self._count + bool(self._outdated)  # a new worker serves before an old one leaves
        while len(self._workers) < wanted and now >= self._next_start and not self._has_failed:
            self._workers.append(_Worker(self._spawn(), now))

    def _lose(self, worker: "_Worker", now: float) -> None:
        """Note that a worker ended by itself, or was killed since it did not answer."""
        process = worker.process
        _log.error("worker_ended", extra={"pid": process.pid, "exit_code": process.exitcode})
        self._workers.remove(worker)
        if worker in self._outdated:
            self._outdated.remove(worker)
        if worker.is_ready:
            self._starts_without_service = 0
            return
        self._has_failed = not self._has_served
        self._outdated.clear()  # rather the old workers than none
        self._starts_without_service += 1
        self._next_start = now + min(2**self._starts_without_service, MAX_BACKOFF_SECONDS)

    def _leave(self, worker: "_Worker", now: float) -> None:
        worker.process.terminate()
        worker.leave_until = now + self._stop_seconds
        self._workers.remove(worker)
        self._leaving.append(worker)

    def _forget_those_who_left(self, now: float) -> bool:
        """Kill those who take too long to leave, and return whether there were none."""
        late = [worker for worker in self._leaving if not worker.has_ended and now >= worker.leave_until]
        for worker in late:
            _log.error(
                "worker_killed", extra={"pid": worker.process.pid, "after_seconds": self._stop_seconds}
            )
            worker.process.kill()
        self._leaving = [worker for worker in self._leaving if not worker.has_ended]
        return not late

    def _stop_all(self) -> bool:
        """Stop all workers, and return whether none had to be killed."""
        self._stop_listening()  # or clients could connect that no worker accepts
        for worker in tuple(self._workers):
            self._leave(worker, self._clock.monotonic())
        was_clean = True
        while self._leaving:
            was_clean = self._forget_those_who_left(self._clock.monotonic()) and was_clean
            self._pause(LOOK_SECONDS)
        return was_clean


class _Worker:
    """One worker, and what is known of it."""

    def __init__(self, process: WorkerProcess, now: float) -> None:
        self.process = process
        self.is_ready = False
        self.leave_until = 0.0
        self._answered = now
        process.start()

    @property
    def has_ended(self) -> bool:
        return self.process.exitcode is not None

    def look(self, now: float) -> None:
        """Ask the worker how it is, and kill it if it has not answered for too long."""
        if self.process.is_ready(ANSWER_SECONDS):
            self.is_ready, self._answered = True, now
        elif self.process.ping(ANSWER_SECONDS):
            self._answered = now
        elif now - self._answered >= SILENT_SECONDS:
            self.process.kill()
            self.process.join()


def supervise(config: uvicorn.Config, stop_seconds: float) -> int:
    """Run the workers of `config` until a signal stops them, and return the exit code.

    SIGINT, SIGTERM and SIGQUIT stop the workers; SIGHUP replaces them one after the other.

    Args:
        config: Names the application, where to listen, and how many workers.
        stop_seconds: How long a worker may take to stop before it is killed.
    """
    with config.bind_socket() as listening:
        supervisor = Supervisor(
            lambda: Process(config, [listening]),
            config.workers,
            stop_seconds,
            listening.close,
            clock=SystemClock(),
            pause=threading.Event().wait,  # nobody sets it
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
