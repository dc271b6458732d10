"""The parent of several workers: the running workers, and the exit code."""

import itertools

import pytest

from src.server.supervisor import MAX_BACKOFF_SECONDS, SILENT_SECONDS, Supervisor
from tests.support.clock import FakeClock

WORKERS = 2
STOP_SECONDS = 14.0


class Process:
    """A worker's process that a test controls. By default it is ready at once and stops at once."""

    pids = itertools.count(1)

    def __init__(self):
        self.pid = next(self.pids)
        self.exitcode = None
        self.has_started = self.was_terminated = False
        self.serves = self.answers = self.obeys = True

    def start(self):
        self.has_started = True

    def is_ready(self, timeout):
        return self.ping(timeout) and self.serves

    def ping(self, timeout):
        return self.exitcode is None and self.answers

    def terminate(self):
        self.was_terminated = True
        if self.obeys:
            self.exitcode = 0

    def kill(self):
        self.exitcode = -9

    def join(self):
        assert self.exitcode is not None


class Fleet:
    """A supervisor whose pauses a test fills."""

    def __init__(self, **traits):
        self.clock = FakeClock()
        self.processes = []
        self.traits = traits
        self._script = None
        self.is_listening = True
        self.supervisor = Supervisor(
            self._spawn, WORKERS, STOP_SECONDS, self._stop_listening, clock=self.clock, pause=self._pause
        )

    def _stop_listening(self):
        assert not any(process.was_terminated for process in self.processes[-WORKERS:])
        self.is_listening = False

    def _spawn(self):
        process = Process()
        vars(process).update(self.traits)
        self.processes.append(process)
        return process

    def _pause(self, seconds):
        self.clock.jump(seconds)
        if self._script is not None:
            try:
                next(self._script)
            except StopIteration:
                self._script = None
                self.supervisor.stop()

    def run(self, script):
        """Run with `script`, a generator that yields once per check. The fleet is stopped at its end."""
        self._script = script
        return self.supervisor.run()

    @property
    def running(self):
        return [process for process in self.processes if process.exitcode is None]


def checks(seconds):
    return itertools.repeat(None, round(seconds / 0.1))


def test_the_supervisor_starts_its_workers_and_stops_them_with_exit_code_0():
    fleet = Fleet()

    def script():
        yield
        assert len(fleet.running) == WORKERS

    assert fleet.run(script()) == 0
    assert not fleet.is_listening
    assert fleet.running == []
    assert all(process.was_terminated for process in fleet.processes)


@pytest.mark.parametrize("code", [1, 3, -9])
def test_if_no_worker_can_start_the_supervisor_ends_with_an_exit_code(code):
    fleet = Fleet(serves=False)

    def script():
        yield
        fleet.processes[0].exitcode = code
        yield from checks(60)

    assert fleet.run(script()) == 3
    assert len(fleet.processes) == WORKERS
    assert fleet.running == []


def test_a_worker_that_ends_is_replaced_at_once():
    fleet = Fleet()

    def script():
        yield
        yield
        fleet.processes[0].exitcode = -9
        yield
        assert len(fleet.running) == WORKERS

    assert fleet.run(script()) == 0


def test_a_serving_fleet_continues_and_backs_off_if_no_new_worker_can_start():
    fleet = Fleet()

    def script():
        yield
        yield
        fleet.traits = {"exitcode": 3}
        fleet.processes[0].exitcode = 1
        yield from checks(300)
        assert fleet.running == [fleet.processes[1]]
        assert 6 <= len(fleet.processes) - WORKERS <= 5 + 300 / MAX_BACKOFF_SECONDS
        fleet.traits = {}
        yield from checks(MAX_BACKOFF_SECONDS + 1)
        assert len(fleet.running) == WORKERS

    assert fleet.run(script()) == 0


def test_a_worker_that_does_not_answer_is_killed_and_replaced():
    fleet = Fleet()

    def script():
        yield
        fleet.processes[0].answers = False
        yield from checks(SILENT_SECONDS - 1)
        assert fleet.processes[0].exitcode is None
        yield from checks(2)
        assert fleet.processes[0].exitcode == -9
        assert len(fleet.running) == WORKERS

    assert fleet.run(script()) == 0


def test_a_restart_replaces_each_worker_once_a_new_one_serves():
    fleet = Fleet()

    def script():
        yield
        yield
        old = list(fleet.running)
        fleet.traits = {"serves": False}
        fleet.supervisor.restart()
        yield from checks(5)
        assert len(fleet.running) == WORKERS + 1
        assert not any(process.was_terminated for process in old)
        for serving in (1, 2):
            fleet.processes[-1].serves = True
            yield from checks(1)
            assert sum(process.was_terminated for process in old) == serving
            assert len(fleet.running) == WORKERS + (serving < 2)
        yield from checks(5)
        assert len(fleet.processes) == 2 * WORKERS

    assert fleet.run(script()) == 0


def test_a_restart_keeps_the_old_workers_if_a_new_one_cannot_start():
    fleet = Fleet()

    def script():
        yield
        yield
        fleet.traits = {"exitcode": 3}
        fleet.supervisor.restart()
        yield from checks(100)
        assert fleet.running == fleet.processes[:WORKERS]
        assert len(fleet.processes) == WORKERS + 1

    assert fleet.run(script()) == 0


def test_a_stop_works_while_a_restart_waits():
    fleet = Fleet()

    def script():
        yield
        yield
        fleet.traits = {"serves": False}
        fleet.supervisor.restart()
        yield
        yield

    assert fleet.run(script()) == 0
    assert fleet.running == []
    assert fleet.clock.monotonic() < 1


def test_a_worker_that_does_not_stop_in_time_is_killed_with_an_exit_code():
    fleet = Fleet(obeys=False)

    def script():
        yield

    assert fleet.run(script()) == 1
    assert [process.exitcode for process in fleet.processes] == [-9, -9]
    assert STOP_SECONDS <= fleet.clock.monotonic() < STOP_SECONDS + 1
