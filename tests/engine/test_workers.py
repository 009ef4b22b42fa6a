"""Worker processes: signals of the group do not end them, and none outlives the block or the main process."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes the Linux way"),
]

# Each program prints the process ids of its workers first. A data set's item k is k, unless it is told to hang.
HEAD = """
import os, signal, sys
import torch
from torch.utils.data import DataLoader, Dataset, _utils
from videomae.engine.interrupt import StopRequested, graceful_interrupt
from videomae.engine.workers import running_workers, start_worker

# What torch waits for in rounds of 5 seconds: either process for the other's death, and for a worker's last item.
_utils.MP_STATUS_CHECK_INTERVAL = _utils.worker.MP_STATUS_CHECK_INTERVAL = 0.5

class Numbers(Dataset):
    def __init__(self, hang=None):
        self.hang = hang
        self.never = os.pipe()

    def __len__(self):
        return 6

    def __getitem__(self, k):
        if k == self.hang:
            os.read(self.never[0], 1)
        return os.getpid() if k == 0 else k

def loader(init=start_worker, **settings):
    return DataLoader(Numbers(**settings), batch_size=None, num_workers=1, worker_init_fn=init)
"""


def start(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + body],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def has_ended(pid: int, *, within: float) -> bool:
    """Wait for the end of a process that is nobody's child here, at most so many seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_kills_no_worker(number: signal.Signals) -> None:
    process = start(
        """
with graceful_interrupt() as interrupt, running_workers(loader()) as items:
    next(items)
    print("started", flush=True)
    while not interrupt.requested:
        pass
    print(list(items), flush=True)
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == "[1, 2, 3, 4, 5]\n"


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_before_a_worker_is_prepared_does_not_kill_it(number: str) -> None:
    out, err = start(
        f"""
def late(worker_id):
    os.kill(os.getpid(), signal.{number})  # torch has just given SIGTERM its default action
    start_worker(worker_id)

with graceful_interrupt(), running_workers(loader(init=late)) as items:
    print(list(items)[1:])
"""
    ).communicate(timeout=120)
    assert out == "[1, 2, 3, 4, 5]\n", err


def test_waiting_for_a_worker_that_hangs_is_left_at_once_and_the_worker_is_killed() -> None:
    process = start(
        """
try:
    with graceful_interrupt() as interrupt, running_workers(loader(hang=1)) as items:
        print(next(items), flush=True)
        with interrupt.discardable():
            next(items)
except StopRequested:
    print("stopped", flush=True)
"""
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == "stopped\n"
    assert has_ended(worker, within=0)


def test_workers_end_when_the_main_process_is_killed() -> None:
    process = start(
        """
with running_workers(loader()) as items:
    print(next(items), flush=True)
    signal.pause()
"""
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    assert not has_ended(worker, within=0)
    process.kill()
    assert has_ended(worker, within=60)
    process.communicate(timeout=60)


def test_a_worker_that_dies_is_named_as_such() -> None:
    out, err = start(
        """
from videomae.errors import RunError

try:
    with running_workers(loader(hang=1)) as items:
        os.kill(next(items), signal.SIGKILL)
        next(items)
except RunError as error:
    print(error)
"""
    ).communicate(timeout=120)
    assert out.startswith("a process that reads videos has died (DataLoader worker (pid"), err
    assert out.endswith("use fewer workers or a smaller batch_size\n")
