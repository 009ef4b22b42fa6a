"""Processes that read data for a DataLoader: they leave SIGINT and SIGTERM to the main process and end with it.

Signals of a terminal or a scheduler reach every process of a run. Workers that died of them would fail the main
process while it saves; workers that ignored torch's own requests to end would outlive it.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from videomae.engine.interrupt import SIGNALS
from videomae.engine.jobs import num_processors
from videomae.errors import RunError

T_co = TypeVar("T_co", covariant=True)


def start_worker(worker_id: int) -> None:
    """Prepare a worker process, as DataLoader's `worker_init_fn`; torch has already given it one thread."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked by running_workers until here
    sys.excepthook = _report


@contextmanager
def warned_of_many(num_workers: int, *, setting: str) -> Iterator[None]:
    """Warn if there are more workers than processors, in one line instead of what DataLoader says in the block.

    Args:
        num_workers: Processes that read videos.
        setting: What the user calls their number.
    """
    processors = num_processors()
    if num_workers > processors:
        warnings.warn(
            f"{setting} is {num_workers}, but this process may use {processors} processors: use {setting} "
            f"{processors}, unless reading waits for remote storage",
            stacklevel=4,
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of a worker's thread, unless the main process has only ended the connection to it.

    The thread that hands over tensors prints a traceback where the main process stops in the middle of taking one.
    Errors of reading are no concern of this function: torch sends them to the main process.
    """
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


@contextmanager
def running_workers(loader: DataLoader[T_co]) -> Iterator[Iterator[T_co]]:
    """Start a loader's workers, give an iterator over its batches, and end the workers with the block.

    A worker that is still reading when the block is left gets torch's 5 seconds to finish, then it is killed.
    A main process that is killed takes its workers along: torch's workers look for it every 5 seconds.

    Args:
        loader: Its `worker_init_fn` is `start_worker` where it has workers.

    Raises:
        RunError: If a worker dies.
    """
    before = set(multiprocessing.active_children())
    with _signals_blocked():
        batches: Any = iter(loader)
    workers = set(multiprocessing.active_children()) - before
    try:
        yield batches
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(
            f"a process that reads videos has died ({reason}); the system ends processes where memory is short: use "
            "fewer workers or a smaller batch_size"
        ) from error
    finally:
        try:
            # What torch does when the iterator is deleted; here the traceback of an error may keep it alive.
            if workers:
                batches._shutdown_workers()
        finally:
            for worker in workers:
                worker.kill()
                worker.join()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM: a forked worker is born with them blocked, until `start_worker` ignores them."""
    if sys.platform == "win32":
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
