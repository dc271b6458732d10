"""The folder of a fleet's metrics: found by all its workers, removed by the last, never another fleet's."""

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
def temporary(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(MULTIPROC_DIR, "")  # deleting what is not set would restore nothing afterwards
    monkeypatch.delenv(MULTIPROC_DIR)
    return tmp_path


@pytest.fixture
def worker(monkeypatch):
    """This process as a worker of some parent."""
    monkeypatch.setattr(multiprocessing, "parent_process", object)

    def join(key=b"a fleet"):
        monkeypatch.setattr(multiprocessing.current_process(), "authkey", key)
        monkeypatch.delenv(MULTIPROC_DIR, raising=False)
        return join_folder()

    return join


def test_a_process_without_a_parent_needs_none(temporary):
    join_folder()()
    assert MULTIPROC_DIR not in os.environ
    assert list(temporary.iterdir()) == []


def test_a_folder_that_the_environment_names_stays(monkeypatch, worker, temporary):
    named = temporary / "named"
    named.mkdir()
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    monkeypatch.setenv(MULTIPROC_DIR, str(named))
    join_folder()()
    assert named.is_dir()


def test_the_workers_of_a_parent_share_a_folder_that_the_last_one_removes(worker, temporary):
    leave = [worker(), worker()]
    (folder,) = temporary.iterdir()
    assert os.environ[MULTIPROC_DIR] == str(folder)
    (folder / "counter_1.db").write_bytes(b"x")
    leave.pop()()
    assert folder.is_dir()
    leave.pop()()
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_killed_fleet_is_removed_and_that_of_a_live_fleet_is_kept(worker, temporary):
    leave_living = worker(b"a living fleet")
    living = os.environ[MULTIPROC_DIR]
    abandoned = temporary / "resilient-analytics-0123456789abcdef"
    abandoned.mkdir()
    (abandoned / "counter_1.db").write_bytes(b"x")
    (temporary / "another-program").mkdir()
    leave = worker(b"the next fleet")
    own = temporary / os.environ[MULTIPROC_DIR]
    assert set(temporary.iterdir()) == {temporary / "another-program", temporary / living, own}
    leave()
    leave_living()


def test_a_worker_that_starts_while_the_last_one_leaves_has_a_folder(worker, temporary, monkeypatch):
    import fcntl

    leave = worker()
    flock, once = fcntl.flock, iter([True])

    def overtaken(descriptor, operation):
        if operation == fcntl.LOCK_SH and next(once, False):
            leave()  # between the making of the folder and its lock
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    leave_late = worker()
    assert Path(os.environ[MULTIPROC_DIR]).is_dir()
    leave_late()
    assert list(temporary.iterdir()) == []


def test_a_folder_of_another_user_is_rejected(worker, temporary, monkeypatch):
    worker()()
    monkeypatch.setattr(os, "getuid", lambda: temporary.stat().st_uid + 1)
    with pytest.raises(PermissionError, match=f"set {MULTIPROC_DIR}"):
        worker()


def test_a_process_that_the_folder_s_holder_starts_does_not_hold_it(worker, temporary):
    leave = worker()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        leave()
        assert list(temporary.iterdir()) == []
        child.communicate(b"\n")
