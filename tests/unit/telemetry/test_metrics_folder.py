"""The metrics folder that the workers of one parent share, and that the last worker removes."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from src.telemetry.metrics_folder import MULTIPROC_DIR, join_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")


@pytest.fixture(autouse=True)
def temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(MULTIPROC_DIR, "")  # so that monkeypatch restores the variable after the test
    monkeypatch.delenv(MULTIPROC_DIR)
    return tmp_path


@pytest.fixture
def worker(monkeypatch):
    """Return a function that makes this process a worker of a given parent."""
    monkeypatch.setattr(multiprocessing, "parent_process", object)

    def join(key=b"a fleet"):
        monkeypatch.setattr(multiprocessing.current_process(), "authkey", key)
        monkeypatch.delenv(MULTIPROC_DIR, raising=False)
        return join_folder()

    return join


def test_a_process_without_a_parent_uses_no_folder(temporary_folder):
    join_folder()()
    assert MULTIPROC_DIR not in os.environ
    assert list(temporary_folder.iterdir()) == []


def test_a_folder_from_the_environment_is_not_removed(monkeypatch, worker, temporary_folder):
    named = temporary_folder / "named"
    named.mkdir()
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    monkeypatch.setenv(MULTIPROC_DIR, str(named))
    join_folder()()
    assert named.is_dir()


def test_the_workers_of_a_parent_share_a_folder_that_the_last_one_removes(worker, temporary_folder):
    leave = [worker(), worker()]
    (folder,) = temporary_folder.iterdir()
    assert os.environ[MULTIPROC_DIR] == str(folder)
    (folder / "counter_1.db").write_bytes(b"x")
    leave.pop()()
    assert folder.is_dir()
    leave.pop()()
    assert list(temporary_folder.iterdir()) == []


def test_the_folder_of_a_killed_fleet_is_removed_and_that_of_a_live_fleet_is_kept(worker, temporary_folder):
    leave_living = worker(b"a living fleet")
    living = os.environ[MULTIPROC_DIR]
    abandoned = temporary_folder / "resilient-analytics-0123456789abcdef"
    abandoned.mkdir()
    (abandoned / "counter_1.db").write_bytes(b"x")
    (temporary_folder / "another-program").mkdir()
    leave = worker(b"the next fleet")
    own = temporary_folder / os.environ[MULTIPROC_DIR]
    assert set(temporary_folder.iterdir()) == {
        temporary_folder / "another-program",
        temporary_folder / living,
        own,
    }
    leave()
    leave_living()


def test_a_worker_that_starts_while_the_last_one_stops_has_a_folder(worker, temporary_folder, monkeypatch):
    import fcntl

    leave = worker()
    flock, once = fcntl.flock, iter([True])

    def overtaken(descriptor, operation):
        if operation == fcntl.LOCK_SH and next(once, False):
            leave()  # after the folder was created and before it is locked
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    leave_late = worker()
    assert Path(os.environ[MULTIPROC_DIR]).is_dir()
    leave_late()
    assert list(temporary_folder.iterdir()) == []


def test_a_folder_of_another_user_is_rejected(worker, temporary_folder, monkeypatch):
    worker()()
    monkeypatch.setattr(os, "getuid", lambda: temporary_folder.stat().st_uid + 1)
    with pytest.raises(PermissionError, match=f"set {MULTIPROC_DIR}"):
        worker()


def test_a_child_process_of_a_worker_does_not_hold_the_lock(worker, temporary_folder):
    leave = worker()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        leave()
        assert list(temporary_folder.iterdir()) == []
        child.communicate(b"\n")
