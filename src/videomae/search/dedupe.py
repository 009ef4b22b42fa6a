"""Copies among the videos of a collection, read in processes, compared in this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from videomae.data.datasets import BadVideo
from videomae.engine.interrupt import StopRequested
from videomae.engine.jobs import JobFailure, num_processors, running_jobs
from videomae.engine.progress import TrainingProgress
from videomae.errors import ConfigError
from videomae.inference.files import collection_store, list_inputs
from videomae.inference.kept_rows import KeptRows
from videomae.search.copies import Copy, find_copies
from videomae.search.frame_prints import COARSE, NUM_VALUES, RATE, FramePrints, frame_prints
from videomae.wording import counted

SETTINGS = {"rate": RATE, "version": 1}  # of what is kept; other prints need another version


@dataclass(frozen=True)
class CopyPair:
    """Two videos that show the same."""

    one: str
    """The first video."""
    other: str
    """The second."""
    offset: float
    """Second t of the first is shown at second `speed * t + offset` of the second."""
    speed: float
    """Seconds of the second for each second of the first."""
    overlap: float
    """Seconds of the first that are in the second."""
    score: float
    """How sure it is, at most 1."""
    is_still: bool
    """True if nothing moves: they may also be two recordings of one view. The score is then at most 0.2."""


@dataclass(frozen=True)
class DedupeResult:
    """What was found."""

    pairs: tuple[CopyPair, ...]
    """Surest first."""
    num_videos: int
    """Videos that were compared."""
    bad: tuple[BadVideo, ...]
    """Those that could not be read, or not to their end."""
    is_stopped: bool = False
    """True if Ctrl-C ended it before all videos were compared."""

    def to_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "videos": self.num_videos,
            "is_whole": not self.is_stopped,
            "pairs": [asdict(one) for one in self.pairs],
            "errors": [{"path": one.path, "error": one.reason} for one in self.bad],
        }


def find_duplicate_footage(
    videos: Sequence[str | os.PathLike[str]],
    *,
    workers: int | None = None,
    output: Path | None = None,
    resume: bool = False,
) -> DedupeResult:
    """Find videos that show the same, also in part, at another time or at 0.9 to 1.1 times the speed.

    Ctrl-C while videos are read goes on to compare those that were, Ctrl-C after that ends with the pairs found.

    Args:
        videos: Files, folders of them of any depth, manifests, addresses; at least two videos.
        workers: Processes that read; None: one for each processor.
        output: The file that the caller will write: what is seen of each video is kept beside it until then, see
            `KeptRows`.
        resume: Go on with what a stopped call has left there.

    Raises:
        ConfigError: If there are fewer than two videos.
        RunError: If the disk refuses.
        StopRequested: After SIGTERM.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; it is a number of processes, at least 1")
    items = list(list_inputs(videos))
    bad = [item for item in items if isinstance(item, BadVideo)]
    names = list(dict.fromkeys(os.fspath(item) for item in items if not isinstance(item, BadVideo)))
    if len(names) < 2:
        reason = f": {bad[0].reason}" if bad else ""
        raise ConfigError(f"dedupe compares videos and is given {len(names)}{reason}: give a folder of them")
    kept = (
        None
        if output is None
        else KeptRows(output, SETTINGS, width=2 * NUM_VALUES + len(COARSE), batch_size=1, resume=resume)
    )
    prints = (
        {} if kept is None else {name: found for name in names if (found := _kept_prints(kept, name)) is not None}
    )
    todo = [name for name in names if name not in prints]
    progress = TrainingProgress("reading", total_steps=len(names), start_step=len(prints), unit="videos")
    look = partial(frame_prints, store=collection_store(videos))
    is_stopped = False
    try:
        with progress, running_jobs(look, todo, workers=workers or num_processors()) as finished:
            for number, job in enumerate(finished, start=len(prints) + 1):
                progress.update(number, num_clips=1)
                if isinstance(job.result, JobFailure):
                    bad.append(BadVideo(job.job, job.result.reason))
                    continue
                prints[job.job] = job.result
                if kept is not None:
                    _keep_prints(kept, job.job, job.result)
    except StopRequested:
        raise
    except KeyboardInterrupt:
        is_stopped = True
        print(
            f"stopped: comparing the {counted(len(prints), 'video')} read so far; Ctrl-C again ends that",
            file=sys.stderr,
        )
    read = [name for name in names if name in prints]
    bad += [BadVideo(name, f"{name} is not whole: {fault}") for name in read if (fault := prints[name].fault)]
    copies: list[Copy] = []
    try:
        for copy in find_copies([prints[name] for name in read]):
            copies.append(copy)  # one by one: those before Ctrl-C stay
    except KeyboardInterrupt:
        is_stopped = True
    pairs = tuple(
        CopyPair(
            read[copy.one],
            read[copy.other],
            round(copy.offset_seconds, 2),
            round(copy.speed, 3),
            round(copy.overlap_seconds, 2),
            round(copy.score, 4),
            copy.is_still,
        )
        for copy in sorted(copies, key=lambda copy: (-copy.score, copy.one, copy.other))
    )
    return DedupeResult(pairs, len(read), tuple(bad), is_stopped)


def _keep_prints(kept: KeptRows, name: str, prints: FramePrints) -> None:
    kept.begin(name)
    kept.append(name, np.concatenate([prints.values, prints.changes, prints.coarse], axis=1, dtype=np.float64))
    kept.finish(name, {"start_seconds": prints.start_seconds, "fault": prints.fault})


def _kept_prints(kept: KeptRows, name: str) -> FramePrints | None:
    found = kept.finished(name)
    if found is None:
        return None
    rows = kept.rows(name).astype(np.float32)
    values, changes, coarse = np.split(rows, [NUM_VALUES, 2 * NUM_VALUES], axis=1)
    return FramePrints(values, changes, coarse, **found.values)
