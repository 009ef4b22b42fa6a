"""Many independent jobs in a few processes: results as they come, and a process that dies costs its own job alone.

What reads files of unknown origin runs in here: a decoder that crashes or never returns then ends one process, which
is replaced, and the job is named. The processes end with the main one, also where that is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeVar

from videomae.engine.interrupt import StopRequested
from videomae.errors import VideoMAEError

J = TypeVar("J")
R = TypeVar("R")

STOP_SECONDS = 5.0  # what a process gets to remove its half-written files before it is killed


class JobFailure(NamedTuple):
    """Why a job has no result."""

    reason: str
    """One line."""


class Finished(NamedTuple, Generic[J, R]):
    """A job that is over."""

    job: J
    """What was asked."""
    result: R | JobFailure
    """What came of it."""


def num_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def running_jobs(
    function: Callable[[J], R],
    jobs: Sequence[J],
    *,
    workers: int,
    limit_seconds: Callable[[J], float] | None = None,
) -> Iterator[Iterator[Finished[J, R]]]:
    """Start the processes, give an iterator over the finished jobs in the order in which they end, end the processes.

    SIGINT and SIGTERM leave the block at once: the processes get some seconds to remove what they have half written.

    Args:
        function: What to do with a job; of a module, since it is imported by each process. A `VideoMAEError` or
            `OSError` that it raises is the job's failure; any other error is raised here.
        jobs: Arguments, which can be pickled.
        workers: How many processes, at least 1.
        limit_seconds: Time after which a job counts as failed and its process is killed.

    Raises:
        StopRequested: After SIGTERM.
    """
    pool = _Pool(function, deque(jobs), limit_seconds)
    with sigterm_raises():
        try:
            pool.start(min(workers, len(jobs)))
            yield pool.finished()
        finally:
            pool.stop()


class _Worker:
    """A process, the connection to it, and what it is doing."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads as they stand
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Any = None
        self.deadline = float("inf")


class _Pool(Generic[J, R]):
    """The processes of one call of `running_jobs`."""

    def __init__(
        self, function: Callable[[J], R], waiting: deque[J], limit_seconds: Callable[[J], float] | None
    ) -> None:
        self._function = function
        self._waiting = waiting
        self._limit_seconds = limit_seconds
        self._workers: list[_Worker] = []

    def start(self, number: int) -> None:
        self._workers = [_Worker(self._function) for _ in range(number)]
        for worker in self._workers:
            self._give(worker)

    def finished(self) -> Iterator[Finished[J, R]]:
        while busy := {worker.connection: worker for worker in self._workers if worker.job is not None}:
            soonest = min(worker.deadline for worker in busy.values())
            timeout = None if soonest == float("inf") else max(soonest - time.monotonic(), 0.0)
            ready = wait(list(busy), timeout)
            for connection in ready:
                yield self._receive(busy[connection])  # type: ignore[index]  # typeshed: may be a socket
            if not ready:
                for worker in busy.values():
                    if worker.deadline <= time.monotonic():
                        yield self._replace(worker, "it took too long, the process was ended")

    def stop(self) -> None:
        for worker in self._workers:
            worker.connection.close()
            if worker.process.is_alive():
                worker.process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            worker.process.join(max(end - time.monotonic(), 0.0))
            worker.process.kill()
            worker.process.join()

    def _give(self, worker: _Worker) -> None:
        worker.job, worker.deadline = None, float("inf")
        if self._waiting:
            worker.job = self._waiting.popleft()
            if self._limit_seconds is not None:
                worker.deadline = time.monotonic() + self._limit_seconds(worker.job)
            with contextlib.suppress(OSError):  # it has died: the next read says so
                worker.connection.send(worker.job)

    def _receive(self, worker: _Worker) -> Finished[J, R]:
        try:
            result = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode or 0
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            return self._replace(worker, f"the process that worked on it died ({how})")
        if isinstance(result, Exception):
            raise result
        job = worker.job
        self._give(worker)
        return Finished(job, result)

    def _replace(self, worker: _Worker, reason: str) -> Finished[J, R]:
        job = worker.job
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        if self._waiting:
            self._workers.append(_Worker(self._function))
            self._give(self._workers[-1])
        return Finished(job, JobFailure(reason))


def _work(function: Callable[[Any], Any], connection: Connection) -> None:
    """Do jobs until the connection ends: the body of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which sends it to all: the main process decides
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # it leaves already: raised on its way out it would be shown
            return
        try:
            result = function(job)
        except (VideoMAEError, OSError) as error:
            result = JobFailure(" ".join(str(error).split()))
        except Exception as error:
            result = error
        with contextlib.suppress(OSError):
            connection.send(result)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # an exception: what is half written is removed on its way


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception, where signals can be handled and it is not ignored."""
    in_main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGTERM) if in_main else None
    if previous in (None, signal.SIG_IGN):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise StopRequested(signal.Signals(number))

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
