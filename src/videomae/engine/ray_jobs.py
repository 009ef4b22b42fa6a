"""Many independent jobs on a Ray cluster: the same as `engine.jobs`, on as many machines as there are.

Plain tasks of Ray, one for each job, and not Ray Data, which gives up as a whole where one worker process dies: what
reads files of unknown origin may crash, and must cost its own job alone. Jobs must be files that all machines see.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from videomae.engine.configs import JobEngine
from videomae.engine.jobs import STOP_SECONDS, Finished, JobFailure, num_processors, running_jobs, sigterm_raises
from videomae.errors import ConfigError, VideoMAEError

TRIES = 3  # of a job whose process or machine has died: the machine may have been taken away
EXIT_TOO_LONG = 124

J = TypeVar("J")
R = TypeVar("R")


@contextmanager
def jobs_on(
    engine: JobEngine,
    function: Callable[[J], R],
    jobs: Sequence[J],
    *,
    workers: int | None = None,
    limit_seconds: Callable[[J], float] | None = None,
) -> Iterator[Iterator[Finished[J, R]]]:
    """Run jobs where an engine runs them; see `engine.jobs.running_jobs` for what is the same on both.

    Args:
        engine: Where.
        function: What to do with a job.
        jobs: Arguments, which can be pickled.
        workers: How many at a time; None: one for each processor, of the cluster where it is one.
        limit_seconds: Time after which a job counts as failed.

    Raises:
        ConfigError: If Ray is not installed.
        StopRequested: After SIGTERM.
    """
    match engine:
        case "local":
            running = running_jobs(function, jobs, workers=workers or num_processors(), limit_seconds=limit_seconds)
        case "ray":
            running = _on_ray(function, jobs, workers=workers, limit_seconds=limit_seconds)
    with running as finished:
        yield finished


@contextmanager
def _on_ray(
    function: Callable[[J], R],
    jobs: Sequence[J],
    *,
    workers: int | None,
    limit_seconds: Callable[[J], float] | None,
) -> Iterator[Iterator[Finished[J, R]]]:
    with _connected() as ray, sigterm_raises():
        tasks: _Tasks[J, R] = _Tasks(ray, function, jobs, limit_seconds)
        try:
            yield tasks.finished(workers or max(int(ray.cluster_resources().get("CPU", 1)), 1))
        finally:
            tasks.stop()


@contextmanager
def _connected() -> Iterator[Any]:
    """Connect to the cluster of this program, of `RAY_ADDRESS` or of this machine, else start one here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    try:
        import ray
    except ImportError:
        raise ConfigError("the engine ray needs Ray, which is not installed: pip install 'videomae[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"Ray cannot be reached or started ({' '.join(str(error).split())}): check RAY_ADDRESS"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


class _Task(NamedTuple, Generic[J]):
    """A job that is being done."""

    job: J
    number: int
    """Which try of it this is, from 1."""
    end: float
    """When it has taken too long, at the earliest."""


class _Tasks(Generic[J, R]):
    """The tasks of one call."""

    def __init__(
        self, ray: Any, function: Callable[[J], R], jobs: Sequence[J], limit_seconds: Callable[[J], float] | None
    ) -> None:
        self._ray = ray
        self._function = function
        self._limit_seconds = limit_seconds
        self._waiting: deque[tuple[J, int]] = deque((job, 1) for job in jobs)  # with the number of the try
        self._running: dict[Any, _Task[J]] = {}
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_work)

    def finished(self, at_once: int) -> Iterator[Finished[J, R]]:
        while self._waiting or self._running:
            # No more than are worked on, so that what is stopped has been begun.
            while self._waiting and len(self._running) < at_once:
                job, number = self._waiting.popleft()
                limit = None if self._limit_seconds is None else self._limit_seconds(job)
                reference = self._remote.remote(self._function, job, limit)
                end = float("inf") if limit is None else time.monotonic() + limit
                self._running[reference] = _Task(job, number, end)
            ready, _ = self._ray.wait(list(self._running), num_returns=1)
            for reference in ready:
                task = self._running.pop(reference)
                result = self._result(reference, task)
                if result is None:
                    self._waiting.append((task.job, task.number + 1))
                else:
                    yield Finished(task.job, result)

    def stop(self) -> None:
        """Let what is running remove its half-written files, then end it."""
        if not self._running:
            return
        for reference in self._running:
            self._ray.cancel(reference, force=False)
        _, left = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=STOP_SECONDS)
        for reference in left:
            self._ray.cancel(reference, force=True)
        self._running.clear()

    def _result(self, reference: Any, task: _Task[J]) -> R | JobFailure | None:
        """Return what came of a task; None where it is to be tried again."""
        errors = self._ray.exceptions
        try:
            result, error = self._ray.get(reference)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError, errors.OutOfMemoryError):
            if time.monotonic() >= task.end:
                return JobFailure("it took too long, the process was ended")
            if task.number < TRIES:
                return None
            return JobFailure(f"the process that worked on it died, {TRIES} times")
        if error is not None:
            raise error
        found: R | JobFailure = result
        return found


def _work(function: Callable[[Any], Any], job: Any, limit_seconds: float | None) -> tuple[Any, Exception | None]:
    """Do a job in a process of Ray: its result, or its failure, or an error of the program."""
    done = threading.Event()
    if limit_seconds is not None:
        threading.Thread(target=_end_late, args=(done, limit_seconds), daemon=True).start()
    try:
        return function(job), None
    except (VideoMAEError, OSError) as error:
        return JobFailure(" ".join(str(error).split())), None
    except Exception as error:
        return None, error
    finally:
        done.set()


def _end_late(done: threading.Event, limit_seconds: float) -> None:
    if not done.wait(limit_seconds):
        os._exit(EXIT_TOO_LONG)
