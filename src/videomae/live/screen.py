"""What a stream looks like now, drawn in the terminal; lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from videomae.live.reader import StreamStats

LINE_SECONDS = 10.0
NUM_CLASSES = 8
BAR_COLUMNS = 30


class StreamScreen:
    """Shows classes, speed, latency and drops on standard error; a context manager."""

    def __init__(self, name: str, *, is_shown: bool, stream: TextIO | None = None) -> None:
        """Prepare.

        Args:
            name: The stream.
            is_shown: Whether to draw; messages are printed in any case.
            stream: Where to; standard error where not given.
        """
        self._name, self._is_shown = name, is_shown
        self._stream = stream if stream is not None else sys.stderr
        self._console = Console(file=self._stream, highlight=False, emoji=False)
        self._live: Live | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> StreamScreen:
        if self._is_shown and self._stream.isatty() and not self._console.is_dumb_terminal:
            self._live = Live(Text(self._name), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a message on a line of its own."""
        self._console.print(Text(line), soft_wrap=True)

    def update(
        self,
        scores: Mapping[str, float],
        on: set[str],
        stats: StreamStats,
        *,
        latency: float,
        decisions: int,
        skipped: int,
    ) -> None:
        """Show where the stream stands.

        Args:
            scores: Of all classes.
            on: Labels whose events are on.
            stats: What has come.
            latency: Of the last decision, seconds.
            decisions: Made so far.
            skipped: Left out, because the model was slower than the rate.
        """
        if self._live is not None:
            self._live.update(self._drawn(scores, on, stats, latency, decisions, skipped))
        elif self._is_shown and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            best = max(scores, key=lambda label: scores[label])
            self.say(f"{status_line(stats, latency, decisions, skipped)}, {best} {scores[best]:.0%}")

    def _drawn(
        self,
        scores: Mapping[str, float],
        on: set[str],
        stats: StreamStats,
        latency: float,
        decisions: int,
        skipped: int,
    ) -> Group:
        table = Table(box=None, show_header=False)
        for label in sorted(scores, key=lambda one: -scores[one])[:NUM_CLASSES]:
            bar = "\N{BOX DRAWINGS HEAVY HORIZONTAL}" * round(scores[label] * BAR_COLUMNS)
            table.add_row(
                f"{scores[label]:.0%}",
                Text(bar.ljust(BAR_COLUMNS), "cyan"),
                Text(label, "bold" if label in on else ""),
            )
        title = f"{self._name}  {stats.width}x{stats.height} {stats.codec}"
        return Group(Text(title), table, Text(status_line(stats, latency, decisions, skipped), "dim"))


def status_line(stats: StreamStats, latency: float, decisions: int, skipped: int) -> str:
    """Return the numbers of a stream as one line."""
    return (
        f"{stats.frames} frames, {stats.dropped} dropped, {stats.reconnects} reconnects, {decisions} decisions, "
        f"{skipped} skipped, latency {latency:.2f} s, {stats.lag_seconds:.2f} s behind"
    )
