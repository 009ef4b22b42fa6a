"""How fast clips can be read from a collection on this machine, timed on a sample of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from videomae.errors import VideoReadError
from videomae.video.index_store import IndexStore
from videomae.video.opening import open_reader
from videomae.video.sampling import ClipConfig, pretraining_clip

MAX_CLIPS = 64
MAX_SECONDS = 10.0  # of timing: a collection of long files in 4K is timed on fewer clips


@dataclass(frozen=True)
class ReadRate:
    """How fast one process opens videos that it has read before, and decodes a clip of each to RGB at full size."""

    clips_per_second: float
    """Of one process."""
    num_clips: int
    """How many were timed."""

    def workers_for(self, clips_per_second: float) -> int:
        """Return how many such processes read that many clips a second, where each has a processor."""
        return math.ceil(clips_per_second / self.clips_per_second)


def reading_rate(sources: Sequence[Path], clip: ClipConfig) -> ReadRate | None:
    """Time the reading of one clip from each of some videos, evenly spread over the collection.

    Args:
        sources: What to open, see `video.opening`.
        clip: Which frames.

    Returns:
        The rate; None where no clip could be read.
    """
    step = max(len(sources) / MAX_CLIPS, 1.0)
    chosen = [sources[int(number * step)] for number in range(min(len(sources), MAX_CLIPS))]
    num_clips, spent = 0, 0.0
    with TemporaryDirectory(
        prefix="videomae-"
    ) as folder:  # as in the second epoch, without a trace in the collection
        store = IndexStore(folder, (Path(folder),))
        for number, source in enumerate(chosen):
            try:
                open_reader(source, store=store).close()
                start = time.perf_counter()
                with open_reader(source, store=store, fps=clip.fps) as reader:
                    rng = np.random.Generator(np.random.PCG64(number))
                    reader.frames(pretraining_clip(len(reader), clip, rng=rng))
            except VideoReadError:
                continue
            spent += time.perf_counter() - start
            num_clips += 1
            if spent > MAX_SECONDS:
                break
    return ReadRate(num_clips / spent, num_clips) if num_clips else None
