"""Progress of training for a human: a live bar on a terminal, a plain line now and then everywhere else.

All of it goes to standard error; standard output is left for results. A failure to print
never stops a run.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

WINDOW_SECONDS = 60.0  # speeds are of the last minute, so that they follow a change of load
LOSS_MEMORY = 0.9  # weight of the old value in the smoothed loss, per given loss
BAR_MIN_COLUMNS = 140  # narrower terminals get the numbers in two rows, without the bar
NOTED_SECONDS = 60.0  # between two speeds in the metrics; the first is of the first minute


@dataclass(frozen=True)
class Speed:
    """Speed over the last minute."""

    steps_per_second: float
    """Optimiser steps."""
    clips_per_second: float
    """Training clips."""


@dataclass(frozen=True)
class StepWork:
    """What a step computes, on all processes of the run together."""

    flops: float
    """Floating-point operations of the forward and the backward pass, from `inference/flops.py`."""
    peak: float | None = None
    """Operations a second that the run's devices reach at multiplying matrices; None: not measured."""


class TrainingProgress:
    """Shows step, loss, learning rate, speed and time left of a loop; a context manager."""

    def __init__(
        self,
        description: str,
        *,
        total_steps: int,
        start_step: int = 0,
        unit: str = "clips",
        work: StepWork | None = None,
        stream: TextIO | None = None,
        line_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is printed before the first update.

        Args:
            description: A word or two, such as `pre-training`.
            total_steps: Steps of the whole run.
            start_step: Steps done before, where the run is resumed; speeds count from here.
            unit: What `num_clips` counts.
            work: Of a step, for its speed in operations; None: not known, and not shown.
            stream: Where to print; standard error where not given.
            line_seconds: Least time between plain lines, seconds.
            clock: Seconds from any origin, never going back.
        """
        self.description = description
        self.total_steps = total_steps
        self.unit = unit
        self.work = work
        self.step = start_step
        self.loss: float | None = None
        self.learning_rate: float | None = None
        self.data_wait: float | None = None
        """Fraction of the time that goes into waiting for data; None: not known, and not shown."""
        # No stream at all: Python on Windows without a console.
        self._stream: TextIO | None = stream if stream is not None else sys.stderr
        self._line_seconds = line_seconds
        self._clock = clock
        self._start = self._noted = clock()
        self._num_clips = 0
        self._marks = deque([(self._start, start_step, 0)])  # (seconds, steps, clips) at past updates
        self._num_updates = 0
        self._last_line: tuple[float, int] | None = None  # (seconds, step) of the last plain line
        self._bar = self._make_bar()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last_line is None or self._last_line[1] != self.step:
            self._print_line()

    def update(
        self, step: int, *, num_clips: int, loss: float | None = None, learning_rate: float | None = None
    ) -> None:
        """Tell that a step is done.

        Args:
            step: Steps done since the beginning of the run.
            num_clips: Clips of this step.
            loss: Where it was read from the device in this step; the shown value is smoothed over some.
            learning_rate: Where it changed.
        """
        now = self._clock()
        self.step = step
        self._num_updates += 1
        self._num_clips += num_clips
        self._marks.append((now, step, self._num_clips))
        # One mark older than the window stays, so that steps longer than the window have a speed too.
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW_SECONDS:
            self._marks.popleft()
        if loss is not None:
            self.loss = loss if self.loss is None else LOSS_MEMORY * self.loss + (1 - LOSS_MEMORY) * loss
        if learning_rate is not None:
            self.learning_rate = learning_rate
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, status=self._bar_text())
        elif self._last_line is None or now - self._last_line[0] >= self._line_seconds:
            self._print_line()

    def say(self, message: str) -> None:
        """Print a message of its own line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            self._print(message)

    def speed(self) -> Speed | None:
        """Return the speed over the last minute, or None before the first step is done."""
        (start, first_step, first_clips), (end, last_step, last_clips) = self._marks[0], self._marks[-1]
        if end <= start:
            return None
        return Speed((last_step - first_step) / (end - start), (last_clips - first_clips) / (end - start))

    def noted(self) -> dict[str, float]:
        """Return the speed over the last minute for the record of a step, once a minute; else nothing.

        `clips_per_second`, and where it is known `flops_per_second` and `peak_fraction`, their fraction of the peak.
        """
        speed, now = self.speed(), self._clock()
        if speed is None or now - self._noted < NOTED_SECONDS:
            return {}
        self._noted = now
        noted = {"clips_per_second": speed.clips_per_second}
        if self.work is not None:
            noted["flops_per_second"] = speed.steps_per_second * self.work.flops
            if self.work.peak is not None:
                noted["peak_fraction"] = noted["flops_per_second"] / self.work.peak
        return {name: float(f"{value:.4g}") for name, value in noted.items()}

    def status(self) -> str:
        """Return the numbers as one line of text: where the run is, how long it takes, how it goes."""
        return "  ".join(part for row in self._rows() for part in row)

    def _rows(self) -> tuple[list[str], list[str]]:
        """Return the numbers as text, in two rows for terminals that have no room for one."""
        speed = self.speed()
        place = [f"step {self.step}/{self.total_steps} ({self.step / max(self.total_steps, 1):.0%})"]
        place.append(f"{_clock_face(self._clock() - self._start)} elapsed")
        # The first step also starts processes and warms up: an estimate from it alone can be fifty times too long.
        if (
            speed is not None
            and speed.steps_per_second > 0
            and self._num_updates > 1
            and self.step < self.total_steps
        ):
            place.append(f"{_clock_face((self.total_steps - self.step) / speed.steps_per_second)} left")
        course = []
        if self.loss is not None:
            course.append(f"loss {self.loss:.4g}")
        if self.learning_rate is not None:
            course.append(f"lr {self.learning_rate:.2e}")
        if speed is not None:
            clips = speed.clips_per_second
            course.append(f"{clips:.0f} {self.unit}/s" if clips >= 100 else f"{clips:.3g} {self.unit}/s")
            if self.work is not None:
                course.append(flops_text(speed.steps_per_second * self.work.flops, self.work.peak))
        if self.data_wait is not None:
            course.append(f"{self.data_wait:.0%} waiting for data")
        return place, course

    def _bar_text(self) -> str:
        if self._bar is not None and self._bar.console.width < BAR_MIN_COLUMNS:
            return "\n".join("  ".join(row) for row in self._rows())
        return self.status()

    def _make_bar(self) -> Progress | None:
        # Asked of the stream, not of rich alone, which FORCE_COLOR persuades to animate a log file.
        if self._stream is None or not self._stream.isatty():
            return None
        console = Console(file=self._stream)
        if not console.is_terminal or console.is_dumb_terminal:
            return None
        columns = [
            SpinnerColumn(),  # the sign of life while a step takes its time
            TextColumn("{task.description}", markup=False),
            *([BarColumn(bar_width=24)] if console.width >= BAR_MIN_COLUMNS else []),
            TextColumn("{task.fields[status]}", markup=False),
        ]
        # Results printed meanwhile must stay on standard output, unless that is the same terminal.
        results_here = sys.stdout is not None and sys.stdout.isatty()
        bar = Progress(*columns, console=console, redirect_stdout=results_here)
        bar.add_task(self.description, total=self.total_steps, completed=self.step, status=self.status())
        return bar

    def _print_line(self) -> None:
        self._last_line = (self._clock(), self.step)
        self._print(f"{self.description}  {self.status()}")

    def _print(self, line: str) -> None:
        # A closed pipe or terminal must not end a run of days.
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                print(line, file=self._stream, flush=True)


class MeanSpeed:
    """The mean speed of a run's steps, the first excluded, which also starts what reads its clips."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin = self._end = 0.0
        self._num_clips: int | None = None  # None before the first step

    def add(self, num_clips: int) -> None:
        """Tell that a step of so many clips is done."""
        self._end = self._clock()
        if self._num_clips is None:
            self._begin, self._num_clips = self._end, 0
        else:
            self._num_clips += num_clips

    @property
    def clips_per_second(self) -> float | None:
        """Clips a second until the last step; None before the second."""
        seconds = self._end - self._begin
        return self._num_clips / seconds if self._num_clips is not None and seconds > 0 else None


def tell(message: str) -> None:
    """Print a line to standard error; a closed terminal must not end a run."""
    with contextlib.suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)


def flops_text(flops: float, peak: float | None) -> str:
    """Return operations a second for people, with their fraction of the peak where that is known."""
    number = f"{flops / 1e12:.3g} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.3g} GFLOP/s"
    if peak is None:
        return number
    return f"{number}, {flops / peak:.{0 if flops >= 0.1 * peak else 1}%} of peak"


def _clock_face(seconds: float) -> str:
    """Return `h:mm:ss`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
