"""Copies among the videos of a collection, read in processes, compared in this one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from videomae.data.datasets import BadVideo
from videomae.engine.jobs import JobFailure, num_processors, running_jobs
from videomae.engine.progress import TrainingProgress
from videomae.errors import ConfigError
from videomae.inference.files import collection_store, list_videos
from videomae.search.copies import find_copies
from videomae.search.frame_prints import FramePrints, frame_prints
from videomae.video.index_store import IndexStore


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


@dataclass(frozen=True)
class DedupeResult:
    """What was found."""

    pairs: tuple[CopyPair, ...]
    """Surest first."""
    num_videos: int
    """Videos that were compared."""
    bad: tuple[BadVideo, ...]
    """Those that could not be read."""

    def to_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "videos": self.num_videos,
            "pairs": [asdict(one) for one in self.pairs],
            "errors": [{"path": one.path, "error": one.reason} for one in self.bad],
        }


def find_duplicate_footage(videos: Sequence[str | os.PathLike[str]], *, workers: int | None = None) -> DedupeResult:
    """Find videos that show the same, also in part, at another time or at 0.9 to 1.1 times the speed.

    Args:
        videos: Files, folders of them of any depth, manifests; at least two videos.
        workers: Processes that read; None: one for each processor.

    Raises:
        ConfigError: If there are fewer than two videos.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; it is a number of processes, at least 1")
    items = list(list_videos(videos))
    bad = [item for item in items if isinstance(item, BadVideo)]
    paths = list(dict.fromkeys(item for item in items if isinstance(item, Path)))
    if len(paths) < 2:
        reason = f": {bad[0].reason}" if bad else ""
        raise ConfigError(f"dedupe compares videos and is given {len(paths)}{reason}: give a folder of them")
    prints: dict[Path, FramePrints] = {}
    progress = TrainingProgress("reading", total_steps=len(paths), unit="videos")
    look = partial(_prints, store=collection_store(videos))
    with progress, running_jobs(look, paths, workers=workers or num_processors()) as finished:
        for number, job in enumerate(finished, start=1):
            progress.update(number, num_clips=1)
            if isinstance(job.result, JobFailure):
                bad.append(BadVideo(str(job.job), job.result.reason))
            else:
                prints[job.job] = job.result
    read = [path for path in paths if path in prints]
    pairs = tuple(
        CopyPair(
            str(read[copy.one]),
            str(read[copy.other]),
            round(copy.offset_seconds, 2),
            round(copy.speed, 3),
            round(copy.overlap_seconds, 2),
            round(copy.score, 4),
        )
        for copy in find_copies([prints[path] for path in read])
    )
    return DedupeResult(pairs, len(read), tuple(bad))


def _prints(path: Path, store: IndexStore | None) -> FramePrints:
    return frame_prints(path, store=store)
