"""Memory of a command over hours of video.

    python -m benchmarks.flat_memory timeline MODEL --hours 2
    python -m benchmarks.flat_memory features MODEL --hours 2

Runs the command on a file made by repeating packets, looks at its process's memory every second until it ends, and
tells how much it has grown since minute 10 of the video.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from benchmarks.long_videos import repeated_video
from benchmarks.stream import resident_mb

FROM_MINUTE = 10.0
STEP_SECONDS = 0.5
POLL_SECONDS = 1.0


class Growth(NamedTuple):
    """What a run has taken."""

    windows: int
    seconds: float
    at_mb: float
    """Resident at the minute from which growth counts."""
    highest_mb: float
    """The most after it."""


def scored_windows(num_classes: int) -> Callable[[Path], int]:
    """Return what tells from its folder how many windows `videomae timeline` has scored."""
    return lambda parts: sum(one.stat().st_size for one in parts.glob("*.f64")) // (8 * num_classes)


def written_windows() -> Callable[[Path], int]:
    """Return what tells from its folder how many windows `videomae features` has written."""
    known: dict[Path, int] = {}

    def count(parts: Path) -> int:
        for part in parts.glob("*.parquet"):
            if part not in known:
                known[part] = pq.read_metadata(part).num_rows
        return sum(known.values())

    return count


def growth(words: list[str], parts: Path, windows: Callable[[Path], int], *, total_minutes: float) -> Growth:
    """Run a command and look at its memory.

    Args:
        words: The command, after `videomae`.
        parts: The folder in which it keeps what is done.
        windows: Tells from that folder how many windows are done.
        total_minutes: Length of the video.
    """
    found: list[tuple[int, float]] = []  # windows done, MB
    begin = time.monotonic()
    command = [sys.executable, "-m", "videomae", *words]
    with open(os.devnull, "w") as nothing, subprocess.Popen(command, stdout=nothing, stderr=nothing) as process:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            try:
                now = resident_mb(process.pid)
                done = windows(parts)
            except (RuntimeError, OSError):  # it is ending
                continue
            found.append((max(done, *(count for count, _ in found[-1:]), 0), now))
        if process.wait() != 0:
            raise SystemExit(f"videomae {words[0]} ended with status {process.returncode}")
    seconds, total = time.monotonic() - begin, max((count for count, _ in found), default=0)
    later = [now for count, now in found if total and count / total * total_minutes >= FROM_MINUTE]
    if not later:
        raise SystemExit(
            f"videomae {words[0]} ended after {seconds:.0f} s, too early to be looked at: give more --hours"
        )
    return Growth(total, seconds, later[0], max(later))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("timeline", "features"))
    parser.add_argument("model")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--size", type=int, default=64, help="of the frames, pixels")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        video = repeated_video(Path(folder) / "long.mp4", seconds=3600 * options.hours, size=options.size)
        print(f"{video.stat().st_size / 1e6:.0f} MB, {options.hours:g} hours")
        if options.command == "timeline":
            from videomae.inference.predictor import Predictor

            windows = scored_windows(len(Predictor(options.model, device="cpu").classes))
            out = Path(folder) / "events.json"
        else:
            windows, out = written_windows(), Path(folder) / "index.parquet"
        words = [options.command, options.model, str(video), "--out", str(out)]
        words += ["--device", "cpu", "--step", str(STEP_SECONDS)]
        found = growth(words, Path(f"{out}.parts"), windows, total_minutes=60 * options.hours)
    print(
        f"{found.windows} windows in {found.seconds:.0f} s, {found.windows / found.seconds:.1f} a second, "
        f"{3600 * options.hours / found.seconds:.0f}x real time"
    )
    print(
        f"at minute {FROM_MINUTE:g}: {found.at_mb:.0f} MB; highest after it: {found.highest_mb:.0f} MB; "
        f"growth {found.highest_mb - found.at_mb:.1f} MB"
    )


if __name__ == "__main__":
    main()
