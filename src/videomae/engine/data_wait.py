"""How much of a run's time is spent waiting for data, and what would help.

On a GPU what counts is the time in which the GPU has nothing to do: the host is ahead of it, and may wait for a batch
while an earlier step is still being computed. Elsewhere it is the time in which the host waits.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from videomae.engine.jobs import num_processors

WINDOW_SECONDS = 60.0  # the share is of the last minute
WARMUP_STEPS = 10  # in the first ones workers start
WARMUP_SECONDS = 20.0
NOTED_SECONDS = 60.0  # between two values in the metrics
MAX_SHARE = 0.1  # more is said


class _Step(NamedTuple):
    """A step that is done."""

    end: float
    seconds: float
    """From asking for its batch to its end, as the host sees it."""
    waited: float
    """Of them, waiting for the batch."""


class DataWait:
    """Measures the waiting for batches in a training loop: `with wait.batch():` around it, `done` after each step."""

    def __init__(
        self,
        device: torch.device,
        *,
        workers: int,
        command: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin; nothing is measured before the first step.

        Args:
            device: Where the steps are computed.
            workers: Processes that read for this one; 0: it reads itself.
            command: What makes the videos quicker to read; None: nothing does.
            clock: Seconds from any origin, never going back.
        """
        self._workers, self._command = workers, command
        self._is_cuda = device.type == "cuda"
        self._clock = clock
        self._begin = self._first = clock()
        self._waited = 0.0
        self._events: tuple[Any, Any] | None = None
        self._pending: deque[tuple[_Step, tuple[Any, Any]]] = deque()  # of which the GPU has not done all
        self._steps: deque[_Step] = deque()
        self._num_steps = 0
        self._noted: float | None = None
        self._has_advised = False

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Measure the body, which waits for a batch."""
        self._begin = self._clock()
        first = self._event()
        yield
        self._events = None if first is None else (first, self._event())
        self._waited = self._clock() - self._begin

    def done(self) -> None:
        """Tell that the step of the last batch is done; nothing is waited for."""
        now = self._clock()
        step = _Step(now, now - self._begin, self._waited)
        self._num_steps += 1
        if self._num_steps <= WARMUP_STEPS or now - self._first < WARMUP_SECONDS:
            return
        if self._events is None:
            self._steps.append(step)
        else:
            self._pending.append((step, self._events))
        while self._pending and self._pending[0][1][1].query():
            step, (first, last) = self._pending.popleft()
            self._steps.append(step._replace(waited=first.elapsed_time(last) / 1000))
        while self._steps and self._steps[0].end < now - WINDOW_SECONDS:
            self._steps.popleft()

    @property
    def share(self) -> float | None:
        """Fraction of the last minute's steps that was spent waiting for data; None before it is known."""
        seconds = sum(step.seconds for step in self._steps)
        return min(sum(step.waited for step in self._steps) / seconds, 1.0) if seconds > 0 else None

    def noted(self) -> dict[str, float]:
        """Return the share for the record of a step, once a minute, from half a minute of steps on; else nothing."""
        share, now = self._settled_share(), self._clock()
        if share is None or (self._noted is not None and now - self._noted < NOTED_SECONDS):
            return {}
        self._noted = now
        return {"data_wait": round(share, 4)}

    def advice(self) -> list[str]:
        """Return what to do where more than a tenth of the time goes into waiting: once, after half a minute."""
        share = self._settled_share()
        if self._has_advised or share is None or share <= MAX_SHARE:
            return []
        self._has_advised = True
        needed = workers_needed(share, self._workers)
        processors = max(num_processors() // int(os.environ.get("LOCAL_WORLD_SIZE") or 1), 1)  # of each process
        remedies = []
        if needed is not None and needed <= processors:
            remedies.append(f"--loop.workers {needed} instead of {self._workers} would help")
        if self._command is not None:
            remedies.append(f"this writes videos that are faster to read: {self._command}")
        if not remedies:
            remedies.append(f"more processors would help; there are {processors}, for {self._workers} workers")
        return [f"{share:.0%} of the time is spent waiting for videos: {'; or '.join(remedies)}"]

    def _settled_share(self) -> float | None:
        return self.share if sum(step.seconds for step in self._steps) >= WINDOW_SECONDS / 2 else None

    def _event(self) -> Any:
        """Return a mark in the GPU's work, which has its time once the GPU gets there."""
        if not self._is_cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def workers_needed(share: float, workers: int) -> int | None:
    """Return how many workers read as fast as steps are computed; None where nothing but waiting was seen.

    Args:
        share: Of the time, spent waiting with `workers`.
        workers: Where 0, the main process reads and computes in turn.
    """
    if share >= 1:
        return None
    found = workers / (1 - share) if workers else share / (1 - share)
    return max(math.ceil(found), workers + 1)
