"""How far a pass over videos is: a live bar on a terminal, a plain line now and then everywhere else.

Speed is told relative to real time: 30x means that half a minute of video takes a second.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 10.0  # least time between plain lines


class ScanProgress:
    """Shows place, speed and time left of a pass over videos; a context manager."""

    def __init__(
        self,
        num_videos: int,
        *,
        stream: TextIO | None = None,
        line_seconds: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is printed before the first update.

        Args:
            num_videos: Videos in all.
            stream: Where to print; standard error where not given.
            line_seconds: Least time between plain lines, seconds.
            clock: Seconds from any origin, never going back.
        """
        self._num_videos = num_videos
        self._stream = stream if stream is not None else sys.stderr
        self._line_seconds, self._clock = line_seconds, clock
        self._name, self._number = "", 0
        self._total = self._first = self._at = 0.0  # of the current video, seconds
        self._covered = 0.0  # seconds of video done before the current one
        self._lengths = 0.0  # of all videos up to the current one, those of a run before too
        self._begun = self._last_line = clock()
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

    def begin(self, name: str, *, total_seconds: float, first_seconds: float = 0.0) -> None:
        """Go on to the next video.

        Args:
            name: The video.
            total_seconds: Its length.
            first_seconds: How much of it was done before.
        """
        self._covered += self._at - self._first
        self._name, self._number = name, self._number + 1
        self._total, self._first, self._at = total_seconds, first_seconds, first_seconds
        self._lengths += total_seconds

    def update(self, seconds: float) -> None:
        """Tell up to where the video is done."""
        self._at = seconds
        now = self._clock()
        if self._bar is not None:
            fraction = (self._number - 1 + min(self._at / max(self._total, 1e-9), 1.0)) / max(self._num_videos, 1)
            self._bar.update(self._bar.task_ids[0], completed=fraction, status=self.status())
        elif now - self._last_line >= self._line_seconds:
            self._last_line = now
            with contextlib.suppress(OSError, ValueError):  # a closed terminal must not end the work
                print(self.status(), file=self._stream, flush=True)

    def status(self) -> str:
        """Return the numbers as one line of text."""
        place = f"{_clock_face(self._at)} of {_clock_face(self._total)}"
        which = f"video {self._number} of {self._num_videos}, " if self._num_videos > 1 else ""
        parts = [f"{which}{self._name}", f"{place} ({self._at / max(self._total, 1e-9):.0%})"]
        speed = self.speed()
        if speed is not None:
            parts += [f"{speed:.3g}x real time", f"{_clock_face(self._seconds_left(speed))} left"]
        return "  ".join(parts)

    def speed(self) -> float | None:
        """Return seconds of video done in a second, over all videos so far; None before there is any."""
        passed, covered = self._clock() - self._begun, self._covered + self._at - self._first
        return covered / passed if passed > 0 and covered > 0 else None

    def _seconds_left(self, speed: float) -> float:
        """Return how long all videos still take, where those to come are as long as those that came."""
        to_come = max(self._num_videos - self._number, 0) * self._lengths / max(self._number, 1)
        return (max(self._total - self._at, 0.0) + to_come) / speed

    def summary(self) -> str:
        """Return in one line what was done in all."""
        covered, passed = self._covered + self._at - self._first, self._clock() - self._begun
        return f"{_clock_face(covered)} of video in {passed:.1f} s, {covered / max(passed, 1e-9):.3g}x real time"

    def _make_bar(self) -> Progress | None:
        if self._stream is None or not self._stream.isatty():
            return None
        console = Console(file=self._stream)
        if not console.is_terminal or console.is_dumb_terminal:
            return None
        bar = Progress(BarColumn(bar_width=24), TextColumn("{task.fields[status]}", markup=False), console=console)
        bar.add_task("timeline", total=1.0, status="")
        return bar


def _clock_face(seconds: float) -> str:
    """Return `h:mm:ss`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
