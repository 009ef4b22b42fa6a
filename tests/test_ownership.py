import errno
import os
import signal
import subprocess
import sys

import pytest

from videomae.errors import RunError
from videomae.ownership import LOCK_FILE, is_owned, owned

if sys.platform == "win32":
    pytest.skip("Windows has no POSIX locks: `owned` says so and locks nothing", allow_module_level=True)

import fcntl

OWNER = """
import sys, time
from pathlib import Path
from videomae.ownership import owned

with owned(Path(sys.argv[1]), what="run", shared=sys.argv[2] == "shared"):
    print("owned", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    """Start processes that own the folder until they are ended."""
    processes = []

    def start(kind="alone"):
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(tmp_path), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        processes.append(process)
        assert process.stdout.readline() == b"owned\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_and_told_who_the_first_is_until_that_is_killed(tmp_path, owner):
    process = owner()
    with (
        pytest.raises(RunError, match=rf"in use by another run \(process {process.pid} on .*, since .*wait until"),
        owned(tmp_path, what="run"),
    ):
        pass
    process.kill()
    process.wait()
    assert (tmp_path / LOCK_FILE).is_file(), "a kill leaves the file, not the lock"
    with owned(tmp_path, what="run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_is_refused_a_folder_that_it_owns_already(tmp_path):
    with owned(tmp_path, what="run"):
        with pytest.raises(RunError, match=r"another run .this process."), owned(tmp_path / ".", what="run"):
            pass
        with owned(tmp_path, what="export", name=".other"):
            pass
        assert (tmp_path / LOCK_FILE).is_file()
    with owned(tmp_path, what="run"):
        pass


def test_a_block_that_fails_gives_the_folder_back(tmp_path):
    with pytest.raises(ValueError, match="inside"), owned(tmp_path / "new", what="run"):
        raise ValueError("inside")
    with owned(tmp_path / "new", what="run"):
        pass


def test_shared_owners_are_many_and_keep_out_who_wants_to_be_alone_until_the_last_has_ended(tmp_path, owner):
    first, second = owner("shared"), owner("shared")
    with owned(tmp_path, what="shard", shared=True):
        pass
    for process in (second, first):
        with pytest.raises(RunError, match=r"in use by another run"), owned(tmp_path, what="run"):
            pass
        process.kill()
        process.wait()
    with owned(tmp_path, what="run"):
        pass


FORKING_OWNER = """
import os, signal, sys, time
from pathlib import Path
from videomae.ownership import owned

with owned(Path(sys.argv[1]), what="run"):
    worker = os.fork()
    if not worker:
        time.sleep(60)
    print(worker, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_worker_that_outlives_its_owner_does_not_keep_the_lock(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", FORKING_OWNER, str(tmp_path)], stdout=subprocess.PIPE)
    worker = int(process.stdout.readline())
    try:
        assert process.wait() == -signal.SIGKILL
        os.kill(worker, 0)  # it lives
        with owned(tmp_path, what="run"):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


def test_where_the_file_system_has_no_locks_a_warning_says_so_and_the_work_goes_on(tmp_path, monkeypatch):
    def refuse(descriptor, command):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)  # no file system at hand is without
    with pytest.warns(UserWarning, match="is not locked: its file system has no locks .*do not start a second run"):  # noqa: SIM117
        with owned(tmp_path, what="run"):
            done = True
    assert done


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match=r"cannot write .*file.*\.lock"), owned(tmp_path / "file", what="run"):
        pass


@pytest.mark.parametrize("kind", ["alone", "shared"])
def test_whether_a_folder_is_owned_is_told_without_disturbing_its_owner(tmp_path, owner, kind):
    assert not is_owned(tmp_path)
    process = owner(kind)
    assert is_owned(tmp_path)
    with pytest.raises(RunError, match="in use"), owned(tmp_path, what="run"):
        pass
    process.kill()
    process.wait()
    assert (tmp_path / LOCK_FILE).is_file()
    assert not is_owned(tmp_path), "a kill leaves the file, not the lock"


def test_a_process_knows_of_its_own_folders_and_keeps_them_when_it_asks(tmp_path, owner):
    with owned(tmp_path, what="run"):
        assert is_owned(tmp_path)
        told = subprocess.run(
            [sys.executable, "-c", OWNER, str(tmp_path), "alone"], capture_output=True, stdin=subprocess.DEVNULL
        )
        assert b"in use by another run" in told.stderr
    assert not is_owned(tmp_path)
